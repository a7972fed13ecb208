{{- define "ms.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 55 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 55 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name (.Values.nameOverride | default .Chart.Name) | trunc 55 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "ms.labels" -}}
{{- $labels := dict
  "app.kubernetes.io/name" .Chart.Name
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version) -}}
{{- toYaml (merge (deepCopy .Values.commonLabels) $labels) -}}
{{- end }}

{{- define "ms.serviceAccount" -}}
{{ .Values.serviceAccountOverride | default (include "ms.fullname" .) }}
{{- end }}

{{/* One of: container image of ours */}}
{{- define "ms.sidecarImage" -}}
{{- if .Values.routing.proxy.image }}{{ .Values.routing.proxy.image }}
{{- else }}{{ with .Values.global.imageRegistry }}{{ . }}/{{ end }}baton/sidecar:{{ .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Where the model server of a role listens: decode behind its sidecar. */}}
{{- define "ms.port" -}}
{{- if and (eq .role "decode") .root.Values.routing.proxy.enabled }}{{ .root.Values.routing.proxy.targetPort }}{{ else }}{{ .root.Values.routing.servicePort }}{{ end }}
{{- end }}

{{- define "ms.acceleratorResource" -}}
{{- $known := dict "nvidia" "nvidia.com/gpu" "amd" "amd.com/gpu" "intel-i915" "gpu.intel.com/i915" "intel-xe" "gpu.intel.com/xe"
    "intel-gaudi" "habana.ai/gaudi" "google" "google.com/tpu" "rebellions-atom" "rebellions.ai/ATOM" "cpu" "" -}}
{{- $table := merge (deepCopy (.root.Values.accelerator.resources | default dict)) $known -}}
{{- $type := dig "accelerator" "type" "" .values | default .root.Values.accelerator.type -}}
{{- if not (hasKey $table $type) }}{{ fail (printf "accelerator.type %q is unknown; known are %s; or name its resource in accelerator.resources" $type (keys $table | sortAlpha | join ", ")) }}{{ end -}}
{{- get $table $type -}}
{{- end }}

{{/*
tensor, data, dataLocal, workers, devices of one role, all numbers. data ranks are spread over workers; what one pod holds is dataLocal.
*/}}
{{- define "ms.parallelism" -}}
{{- $p := .values.parallelism | default dict -}}
{{- $tensor := int (get $p "tensor" | default 1) -}}
{{- $data := int (get $p "data" | default 1) -}}
{{- $workers := int (get $p "workers" | default 1) -}}
{{- $local := int (get $p "dataLocal" | default 0) -}}
{{- if and .root.Values.multinode (eq $workers 1) $local }}{{ $workers = div (add $data (sub $local 1)) $local | int }}{{ end -}}
{{- if not (and .root.Values.multinode (gt $workers 1)) }}{{ $workers = 1 }}{{ end -}}
{{- if or (eq $local 0) (and (eq $workers 1) (lt $local $data)) -}}
  {{- if and (gt $local 1) (lt $local $data) -}}
    {{- fail (printf "%s.parallelism: data %d with dataLocal %d needs %d pods a replica: set multinode to true" .role $data $local (div (add $data (sub $local 1)) $local)) -}}
  {{- end -}}
  {{- $local = div (add $data (sub $workers 1)) $workers | int -}}
{{- end -}}
{{- if gt $data (mul $local $workers | int) -}}
  {{- fail (printf "%s.parallelism: %d data-parallel ranks, but %d workers hold %d each" .role $data $workers $local) -}}
{{- end -}}
{{- dict "tensor" $tensor "data" $data "dataLocal" $local "workers" $workers "devices" (mul $tensor $local | int) | toJson -}}
{{- end }}

{{/* What is a flag of a list of arguments: "--x" and "--x=..." */}}
{{- define "ms.hasFlag" -}}
{{- $flag := .flag -}}
{{- range .args }}{{ if or (eq (toString .) $flag) (hasPrefix (printf "%s=" $flag) (toString .)) }}yes{{ end }}{{ end -}}
{{- end }}

{{- define "ms.hasEnv" -}}
{{- $name := .name -}}
{{- range .env }}{{ if eq .name $name }}yes{{ end }}{{ end -}}
{{- end }}

{{/*
The model: {path, volume, mount, env}. path is what the server is told, the volume comes where a container says mountModelVolume.
*/}}
{{- define "ms.model" -}}
{{- $a := .Values.modelArtifacts -}}
{{- $uri := required "modelArtifacts.uri: hf://org/model, pvc://claim/path, pvc+hf://claim/hub/org/model, oci://image or file:///path/in/the/image" $a.uri -}}
{{- $m := dict "env" list -}}
{{- if hasPrefix "hf://" $uri -}}
  {{- $_ := set $m "path" (trimPrefix "hf://" $uri) -}}
  {{- $_ := set $m "volume" (dict "name" "model-storage" "emptyDir" (dict "sizeLimit" $a.size)) -}}
  {{- $_ := set $m "env" (list (dict "name" "HF_HOME" "value" $a.mountPath)) -}}
{{- else if hasPrefix "pvc+hf://" $uri -}}
  {{- $parts := splitList "/" (trimPrefix "pvc+hf://" $uri) -}}
  {{- if lt (len $parts) 3 }}{{ fail (printf "modelArtifacts.uri %s: pvc+hf://CLAIM/FOLDER.../ORG/MODEL" $uri) }}{{ end -}}
  {{- $n := len $parts -}}
  {{- $_ := set $m "path" (printf "%s/%s" (index $parts (sub $n 2)) (index $parts (sub $n 1))) -}}
  {{- $_ := set $m "volume" (dict "name" "model-storage" "persistentVolumeClaim" (dict "claimName" (first $parts) "readOnly" $a.readOnly)) -}}
  {{- $_ := set $m "env" (list (dict "name" "HF_HUB_CACHE" "value" (printf "%s/%s" $a.mountPath (slice $parts 1 (sub $n 2 | int) | join "/")))) -}}
{{- else if hasPrefix "pvc://" $uri -}}
  {{- $parts := splitn "/" 2 (trimPrefix "pvc://" $uri) -}}
  {{- $_ := set $m "path" (printf "%s/%s" $a.mountPath $parts._1) -}}
  {{- $_ := set $m "volume" (dict "name" "model-storage" "persistentVolumeClaim" (dict "claimName" $parts._0 "readOnly" $a.readOnly)) -}}
{{- else if hasPrefix "oci://" $uri -}}
  {{- $_ := set $m "path" $a.mountPath -}}
  {{- $_ := set $m "volume" (dict "name" "model-storage" "image" (dict "reference" (trimPrefix "oci://" $uri) "pullPolicy" "IfNotPresent")) -}}
{{- else if hasPrefix "file://" $uri -}}
  {{- $_ := set $m "path" (trimPrefix "file://" $uri) -}}
{{- else -}}
  {{- fail (printf "modelArtifacts.uri %s: hf://, pvc://, pvc+hf://, oci:// or file:// goes before it" $uri) -}}
{{- end -}}
{{- $m | toJson -}}
{{- end }}

{{/* The labels that the Deployment selects by: a running one's stay, as Kubernetes refuses another selector. */}}
{{- define "ms.selector" -}}
{{- $kind := ternary "LeaderWorkerSet" "Deployment" (eq .kind "LeaderWorkerSet") -}}
{{- $labels := merge (dict "llm-d.ai/role" .role "app.kubernetes.io/instance" .root.Release.Name) (deepCopy .root.Values.modelArtifacts.labels) -}}
{{- if eq $kind "Deployment" -}}
  {{- $running := lookup "apps/v1" "Deployment" .root.Release.Namespace .name -}}
  {{- $labels = dig "spec" "selector" "matchLabels" $labels ($running | default dict) -}}
{{- end -}}
{{- toYaml $labels -}}
{{- end }}
