{{- define "ms.podmonitor" -}}
{{- $ports := list }}
{{- range .values.containers }}{{ range .ports }}{{ $ports = append $ports .name }}{{ end }}{{ end }}
{{- $port := .pm.portName | default "metrics" }}
{{- if and $ports (not (has $port $ports)) }}
{{- fail (printf "%s.monitoring.podmonitor.portName is %s, but the containers' ports are named %s: nothing would be scraped" .role $port (join ", " $ports)) }}
{{- end }}
{{- $endpoint := dict "port" $port "path" (.pm.path | default "/metrics") "interval" (.pm.interval | default "30s")
    "relabelings" (concat (list (dict "sourceLabels" (list "__meta_kubernetes_pod_label_llm_d_ai_role") "targetLabel" "role")) (.pm.relabelings | default list)) }}
{{- range $k := list "scrapeTimeout" "metricRelabelings" }}{{ if get $.pm $k }}{{ $_ := set $endpoint $k (get $.pm $k) }}{{ end }}{{ end }}
{{- $endpoints := list $endpoint }}
{{- if and (eq .role "decode") .root.Values.routing.proxy.enabled (not .root.Values.routing.proxy.image) }}{{ $endpoints = append $endpoints (set (deepCopy $endpoint) "port" "proxy-metrics" | merge (dict "path" "/metrics")) }}{{ end }}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ .name }}-{{ .role }}-podmonitor
  namespace: {{ .root.Release.Namespace }}
  labels: {{- merge (deepCopy (.pm.labels | default dict)) (include "ms.labels" .root | fromYaml) | toYaml | nindent 4 }}
  {{- with .pm.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  selector:
    matchLabels:
      app.kubernetes.io/instance: {{ .root.Release.Name }}
      llm-d.ai/role: {{ .role }}
  podMetricsEndpoints: {{- toYaml $endpoints | nindent 4 }}
  {{- with .pm.namespaceSelector }}
  namespaceSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Values of old generations that asked this chart for what another one does now: said, not guessed. */}}
{{- define "ms.refuse" -}}
{{- $r := .Values.routing -}}
{{- $where := dict "epp" "the endpoint picker is chart inferencepool: set routing.epp.create=false and install it as gaie-pd"
    "inferencePool" "the InferencePool is made by chart inferencepool: set routing.inferencePool.create=false"
    "httpRoute" "the HTTPRoute is made by chart inferencepool (httpRoute.create=true) or by httproute.yaml: set routing.httpRoute.create=false" -}}
{{- range $part, $advice := $where -}}
  {{- if eq (toString (dig $part "create" false $r)) "true" }}{{ fail (printf "routing.%s.create: %s" $part $advice) }}{{ end -}}
{{- end -}}
{{- range $role := list "decode" "prefill" -}}
  {{- $v := get $.Values $role -}}
  {{- if and $v.create (not $v.containers) (gt (int $v.replicas) 0) }}{{ fail (printf "%s.containers: one container with the model server's image and modelCommand, or %s.create=false" $role $role) }}{{ end -}}
{{- end -}}
{{- end }}
