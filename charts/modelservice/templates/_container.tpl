{{/*
One container of a model server: what the chart knows, under what the values say. root, role, values (of the role), container, par, model, first
*/}}
{{- define "ms.container" -}}
{{- $c := deepCopy .container -}}
{{- $root := .root -}}
{{- $port := include "ms.port" . | int -}}
{{- $own := omit $c "modelCommand" "mountModelVolume" "extraConfig" -}}
{{- if not $own.name }}{{ $_ := set $own "name" "vllm" }}{{ end -}}
{{- $out := merge $own ($c.extraConfig | default dict) -}}
{{- $args := $c.args | default list -}}
{{- $env := $c.env | default list -}}
{{- $how := $c.modelCommand | default "" -}}
{{- $serves := and .first (ne (toString .container.isModelServer) "false") -}}
{{- $_ := unset $out "isModelServer" -}}
{{- if $how -}}
  {{- $ours := list -}}
  {{- if eq $how "custom" -}}
    {{- if not $c.command }}{{ fail (printf "%s.containers.%s: modelCommand custom needs a command" .role $out.name) }}{{ end -}}
  {{- else -}}
    {{- if eq $how "imageDefault" }}{{ $ours = list "--model" .model.path -}}
    {{- else }}
      {{- $_ := set $out "command" (ternary (list "baton-engine" "serve") (list "vllm" "serve") (eq $how "batonServe")) }}
      {{- $ours = list .model.path -}}
    {{- end -}}
    {{- if not (include "ms.hasFlag" (dict "flag" "--port" "args" $args)) }}{{ $ours = concat $ours (list "--port" (toString $port)) }}{{ end -}}
    {{- if not (include "ms.hasFlag" (dict "flag" "--served-model-name" "args" $args)) }}{{ $ours = concat $ours (list "--served-model-name" (required "modelArtifacts.name: the name that clients ask for" $root.Values.modelArtifacts.name)) }}{{ end -}}
    {{- if eq $how "vllmServe" "imageDefault" -}}
      {{- range $flag, $n := dict "--tensor-parallel-size" .par.tensor "--data-parallel-size" .par.data "--data-parallel-size-local" (ternary .par.dataLocal 1 (gt (int .par.workers) 1)) -}}
        {{- if and (gt (int $n) 1) (not (include "ms.hasFlag" (dict "flag" $flag "args" $args))) }}{{ $ours = concat $ours (list $flag (toString $n)) }}{{ end -}}
      {{- end -}}
    {{- end -}}
    {{- if and $root.Values.tracing.enabled (eq $how "vllmServe" "imageDefault") -}}
      {{- $ours = concat $ours (list "--otlp-traces-endpoint" (required "tracing.otelExporterEndpoint" $root.Values.tracing.otelExporterEndpoint)) -}}
    {{- end -}}
    {{- if eq $how "batonServe" -}}
      {{- if not (include "ms.hasFlag" (dict "flag" "--kv-lease" "args" $args)) }}{{ $ours = concat $ours (list "--kv-lease" (toString $root.Values.drain.leaseSeconds)) }}{{ end -}}
      {{- $seconds := ternary $root.Values.drain.streamSeconds $root.Values.drain.leaseSeconds (eq .role "decode") -}}
      {{- if not (include "ms.hasFlag" (dict "flag" "--drain-timeout" "args" $args)) }}{{ $ours = concat $ours (list "--drain-timeout" (toString $seconds)) }}{{ end -}}
    {{- end -}}
  {{- end -}}
  {{- $args = concat $ours $args -}}
{{- end -}}

{{- /* environment: the container's own wins, name by name */ -}}
{{- $add := list -}}
{{- if $how -}}
  {{- $add = list (dict "name" "DP_SIZE" "value" (toString .par.data)) (dict "name" "TP_SIZE" "value" (toString .par.tensor)) (dict "name" "DP_SIZE_LOCAL" "value" (toString .par.dataLocal)) -}}
  {{- $add = append $add (dict "name" "VLLM_NIXL_SIDE_CHANNEL_HOST" "valueFrom" (dict "fieldRef" (dict "fieldPath" "status.podIP"))) -}}
{{- end -}}
{{- if $c.mountModelVolume -}}
  {{- $add = concat $add .model.env -}}
{{- end -}}
{{- if and $root.Values.modelArtifacts.authSecretName (or $how $c.mountModelVolume) -}}
  {{- $add = append $add (dict "name" "HF_TOKEN" "valueFrom" (dict "secretKeyRef" (dict "name" $root.Values.modelArtifacts.authSecretName "key" "HF_TOKEN"))) -}}
{{- end -}}
{{- $type := dig "accelerator" "type" "" .values | default $root.Values.accelerator.type -}}
{{- if $how -}}
  {{- $known := dict "intel-i915" (list (dict "name" "VLLM_USE_V1" "value" "1") (dict "name" "TORCH_LLM_ALLREDUCE" "value" "1") (dict "name" "VLLM_WORKER_MULTIPROC_METHOD" "value" "spawn")) -}}
  {{- $add = concat $add (dig $type (get $known $type | default list) $root.Values.accelerator.env) -}}
{{- end -}}
{{- if and $root.Values.tracing.enabled $how -}}
  {{- $add = concat $add (list (dict "name" "OTEL_EXPORTER_OTLP_ENDPOINT" "value" $root.Values.tracing.otelExporterEndpoint)
      (dict "name" "OTEL_SERVICE_NAME" "value" (dig (printf "vllm%s" (title .role)) (printf "vllm-%s" .role) $root.Values.tracing.serviceNames))
      (dict "name" "OTEL_TRACES_SAMPLER" "value" $root.Values.tracing.sampling.sampler) (dict "name" "OTEL_TRACES_SAMPLER_ARG" "value" $root.Values.tracing.sampling.samplerArg)) -}}
{{- end -}}
{{- $all := list -}}
{{- range $add }}{{ if not (include "ms.hasEnv" (dict "name" .name "env" (concat $env $all))) }}{{ $all = append $all . }}{{ end }}{{ end -}}
{{- $all = concat $all $env -}}

{{- /* devices: one number. The values' own wins, as long as the ranks fit. */ -}}
{{- $limits := deepCopy (dig "resources" "limits" dict $c | default dict) -}}
{{- $requests := deepCopy (dig "resources" "requests" dict $c | default dict) -}}
{{- $dra := dig "accelerator" "dra" $root.Values.accelerator.dra .values -}}
{{- if and .first (not $dra) -}}
  {{- $resource := include "ms.acceleratorResource" (dict "root" $root "values" .values) -}}
  {{- if $resource -}}
    {{- $given := get $limits $resource | default (get $requests $resource) | toString -}}
    {{- if and $given (ne $type "google") (lt (int $given) (int .par.devices)) -}}
      {{- fail (printf "%s: %s of %s cannot hold tensor %d x data %d ranks a pod. For one device a pod and many pods, set %s.replicas and leave parallelism away; for many ranks in a pod, leave the resource away: the chart counts it" .role $given $resource (int .par.tensor) (int .par.dataLocal) .role) -}}
    {{- end -}}
    {{- $count := $given | default (toString .par.devices) -}}
    {{- $_ := set $limits $resource $count -}}{{- $_ := set $requests $resource $count -}}
  {{- end -}}
{{- end -}}
{{- range $k, $v := $limits }}{{ if kindIs "invalid" $v }}{{ $_ := unset $limits $k }}{{ end }}{{ end -}}
{{- range $k, $v := $requests }}{{ if kindIs "invalid" $v }}{{ $_ := unset $requests $k }}{{ end }}{{ end -}}
{{- range $k, $v := $limits }}{{ if contains "/" $k }}{{ $_ := set $requests $k $v }}{{ end }}{{ end -}}
{{- if .first }}{{ with $root.Values.accelerator.rdma }}{{ if not (hasKey $limits .) }}{{ $_ := set $limits . "1" }}{{ end }}{{ $_ := set $requests . (get $limits .) }}{{ end }}{{ end -}}
{{- $resources := omit ($c.resources | default dict) "limits" "requests" -}}
{{- if $limits }}{{ $_ := set $resources "limits" $limits }}{{ end -}}
{{- if $requests }}{{ $_ := set $resources "requests" $requests }}{{ end -}}
{{- if and .first $dra -}}
  {{- $_ := set $resources "claims" (list (dict "name" "accelerator")) -}}
{{- end -}}

{{- /* ports, probes, drain */ -}}
{{- $ports := $c.ports | default list -}}
{{- if and .first (not $ports) }}{{ $ports = list (dict "name" (dig "monitoring" "podmonitor" "portName" "metrics" .values) "containerPort" $port "protocol" "TCP") }}{{ end -}}
{{- if and .first $root.Values.probes.enabled -}}
  {{- $http := dict "path" "/health" "port" $port -}}
  {{- $models := dict "path" "/v1/models" "port" $port -}}
  {{- $checks := dict
    "startupProbe" (dict "httpGet" $models "initialDelaySeconds" 15 "periodSeconds" 30 "timeoutSeconds" 5 "failureThreshold" (div $root.Values.probes.startupSeconds 30))
    "livenessProbe" (dict "httpGet" $http "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 3)
    "readinessProbe" (dict "httpGet" $models "periodSeconds" 5 "timeoutSeconds" 2 "failureThreshold" 3) -}}
  {{- if eq $how "batonServe" }}{{ $_ := set $checks "startupProbe" (dict "httpGet" $http "periodSeconds" 1 "timeoutSeconds" 2 "failureThreshold" (int $root.Values.probes.startupSeconds)) }}{{ $_ := set $checks "readinessProbe" (dict "httpGet" $http "periodSeconds" 2 "timeoutSeconds" 2 "failureThreshold" 2) }}{{ end -}}
  {{- range $name, $probe := $checks }}{{ if not (hasKey $out $name) }}{{ $_ := set $out $name $probe }}{{ end }}{{ end -}}
{{- end -}}
{{- if and .first $how (not (hasKey $out "lifecycle")) }}{{ $_ := set $out "lifecycle" (include "ms.lifecycle" (dict "root" $root "role" .role "how" $how "port" $port) | fromYaml) }}{{ end -}}

{{- /* volumes */ -}}
{{- $mounts := $c.volumeMounts | default list -}}
{{- $at := list }}{{ range $mounts }}{{ $at = append $at .mountPath }}{{ end -}}
{{- if and .first (not (has "/dev/shm" $at)) }}{{ $mounts = append $mounts (dict "name" .shm "mountPath" "/dev/shm") }}{{ end -}}
{{- if and $c.mountModelVolume .model.volume (not (has $root.Values.modelArtifacts.mountPath $at)) }}
  {{- $mounts = append $mounts (dict "name" "model-storage" "mountPath" $root.Values.modelArtifacts.mountPath) }}
{{- end -}}

{{- $_ := set $out "securityContext" (merge (deepCopy ($out.securityContext | default dict)) (ternary dict (deepCopy $root.Values.securityContext) (eq (toString (dig "securityContext" "privileged" "" $c)) "true"))) -}}
{{- range $k, $v := dict "args" $args "env" $all "ports" $ports "resources" $resources "volumeMounts" $mounts }}
  {{- if $v }}{{ $_ := set $out $k $v }}{{ else }}{{ $_ := unset $out $k }}{{ end }}
{{- end -}}
{{- toYaml $out -}}
{{- end }}

{{/*
Before a model server is told to end: the router has to see it leave; prefilled KV has to be fetched (a lease at most); streams have to
finish. baton-engine does the last two by itself on SIGTERM.
*/}}
{{- define "ms.lifecycle" -}}
{{- $d := .root.Values.drain -}}
{{- $wait := int $d.preStopSeconds -}}
{{- if eq .how "batonServe" }}
{{- if semverCompare ">=1.30.0-0" .root.Capabilities.KubeVersion.Version }}
preStop:
  sleep:
    seconds: {{ $wait }}
{{- else }}
preStop:
  exec:
    command: [sleep, {{ $wait | quote }}]
{{- end }}
{{- else if eq .role "prefill" }}
preStop:
  exec:
    command: [sh, -c, "sleep {{ add $wait $d.leaseSeconds }}"]
{{- else }}
preStop:
  exec:
    command:
      - sh
      - -c
      - 'sleep {{ $wait }}; t=0; while [ $t -lt {{ $d.streamSeconds }} ] && curl -fs http://127.0.0.1:{{ .port }}/metrics | grep -qE "^vllm:num_requests_(running|waiting)[{ ].*[1-9]([.0-9]*)$"; do sleep 1; t=$((t+1)); done'
{{- end }}
{{- end }}

{{/* grace: the hook, then what the server takes to end */}}
{{- define "ms.grace" -}}
{{- $d := .root.Values.drain -}}
{{- $work := ternary $d.streamSeconds $d.leaseSeconds (eq .role "decode") | int -}}
{{- add (int $d.preStopSeconds) $work 15 -}}
{{- end }}

{{- define "ms.sidecar" -}}
{{- $p := .Values.routing.proxy -}}
{{- $args := list (printf "--port=%v" .Values.routing.servicePort) (printf "--vllm-port=%v" $p.targetPort) (printf "--connector=%s" $p.connector) (printf "--secure-proxy=%v" $p.secure) -}}
{{- if $p.prefillerUseTLS }}{{ $args = append $args "--prefiller-use-tls=true" }}{{ end -}}
{{- if $p.certPath }}{{ $args = append $args (printf "--cert-path=%s" $p.certPath) }}{{ end -}}
{{- if $p.zapDevel }}{{ $args = append $args "--zap-devel=true" }}{{ end -}}
{{- range $flag, $value := dict "--zap-encoder" $p.zapEncoder "--zap-log-level" $p.zapLogLevel "--zap-stacktrace-level" $p.zapStacktraceLevel "--zap-time-encoding" $p.zapTimeEncoding -}}
  {{- if $value }}{{ $args = append $args (printf "%s=%s" $flag (toString $value)) }}{{ end -}}
{{- end -}}
{{- $ports := list (dict "name" "http" "containerPort" (int .Values.routing.servicePort) "protocol" "TCP") -}}
{{- if not $p.image -}}
  {{- $args = concat $args (list (printf "--drain-timeout=%ds" (int .Values.drain.streamSeconds)) (printf "--metrics-port=%d" (int $p.metricsPort))) -}}
  {{- $ports = append $ports (dict "name" "proxy-metrics" "containerPort" (int $p.metricsPort) "protocol" "TCP") -}}
{{- end -}}
{{- $c := dict "name" "routing-proxy" "image" (include "ms.sidecarImage" .) "imagePullPolicy" $p.imagePullPolicy
    "args" (concat $args $p.extraArgs) "ports" $ports
    "resources" $p.resources
    "securityContext" (dict "allowPrivilegeEscalation" false "runAsNonRoot" true "runAsUser" 65532 "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) "seccompProfile" (dict "type" "RuntimeDefault")) -}}
{{- if $p.env }}{{ $_ := set $c "env" $p.env }}{{ end -}}
{{- if not $p.image }}{{ $_ := set $c "readinessProbe" (dict "httpGet" (dict "path" "/health" "port" (int .Values.routing.servicePort)) "periodSeconds" 2 "timeoutSeconds" 2 "failureThreshold" 2) }}{{ end -}}
{{- toYaml $c -}}
{{- end }}
