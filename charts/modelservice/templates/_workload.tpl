{{/* The pod of a role: root, role, values. */}}
{{- define "ms.pod" -}}
{{- $root := .root -}}{{- $role := .role -}}{{- $v := .values -}}
{{- $par := include "ms.parallelism" . | fromJson -}}
{{- $model := include "ms.model" $root | fromJson -}}
{{- if not $v.containers }}{{ fail (printf "%s.containers: one container with the model server's image and modelCommand" $role) }}{{ end -}}
{{- $volumes := $v.volumes | default list -}}
{{- $names := list }}{{ range $volumes }}{{ $names = append $names .name }}{{ end -}}
{{- $shm := "shm" -}}
{{- range $n := list "shm" "dshm" }}{{ if has $n $names }}{{ $shm = $n }}{{ end }}{{ end -}}
{{- $mounted := "" }}{{ range (first $v.containers).volumeMounts }}{{ if eq .mountPath "/dev/shm" }}{{ $mounted = .name }}{{ end }}{{ end -}}
{{- $wantsModel := false -}}
{{- $containers := list -}}
{{- range $i, $c := $v.containers -}}
  {{- if $c.mountModelVolume }}{{ $wantsModel = true }}{{ end -}}
  {{- $built := include "ms.container" (dict "root" $root "role" $role "values" $v "container" $c "par" $par "model" $model "first" (eq $i 0) "shm" $shm) | fromYaml -}}
  {{- if hasKey $built "Error" }}{{ fail $built.Error }}{{ end -}}
  {{- $containers = append $containers $built -}}
{{- end -}}
{{- if and (not $mounted) (not (has $shm $names)) }}{{ $volumes = append $volumes (dict "name" $shm "emptyDir" (dict "medium" "Memory" "sizeLimit" ($v.shmSize | default "16Gi"))) }}{{ end -}}
{{- if and $wantsModel $model.volume (not (has "model-storage" $names)) }}{{ $volumes = append $volumes $model.volume }}{{ end -}}
{{- $init := $v.initContainers | default list -}}
{{- if and (eq $role "decode") $root.Values.routing.proxy.enabled -}}
  {{- $sidecar := include "ms.sidecar" $root | fromYaml -}}
  {{- if semverCompare ">=1.29.0-0" $root.Capabilities.KubeVersion.Version -}}
    {{- $init = prepend $init (set $sidecar "restartPolicy" "Always") -}}
  {{- else -}}
    {{- /* Before 1.29 an init container that never ends keeps the pod in Init for ever: a plain container does the same work. */ -}}
    {{- $containers = append $containers $sidecar -}}
  {{- end -}}
{{- end -}}
{{- $spec := dict "serviceAccountName" (include "ms.serviceAccount" $root) "containers" $containers
    "terminationGracePeriodSeconds" ($v.terminationGracePeriodSeconds | default (include "ms.grace" . | int))
    "securityContext" (deepCopy $root.Values.podSecurityContext) -}}
{{- range $k, $v := $spec.securityContext }}{{ if kindIs "invalid" $v }}{{ $_ := unset $spec.securityContext $k }}{{ end }}{{ end -}}
{{- if $init }}{{ $_ := set $spec "initContainers" $init }}{{ end -}}
{{- if $volumes }}{{ $_ := set $spec "volumes" $volumes }}{{ end -}}
{{- range $k := list "nodeSelector" "tolerations" "priorityClassName" "affinity" "resourceClaims" "enableServiceLinks" "hostIPC" "hostPID" "hostNetwork" "dnsPolicy" "runtimeClassName" "imagePullSecrets" -}}
  {{- if hasKey $v $k }}{{ if get $v $k }}{{ $_ := set $spec $k (get $v $k) }}{{ end }}{{ end -}}
{{- end -}}
{{- with $v.schedulerName | default $root.Values.schedulerName }}{{ $_ := set $spec "schedulerName" . }}{{ end -}}
{{- if dig "accelerator" "dra" $root.Values.accelerator.dra $v -}}
  {{- $claim := dict "name" "accelerator" "resourceClaimTemplateName" (printf "%s-%s" (include "ms.fullname" $root) $role) -}}
  {{- $_ := set $spec "resourceClaims" (append ($v.resourceClaims | default list) $claim) -}}
{{- end -}}
{{- if dig "acceleratorTypes" "labelKey" "" $v -}}
  {{- $term := dict "matchExpressions" (list (dict "key" $v.acceleratorTypes.labelKey "operator" "In" "values" $v.acceleratorTypes.labelValues)) -}}
  {{- $_ := set $spec "affinity" (merge (deepCopy ($spec.affinity | default dict)) (dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" (list $term))))) -}}
{{- end -}}
{{- $spec = mergeOverwrite $spec (deepCopy ($v.extraConfig | default dict)) -}}
{{- if $spec.hostNetwork -}}
  {{- if not $spec.dnsPolicy }}{{ $_ := set $spec "dnsPolicy" "ClusterFirstWithHostNet" }}{{ end -}}
  {{- if not (dig "affinity" "podAntiAffinity" "" $spec) -}}
    {{- /* Two of these on one node want the same ports. */ -}}
    {{- $apart := dict "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list (dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchExpressions" (list (dict "key" "llm-d.ai/role" "operator" "Exists")))))) -}}
    {{- $_ := set $spec "affinity" (merge (deepCopy ($spec.affinity | default dict)) $apart) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $spec -}}
{{- end }}

{{/* The workload of a role: Deployment, or LeaderWorkerSet where multinode. */}}
{{- define "ms.workload" -}}
{{- $root := .root -}}{{- $role := .role -}}{{- $v := .values -}}
{{- $name := printf "%s-%s" (include "ms.fullname" $root) $role -}}
{{- $kind := ternary "LeaderWorkerSet" "Deployment" $root.Values.multinode -}}
{{- $par := include "ms.parallelism" . | fromJson -}}
{{- $selector := include "ms.selector" (dict "root" $root "role" $role "name" $name "kind" $kind) | fromYaml -}}
{{- $both := dict "llm-d.ai/inferenceServing" "true" "llm-d.ai/inference-serving" "true" "app.kubernetes.io/instance" $root.Release.Name -}}
{{- $podLabels := merge (deepCopy $selector) (dict "llm-d.ai/role" $role) (deepCopy ($v.labels | default dict)) (deepCopy $root.Values.podLabels) (deepCopy $root.Values.modelArtifacts.labels) $both -}}
{{- $template := dict "metadata" (dict "labels" $podLabels) "spec" (include "ms.pod" . | fromYaml) -}}
{{- with merge (deepCopy ($v.podAnnotations | default dict)) ($v.annotations | default dict) }}{{ $_ := set $template.metadata "annotations" . }}{{ end -}}
{{- $meta := dict "name" $name "namespace" $root.Release.Namespace "labels" (merge (deepCopy $selector) (include "ms.labels" $root | fromYaml)) -}}
{{- $resource := include "ms.acceleratorResource" (dict "root" $root "values" $v) -}}
{{- if $resource -}}
  {{- $asked := dig "resources" "limits" $resource "" (first $template.spec.containers) -}}
  {{- if and $asked ($v.parallelism) (gt (int $asked) (int $par.devices)) -}}
    {{- $_ := set $meta "annotations" (dict "llm-d.ai/accelerator-warning" (printf "%s is %s, parallelism uses %d" $resource (toString $asked) (int $par.devices))) -}}
  {{- end -}}
{{- end -}}
{{- $spec := dict -}}
{{- if not (dig "autoscaling" "enabled" false $v) }}{{ $_ := set $spec "replicas" (include "ms.replicas" (dict "root" $root "values" $v "name" $name) | int) }}{{ end -}}
{{- if eq $kind "Deployment" -}}
  {{- $_ := set $spec "selector" (dict "matchLabels" $selector) -}}
  {{- $_ := set $spec "template" $template -}}
  {{- /* Accelerators are all taken: a new pod has no place before an old one goes. */ -}}
  {{- $_ := set $spec "strategy" ($v.strategy | default (dict "type" "RollingUpdate" "rollingUpdate" (dict "maxSurge" 0 "maxUnavailable" 1))) -}}
{{- else -}}
  {{- $lws := dict "size" (int $par.workers) "workerTemplate" $template -}}
  {{- with $v.subGroupPolicy }}{{ $_ := set $lws "subGroupPolicy" . }}{{ end -}}
  {{- $_ := set $spec "leaderWorkerTemplate" $lws -}}
  {{- with $v.subGroupExclusiveTopology }}{{ $_ := set $meta "annotations" (merge ($meta.annotations | default dict) (dict "leaderworkerset.sigs.k8s.io/subgroup-exclusive-topology" (toString .))) }}{{ end -}}
{{- end -}}
apiVersion: {{ ternary "leaderworkerset.x-k8s.io/v1" "apps/v1" $root.Values.multinode }}
kind: {{ $kind }}
metadata: {{- toYaml $meta | nindent 2 }}
spec: {{- toYaml $spec | nindent 2 }}
{{- end }}
