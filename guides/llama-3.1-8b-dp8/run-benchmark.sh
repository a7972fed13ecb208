#!/usr/bin/env bash
# Waits for the pods, checks the route, asks once, measures, prints one row for each concurrency.
#   ./run-benchmark.sh [num_prompts=200] [concurrency=32 ...]     several concurrencies, several rows
#   INPUT_LEN=1000 OUTPUT_LEN=1000   tokens of a prompt and of an answer
#   RESULTS=results                  where the JSON of each run is copied to
#   WAIT_SECONDS=3600                how long pods may take
# Exit status: 0 measured; 1 not, and the step that failed was said.
set -euo pipefail
cd "$(dirname "$0")"
case ${1:-} in -h|--help) sed -n '2,6s/^# //p' "$0"; exit 0;; esac
PROMPTS=${1:-200}; shift || true
[ $# -gt 0 ] || set -- 32
for n in "$PROMPTS" "$@"; do [[ $n =~ ^[1-9][0-9]*$ ]] || { echo "error: $n is no count (--help)" >&2; exit 1; }; done
NS=llm-d-llama31 MODEL=meta-llama/Llama-3.1-8B-Instruct GATEWAY=infra-llama31-inference-gateway-istio
INPUT_LEN=${INPUT_LEN:-1000} OUTPUT_LEN=${OUTPUT_LEN:-1000} RESULTS=${RESULTS:-results} WAIT_SECONDS=${WAIT_SECONDS:-3600}
step() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

step "Step 1: waiting for pods"
ready() { kubectl get deployment "$1" -n $NS -o jsonpath='{.status.readyReplicas}/{.spec.replicas}' 2>/dev/null || echo "none"; }
BEGAN=$SECONDS
while :; do
  P=$(ready ms-llama31-llm-d-modelservice-prefill) D=$(ready ms-llama31-llm-d-modelservice-decode) E=$(ready gaie-llama31-epp)
  if [ "$P" = 8/8 ] && [ "$D" = 8/8 ] && [ "$E" = 1/1 ]; then break; fi
  echo "    prefill $P  decode $D  endpoint picker $E"
  (( SECONDS - BEGAN < WAIT_SECONDS )) || die "step 1: not ready in $WAIT_SECONDS s: kubectl describe pod -n $NS -l llm-d.ai/inferenceServing=true"
  sleep 10
done
echo "    prefill $P  decode $D  endpoint picker $E"

step "Step 2: checking the route"
for object in inferencepool.inference.networking.k8s.io/gaie-llama31 httproute/llm-d-llama31-pd-disaggregation gateway/infra-llama31-inference-gateway service/$GATEWAY; do
  kubectl get "$object" -n $NS >/dev/null || die "step 2: $object is missing: ./deploy.sh"
done
for type in Accepted ResolvedRefs; do
  is=$(kubectl get httproute llm-d-llama31-pd-disaggregation -n $NS -o jsonpath="{.status.parents[*].conditions[?(@.type==\"$type\")].status}")
  [ "$is" = True ] || die "step 2: the HTTPRoute is not $type: kubectl describe httproute llm-d-llama31-pd-disaggregation -n $NS"
done

step "Step 3: choosing a decode pod to measure from"
POD=$(kubectl get pods -n $NS -l llm-d.ai/role=decode -o jsonpath='{.items[0].metadata.name}')
echo "    $POD"
inside() { kubectl exec -n $NS "$POD" -c vllm -- "$@"; }

step "Step 4: testing the inference endpoint"
ANSWER=$(inside curl -sS -m 120 -X POST "http://$GATEWAY/v1/completions" -H "Content-Type: application/json" \
  -d "{\"model\": \"$MODEL\", \"prompt\": \"Hello, what is AI?\", \"max_tokens\": 5}") || die "step 4: the gateway does not answer: kubectl get gateway,service -n $NS"
case $ANSWER in *'"choices"'*) ;; *) die "step 4: $ANSWER";; esac

mkdir -p "$RESULTS"
number() { sed -nE "s/.*\"$2\": *([0-9.eE+-]+).*/\1/p" "$1" | head -1; }
TABLE=
for C in "$@"; do
  step "Step 5: measuring ($PROMPTS prompts, concurrency $C, $INPUT_LEN tokens in, $OUTPUT_LEN out)"
  FILE=bench-$PROMPTS-$C-$INPUT_LEN-$OUTPUT_LEN.json
  inside vllm bench serve --dataset-name random --num-prompts "$PROMPTS" --model $MODEL --random-input-len "$INPUT_LEN" --random-output-len "$OUTPUT_LEN" \
    --endpoint /v1/completions --max-concurrency "$C" --save-result --result-dir /tmp --result-filename "$FILE" --ignore-eos \
    --served-model-name $MODEL --host $GATEWAY --port 80 || die "step 5: the benchmark failed"
  inside cat "/tmp/$FILE" | tr ',' '\n' >"$RESULTS/$FILE.lines" || die "step 5: no result was written"
  inside cat "/tmp/$FILE" >"$RESULTS/$FILE"
  F=$RESULTS/$FILE.lines
  TABLE+=$(LC_ALL=C awk -v c="$C" -v o="$(number "$F" output_throughput)" -v p="$(number "$F" max_output_tokens_per_s)" -v t="$(number "$F" mean_ttft_ms)" \
    -v i="$(number "$F" mean_tpot_ms)" -v d="$(number "$F" duration)" '
    function comma(n,  s, out) { s = sprintf("%.0f", n); while (length(s) > 3) { out = "," substr(s, length(s) - 2) out; s = substr(s, 1, length(s) - 3) } return s out }
    BEGIN { ttft = t >= 1000 ? sprintf("%.2fs", t / 1000) : sprintf("%.0fms", t)
            printf "| %-11s | %-12s | %-10s | %-9s | %-9s | %-8s |\n", c, comma(o), p == "" ? "-" : comma(p), ttft, sprintf("%.2fms", i), sprintf("%.1fs", d) }')$'\n'
  rm -f "$F"
done

step "Results (JSON in $RESULTS/)"
cat <<'EOT'
| Concurrency | Output Tok/s | Peak Tok/s | Mean TTFT | Mean TPOT | Duration |
|-------------|--------------|------------|-----------|-----------|----------|
EOT
printf '%s' "$TABLE"
