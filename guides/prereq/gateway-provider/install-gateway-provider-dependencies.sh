#!/usr/bin/env bash
# The kinds that gateways need: Gateway API and its inference extension.
#   ./install-gateway-provider-dependencies.sh [apply|delete]
#   GATEWAY_API_CRD_REVISION=v1.4.0   GATEWAY_API_INFERENCE_EXTENSION_CRD_REVISION=v1.2.0
#   CRD_DIR=FOLDER      take gateway-api.yaml and inference-extension.yaml from there instead of the network
set -euo pipefail
MODE=${1:-apply}
GATEWAY_API_CRD_REVISION=${GATEWAY_API_CRD_REVISION:-v1.4.0}
GATEWAY_API_INFERENCE_EXTENSION_CRD_REVISION=${GATEWAY_API_INFERENCE_EXTENSION_CRD_REVISION:-v1.2.0}
case $MODE in
  apply) FLAGS=();;
  delete) FLAGS=(--ignore-not-found);;
  -h|--help) sed -n '2,5s/^# //p' "$0"; exit 0;;
  *) echo "usage: $0 [apply|delete]" >&2; exit 1;;
esac
if [ -n "${CRD_DIR:-}" ]; then
  GATEWAY_API=(-f "$CRD_DIR/gateway-api.yaml") EXTENSION=(-f "$CRD_DIR/inference-extension.yaml")
else
  GATEWAY_API=(-k "https://github.com/kubernetes-sigs/gateway-api/config/crd/?ref=$GATEWAY_API_CRD_REVISION")
  EXTENSION=(-k "https://github.com/kubernetes-sigs/gateway-api-inference-extension/config/crd/?ref=$GATEWAY_API_INFERENCE_EXTENSION_CRD_REVISION")
fi
kubectl "$MODE" "${GATEWAY_API[@]}" "${FLAGS[@]}"
kubectl "$MODE" "${EXTENSION[@]}" "${FLAGS[@]}"
