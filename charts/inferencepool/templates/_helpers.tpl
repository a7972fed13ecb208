{{- define "pool.name" -}}
{{- .Release.Name | lower | trunc 40 | trimSuffix "-" }}-epp
{{- end }}

{{/* The pool's own name is the release's. */}}
{{- define "pool.labels" -}}
app.kubernetes.io/name: {{ include "pool.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "pool.meta" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "pool.labels" .root | nindent 2 }}
{{- end }}

{{- define "pool.group" -}}
{{- regexFind "^[^/]+" .Values.inferencePool.apiVersion -}}
{{- end }}

{{- define "pool.ours" -}}
{{- $image := .Values.inferenceExtension.image -}}
{{- if not (or $image.hub $image.name) }}true{{ end -}}
{{- end }}

{{- define "pool.image" -}}
{{- $image := .Values.inferenceExtension.image -}}
{{- if include "pool.ours" . }}{{ with .Values.global.imageRegistry }}{{ . }}/{{ end }}baton/router:{{ $image.tag | default .Chart.AppVersion }}
{{- else }}
{{- printf "%s/%s:%s" (required "inferenceExtension.image.hub goes with image.name" $image.hub) (required "inferenceExtension.image.name goes with image.hub" $image.name) (required "inferenceExtension.image.tag: name the tag of your picker's image" $image.tag) }}
{{- end }}
{{- end }}

{{/* targetPorts, or targetPortNumber of generation 0.5: a list of numbers */}}
{{- define "pool.ports" -}}
{{- if .Values.inferencePool.targetPortNumber }}{{ list .Values.inferencePool.targetPortNumber | toJson }}
{{- else }}
{{- $ports := list -}}
{{- range .Values.inferencePool.targetPorts }}{{ $ports = append $ports .number }}{{ end -}}
{{- $ports | toJson -}}
{{- end }}
{{- end }}

{{- define "pool.selector" -}}
{{- $labels := .Values.inferencePool.modelServers.matchLabels -}}
{{- if not $labels }}{{ fail "inferencePool.modelServers.matchLabels: the labels of the model servers' pods, as llm-d.ai/inferenceServing: \"true\"" }}{{ end -}}
{{- if .Values.global.oneRelease }}{{ $labels = merge (dict "app.kubernetes.io/instance" .Release.Name) $labels }}{{ end -}}
{{- toYaml $labels -}}
{{- end }}

{{/* flags of both generations as one map */}}
{{- define "pool.flags" -}}
{{- $flags := dict -}}
{{- $given := .Values.inferenceExtension.flags -}}
{{- if kindIs "slice" $given }}
  {{- range $given }}{{ $_ := set $flags .name .value }}{{ end }}
{{- else }}
  {{- range $name, $value := $given }}{{ $_ := set $flags $name $value }}{{ end }}
{{- end -}}
{{- toYaml $flags -}}
{{- end }}

{{- define "pool.args" -}}
{{- $e := .Values.inferenceExtension -}}
{{- $args := list -}}
{{- if .Values.inferencePool.create }}
  {{- $args = concat $args (list "--pool-name" .Release.Name "--pool-namespace" .Release.Namespace "--pool-group" (include "pool.group" .)) }}
{{- else }}
  {{- if not (include "pool.ours" .) }}{{ fail "inferencePool.create=false needs baton-router: leave inferenceExtension.image empty" }}{{ end }}
  {{- $labels := list }}
  {{- range $k, $v := include "pool.selector" . | fromYaml }}{{ $labels = append $labels (printf "%s=%s" $k $v) }}{{ end }}
  {{- $args = concat $args (list "--endpoint-selector" (join "," $labels) "--endpoint-target-ports" (include "pool.ports" . | fromJsonArray | join ",") "--pool-namespace" .Release.Namespace) }}
{{- end }}
{{- $args = concat $args (list "--zap-encoder" "json" "--grpc-port" (toString $e.extProcPort) "--grpc-health-port" "9003" "--metrics-port" "9090" "--config-file" (printf "/config/%s" $e.pluginsConfigFile)) -}}
{{- if $e.httpPort }}
  {{- if not (include "pool.ours" .) }}{{ fail "inferenceExtension.httpPort is a door of baton-router: leave inferenceExtension.image empty" }}{{ end }}
  {{- $args = concat $args (list "--http-port" (toString $e.httpPort)) }}
{{- end }}
{{- $args = append $args (printf "--tracing=%v" $e.tracing.enabled) -}}
{{- if not $e.monitoring.prometheus.auth.enabled }}{{ $args = append $args "--metrics-endpoint-auth=false" }}{{ end -}}
{{- if gt (int $e.replicas) 1 }}{{ $args = append $args "--ha-enable-leader-election" }}{{ end -}}
{{- range $name, $value := include "pool.flags" . | fromYaml }}{{ $args = append $args (printf "--%s=%v" (trimPrefix "--" $name) $value) }}{{ end -}}
{{- toYaml (concat $args $e.extraArgs) -}}
{{- end }}
