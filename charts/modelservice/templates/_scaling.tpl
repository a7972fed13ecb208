{{/*
What a role is scaled by, as [{metric, pool, target}]: pool true is a gauge of the router about all workers of the role, else one of each
model server. Reasons: docs/scaling.md.
*/}}
{{- define "ms.scalingMetrics" -}}
{{- $a := .values.autoscaling -}}
{{- $rows := list -}}
{{- if $a.pool -}}
  {{- $rows = list (dict "metric" (printf "llm_d_epp_%s_pressure" .role) "pool" true "target" (ternary "0.5" "0.7" (eq .role "prefill"))) -}}
{{- else if eq .role "prefill" -}}
  {{- $rows = list (dict "metric" "vllm:num_requests_waiting" "pool" false "target" "2") -}}
{{- else -}}
  {{- $rows = list (dict "metric" "vllm:kv_cache_usage_perc" "pool" false "target" "0.8") (dict "metric" "vllm:num_requests_waiting" "pool" false "target" "1") -}}
{{- end -}}
{{- $names := list -}}
{{- range $rows }}{{ $names = append $names .metric }}{{ $_ := set . "target" (toString (get ($a.targets | default dict) .metric | default .target)) }}{{ end -}}
{{- range $metric, $_ := $a.targets }}
  {{- if not (has $metric $names) }}{{ fail (printf "%s.autoscaling.targets: nothing is scaled by %s, but by %s" $.role $metric (join ", " $names)) }}{{ end }}
{{- end -}}
{{- $rows | toJson -}}
{{- end }}

{{/* The autoscaler of a role: root, role, values, name. */}}
{{- define "ms.scaling" -}}
{{- $root := .root -}}{{- $a := .values.autoscaling -}}{{- $where := printf "%s.autoscaling" .role -}}
{{- $name := printf "%s-%s" .name .role -}}
{{- $least := int ($a.minReplicas | default 1) -}}{{- $most := int $a.maxReplicas -}}
{{- if lt $most $least }}{{ fail (printf "%s.maxReplicas: how many replicas your accelerators allow, at least minReplicas (%d)" $where $least) }}{{ end -}}
{{- $grace := .values.terminationGracePeriodSeconds | default (include "ms.grace" . | int) | int -}}
{{- /* Up: a worker at a time, as it takes a while until it helps. Down: the next one goes when the last one has drained. */ -}}
{{- $behavior := $a.behavior | default (dict
    "scaleUp" (dict "stabilizationWindowSeconds" 0 "policies" (list (dict "type" "Pods" "value" 1 "periodSeconds" 60)))
    "scaleDown" (dict "stabilizationWindowSeconds" 300 "policies" (list (dict "type" "Pods" "value" 1 "periodSeconds" $grace)))) -}}
{{- $target := dict "apiVersion" (ternary "leaderworkerset.x-k8s.io/v1" "apps/v1" $root.Values.multinode) "kind" (ternary "LeaderWorkerSet" "Deployment" $root.Values.multinode) "name" $name -}}
{{- $rows := include "ms.scalingMetrics" . | fromJsonArray -}}
{{- $kind := "HorizontalPodAutoscaler" -}}{{- $version := "autoscaling/v2" -}}{{- $spec := dict -}}
{{- if eq $a.kind "hpa" -}}
  {{- $metrics := $a.metrics | default list -}}
  {{- if not $metrics }}{{ range $rows -}}
    {{- $metric := dict "name" (.metric | replace ":" "_") -}}
    {{- if .pool -}}
      {{- $metrics = append $metrics (dict "type" "External" "external" (dict "metric" (set $metric "selector" (dict "matchLabels" (dict "inference_pool" $a.pool))) "target" (dict "type" "Value" "value" .target))) -}}
    {{- else -}}
      {{- $metrics = append $metrics (dict "type" "Pods" "pods" (dict "metric" $metric "target" (dict "type" "AverageValue" "averageValue" .target))) -}}
    {{- end -}}
  {{- end }}{{ end -}}
  {{- $spec = dict "scaleTargetRef" $target "minReplicas" $least "maxReplicas" $most "metrics" $metrics "behavior" $behavior -}}
{{- else -}}
  {{- $kind = "ScaledObject" -}}{{- $version = "keda.sh/v1alpha1" -}}
  {{- $triggers := $a.triggers | default list -}}
  {{- if not $triggers -}}
    {{- $address := required (printf "%s.prometheus: where KEDA asks, as http://llmd-kube-prometheus-stack-prometheus.llm-d-monitoring:9090" $where) $a.prometheus -}}
    {{- range $rows -}}
      {{- $query := printf "avg(%s{namespace=%q,pod=~%q})" .metric $root.Release.Namespace (printf "%s-.+" $name) -}}
      {{- if .pool }}{{ $query = printf "max(%s{inference_pool=%q})" .metric $a.pool }}{{ end -}}
      {{- $triggers = append $triggers (dict "type" "prometheus" "metricType" "Value" "metadata" (dict "serverAddress" $address "query" $query "threshold" .target)) -}}
    {{- end -}}
  {{- end -}}
  {{- $spec = dict "scaleTargetRef" $target "minReplicaCount" $least "maxReplicaCount" $most "triggers" $triggers
      "advanced" (dict "horizontalPodAutoscalerConfig" (dict "name" $name "behavior" $behavior)) -}}
{{- end -}}
apiVersion: {{ $version }}
kind: {{ $kind }}
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "ms.labels" $root | nindent 4 }}
spec: {{- toYaml $spec | nindent 2 }}
{{- end }}
