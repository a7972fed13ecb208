{{- define "infra.fullname" -}}
{{- $g := .Values.gateway -}}
{{- if $g.fullnameOverride }}{{ $g.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" (.Values.fullnameOverride | default .Release.Name) ($g.nameOverride | default "inference-gateway") | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Istio names what it makes GATEWAY-CLASS; the others use the Gateway's name. */}}
{{- define "infra.serviceName" -}}
{{- $class := .Values.gateway.gatewayClassName -}}
{{- if or (eq $class "istio") (eq $class "data-science-gateway-class") }}{{ include "infra.fullname" . }}-{{ $class }}{{ else }}{{ include "infra.fullname" . }}{{ end }}
{{- end }}

{{/* generation 1.2 said gateway.serviceType */}}
{{- define "infra.serviceType" -}}
{{- $external := eq (dig "exposure" "type" "" .Values.gateway) "external" -}}
{{- .Values.gateway.service.type | default .Values.gateway.serviceType | default (ternary "LoadBalancer" "ClusterIP" $external) -}}
{{- end }}

{{- define "infra.labels" -}}
{{- $labels := dict
  "app.kubernetes.io/name" (.Values.nameOverride | default .Chart.Name)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/component" "inference-gateway"
  "app.kubernetes.io/gateway" (include "infra.fullname" .)
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version) -}}
{{- toYaml (merge (deepCopy .Values.gateway.labels) .Values.commonLabels $labels) -}}
{{- end }}

{{- define "infra.meta" -}}
{{- $meta := dict "name" .name "namespace" .root.Release.Namespace "labels" (merge (.labels | default dict) (include "infra.labels" .root | fromYaml)) -}}
{{- $notes := merge (deepCopy (.annotations | default dict)) .root.Values.commonAnnotations -}}
{{- if $notes }}{{ $_ := set $meta "annotations" $notes }}{{ end -}}
{{- toYaml $meta -}}
{{- end }}

{{/* Log arguments and resources of Istio's proxy, as overlays of the Deployment and the Service that it makes. */}}
{{- define "infra.istioParameters" -}}
{{- $g := .Values.gateway -}}
{{- $level := ternary "warning" $g.gatewayParameters.logLevel (eq $g.gatewayParameters.logLevel "warn") -}}
{{- $proxy := dict "name" "istio-proxy" "args" (list "proxy" "router" "--domain" "$(POD_NAMESPACE).svc.cluster.local"
    "--proxyLogLevel" $level "--proxyComponentLogLevel" "misc:error" "--log_output_level" (printf "all:%s,default:%s" $g.gatewayParameters.logLevel $g.gatewayParameters.logLevel)) -}}
{{- if $g.gatewayParameters.resources }}{{ $_ := set $proxy "resources" $g.gatewayParameters.resources }}{{ end -}}
{{- $spec := dict "type" (include "infra.serviceType" .) -}}
{{- if $g.service.loadBalancerClass }}{{ $_ := set $spec "loadBalancerClass" $g.service.loadBalancerClass }}{{ end -}}
{{- if $g.service.ports }}{{ $_ := set $spec "ports" $g.service.ports }}{{ end -}}
{{- $deployment := dict "spec" (dict "template" (dict "spec" (dict "containers" (list $proxy)))) -}}
{{- toYaml (dict "deployment" (toYaml $deployment) "service" (toYaml (dict "spec" $spec))) -}}
{{- end }}
