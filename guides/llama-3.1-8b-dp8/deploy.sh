#!/usr/bin/env bash
# Llama 3.1 8B on 16 GPUs, from nothing to a route that works. Run it again at any time: what is there stays.
#   HF_TOKEN=hf_... ./deploy.sh [--no-wait]
# Exit status: 0 all is there; 1 something is not, and what to do was said.
set -euo pipefail
cd "$(dirname "$0")"
NS=llm-d-llama31 WAIT=yes
for arg in "$@"; do
  case $arg in
    --no-wait) WAIT=no;;
    -h|--help) sed -n '2,4s/^# //p' "$0"; exit 0;;
    *) echo "unknown argument $arg (--help)" >&2; exit 1;;
  esac
done
step() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

step "1/5 tools and cluster"
for tool in kubectl helm helmfile; do
  command -v $tool >/dev/null || die "$tool is missing: ../prereq/client-setup/install-deps.sh"
done
kubectl version >/dev/null 2>&1 || die "no cluster answers (kubectl config get-contexts)"
for kind in gateways.gateway.networking.k8s.io inferencepools.inference.networking.k8s.io; do
  kubectl get "$kind" -A >/dev/null 2>&1 || die "kind $kind is not installed: ../prereq/gateway-provider/install-gateway-provider-dependencies.sh"
done

step "2/5 namespace and secret"
kubectl get namespace $NS >/dev/null 2>&1 || kubectl create namespace $NS
if ! kubectl get secret llm-d-hf-token -n $NS >/dev/null 2>&1; then
  [ -n "${HF_TOKEN:-}" ] || die "set HF_TOKEN to a Hugging Face token with access to Llama 3.1 (export HF_TOKEN=hf_..., without a space after =)"
  kubectl create secret generic llm-d-hf-token --from-literal=HF_TOKEN="$HF_TOKEN" -n $NS
fi

step "3/5 gateway, endpoint picker, model servers"
helmfile apply

step "4/5 route"
for file in inferencepool.yaml httproute.yaml; do
  kubectl get -f $file >/dev/null 2>&1 || kubectl apply -f $file
done
state() { kubectl get httproute llm-d-llama31-pd-disaggregation -n $NS -o jsonpath="{.status.parents[*].conditions[?(@.type==\"$1\")].status}"; }
tries=30; [ $WAIT = yes ] || tries=1
for ((i = 1; i <= tries; i++)); do
  ACCEPTED=$(state Accepted) RESOLVED=$(state ResolvedRefs)
  if [ "$ACCEPTED" = True ] && [ "$RESOLVED" = True ]; then break; fi
  if [ $i = $tries ]; then
    [ $WAIT = no ] || die "the HTTPRoute is not in force (Accepted=$ACCEPTED ResolvedRefs=$RESOLVED): kubectl describe httproute -n $NS; a gateway control plane is installed by ../prereq/gateway-provider"
  else
    sleep 2
  fi
done

step "5/5 pods"
if [ $WAIT = yes ]; then
  for d in gaie-llama31-epp ms-llama31-llm-d-modelservice-prefill ms-llama31-llm-d-modelservice-decode; do
    kubectl rollout status deployment/$d -n $NS --timeout=45m || die "$d is not ready: kubectl describe pod -n $NS -l llm-d.ai/inferenceServing=true; kubectl logs -n $NS deployment/$d"
  done
fi
kubectl get pods -n $NS
cat <<EOT

Expected: 8 prefill pods (1/1), 8 decode pods (2/2), 1 endpoint picker, 1 gateway.
Next:     ./run-benchmark.sh 200 32    # prompts, concurrency
EOT
