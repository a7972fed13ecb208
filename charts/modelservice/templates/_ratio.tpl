{{- define "ms.toolsImage" -}}
{{- if .Values.ratioController.image }}{{ .Values.ratioController.image }}
{{- else }}{{ with .Values.global.imageRegistry }}{{ . }}/{{ end }}baton/tools:{{ .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The ratio controller's flags, and what it cannot be asked: docs/scaling.md. */}}
{{- define "ms.ratioArgs" -}}
{{- $root := . -}}{{- $c := .Values.ratioController -}}
{{- $full := include "ms.fullname" . -}}
{{- if .Values.multinode }}{{ fail "ratioController: with multinode a worker is several pods, which it does not know: autoscale the roles instead (prefill.autoscaling)" }}{{ end -}}
{{- $args := list (printf "--lease=%s-ratio" $full) (printf "--model-server-port=%v" .Values.routing.servicePort) -}}
{{- range $role := list "prefill" "decode" -}}
  {{- $v := get $root.Values $role -}}{{- $b := get $c $role -}}
  {{- if dig "autoscaling" "enabled" false $v }}{{ fail (printf "ratioController and %s.autoscaling would both scale %s: enable one of them" $role $role) }}{{ end -}}
  {{- if or (not $v.create) (lt (int $v.replicas) 1) }}{{ fail (printf "ratioController: %s.replicas is 0: both roles need a worker to begin with" $role) }}{{ end -}}
  {{- if lt (int $b.max) (int $b.min) }}{{ fail (printf "ratioController.%s.max: how many workers your accelerators allow, at least min (%d)" $role (int $b.min)) }}{{ end -}}
  {{- $par := include "ms.parallelism" (dict "root" $root "role" $role "values" $v) | fromJson -}}
  {{- $args = concat $args (list (printf "--%s=%s-%s" $role $full $role) (printf "--%s-min=%d" $role (int $b.min)) (printf "--%s-max=%d" $role (int $b.max))
      (printf "--%s-tp=%d" $role (int $par.tensor)) (printf "--%s-devices=%d" $role (int $par.devices))) -}}
{{- end -}}
{{- $measured := and (include "ms.hasFlag" (dict "flag" "--prefill-cost" "args" $c.extraArgs)) (include "ms.hasFlag" (dict "flag" "--decode-cost" "args" $c.extraArgs)) -}}
{{- if not $measured -}}
  {{- $device := required "ratioController.device: what the workers run on, as baton deploy plan names it (h200, h100, mi300x, gaudi2, v6e, cpu2, ...); or --prefill-cost and --decode-cost in ratioController.extraArgs" $c.device -}}
  {{- $model := required "ratioController.model: as baton deploy plan names it" ($c.model | default .Values.modelArtifacts.name) -}}
  {{- $args = concat $args (list (printf "--model=%s" $model) (printf "--device=%s" $device)) -}}
{{- end -}}
{{- if $c.holdDevices }}{{ $args = append $args (printf "--hold-devices=%d" (int $c.holdDevices)) }}{{ end -}}
{{- if $c.ttftMs }}{{ $args = append $args (printf "--ttft=%v" $c.ttftMs) }}{{ end -}}
{{- if $c.tpotMs }}{{ $args = append $args (printf "--tpot=%v" $c.tpotMs) }}{{ end -}}
{{- if $c.dryRun }}{{ $args = append $args "--dry-run" }}{{ end -}}
{{- concat $args ($c.extraArgs | default list) | toJson -}}
{{- end }}

{{/* Replicas of a role's workload: where the ratio controller has them, those that run. */}}
{{- define "ms.replicas" -}}
{{- $replicas := .values.replicas -}}
{{- if .root.Values.ratioController.enabled -}}
  {{- $running := lookup "apps/v1" "Deployment" .root.Release.Namespace .name -}}
  {{- $replicas = dig "spec" "replicas" $replicas ($running | default dict) -}}
{{- end -}}
{{- int $replicas -}}
{{- end }}
