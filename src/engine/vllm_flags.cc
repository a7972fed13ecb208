#include "engine/vllm_flags.h"

#include <algorithm>

#include "wire/fields.h"

namespace baton::engine {
namespace {

struct Group {
  const char* why;
  const char* only;                   // nullptr: any value is taken, and changes nothing; else refused, but with this value
  std::string_view switches, valued;  // names: of flags that stand alone, and of those that take values
};
constexpr Group kGroups[] = {
    {"the CPU runs every step as it is: there is nothing to capture or compile", nullptr,
     "enforce-eager enable-flashinfer-autotune cudagraph-metrics enable-layerwise-nvtx-tracing use-tqdm-on-load "
     "jit-monitor-verbose disable-custom-all-reduce disable-cascade-attn",
     "compilation-config cudagraph-capture-sizes max-cudagraph-capture-size max-seq-len-to-capture optimization-level "
     "performance-mode kernel-config ir-op-priority jit-monitor-mode attention-config additional-config"},
    {"kernels are chosen for the processor: --isa", nullptr,
     "use-v2-block-manager enable-hc-sp use-fp64-gumbel use-replayssm enable-mamba-cache-stochastic-rounding "
     "enable-mamba-shared-prefix-checkpoint swa-bounded-replay kv-sharing-fast-prefill",
     "attention-backend moe-backend linear-backend sparse-indexer-topk-backend mamba-backend mamba-ssu-algorithm "
     "mamba-cache-dtype mamba-ssm-cache-dtype mamba-block-size mamba-cache-mode mamba-cache-philox-rounds "
     "replayssm-buffer-len gdn-prefill-backend kda-prefill-backend kda-decode-backend engram-config all2all-backend "
     "device"},
    {"the KV pool is sized by --kv-cache-memory-bytes or VLLM_CPU_KVCACHE_SPACE, weights lie in memory as the file has "
     "them",
     nullptr,
     "enable-sleep-mode enable-cumem-allocator sleep-mode-offload-cudagraph enable-nccl-comm-suspend "
     "calculate-kv-scales",
     "gpu-memory-utilization device-memory-utilization swap-space cpu-offload-gb cpu-offload-params offload-backend "
     "offload-group-size offload-num-in-group offload-prefetch-step offload-params kv-offloading-size "
     "kv-offloading-backend kv-cache-dtype-skip-layers sleep-preserve-parameter-names"},
    {"the format is read from the file, and its weights are used as they are", nullptr,
     "trust-remote-code allow-deprecated-quantization",
     "quantization quantization-config load-format config-format model-impl model-class-overrides "
     "model-loader-extra-config ignore-patterns safetensors-load-strategy safetensors-prefetch-num-threads "
     "safetensors-prefetch-block-size pt-load-map-location max-parallel-loading-workers tokenizer-mode"},
    {"MODEL is a file or directory of this machine: nothing is downloaded", nullptr, "",
     "revision code-revision tokenizer-revision hf-token download-dir"},
    {"one process a rank computes the model (--tensor-parallel-size), one engine answers: other ways to spread it "
     "change nothing here",
     nullptr,
     "enable-expert-parallel enable-batch-sharded-sampling enable-ep-weight-filter enable-elastic-ep enable-dbo "
     "enable-eplb disable-nccl-for-dp-synchronization data-parallel-hybrid-lb data-parallel-external-lb "
     "data-parallel-multi-port-external-lb dcp-q-replicate ray-workers-use-nsight numa-bind enable-shm-tensor-arena "
     "worker-use-ray",
     "pipeline-parallel-size data-parallel-size data-parallel-rank data-parallel-start-rank data-parallel-size-local "
     "data-parallel-address data-parallel-rpc-port data-parallel-backend data-parallel-supervisor-port "
     "dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s dp-supervisor-probe-failure-threshold "
     "dp-sync-interval distributed-executor-backend master-addr master-port distributed-timeout-seconds "
     "cpu-distributed-timeout-seconds numa-bind-nodes numa-bind-cpus device-ids prefill-context-parallel-size "
     "decode-context-parallel-size dcp-comm-backend dcp-kv-cache-interleave-size cp-kv-cache-interleave-size "
     "elastic-ep-max-dp-size ubatch-size dbo-decode-token-threshold dbo-prefill-token-threshold eplb-config "
     "expert-placement-strategy api-server-count renderer-num-workers"},
    {"one machine serves a model here", "1", "", "nnodes"},
    {"one machine serves a model here", "0", "", "node-rank"},
    {"the scheduler has --max-num-batched-tokens, --max-num-seqs and --long-prefill-token-threshold alone", nullptr,
     "async-scheduling long-prefill-token-threshold-adaptive scheduler-reserve-full-isl "
     "disable-hybrid-kv-cache-manager disable-chunked-mm-input",
     "max-num-scheduled-tokens max-num-active-seqs max-num-queued-reqs max-num-queued-tokens max-num-partial-prefills "
     "max-long-partial-prefills prefill-schedule-interval watermark prefix-cache-retention-interval prefix-match-unit "
     "prefix-caching-hash-algo num-scheduler-steps preemption-mode num-lookahead-slots scheduler-delay-factor"},
    {"every step's tokens go out at once", nullptr, "", "stream-interval sse-keep-alive-interval"},
    {"the model takes text only", nullptr,
     "language-model-only enable-mm-embeds interleave-mm-strings mm-encoder-only skip-mm-profiling "
     "mm-device-do-normalize enable-mm-processor-stats trust-request-mm-kwargs enable-tower-connector-lora "
     "enable-prompt-embeds enable-flash-late-interaction",
     "limit-mm-per-prompt media-io-kwargs mm-processor-kwargs mm-processor-cache-gb mm-processor-cache-type "
     "mm-hasher-algorithm mm-shm-cache-max-object-size-mb mm-encoder-tp-mode mm-encoder-attn-backend "
     "mm-encoder-attn-dtype mm-encoder-fp8-scale-path mm-encoder-fp8-scale-save-path mm-encoder-fp8-scale-save-margin "
     "video-pruning-rate video-pruning-method mm-tensor-ipc mm-processor-device mm-ipc-gpu-memory-gb "
     "allowed-local-media-path allowed-media-domains default-mm-loras ec-transfer-config ec-manager-config "
     "disable-mm-preprocessor-cache"},
    {"adapters are applied row by row, whatever their mix", nullptr,
     "fully-sharded-loras specialize-active-lora enable-mixed-moe-lora-format enable-moe-shared-loras",
     "lora-dtype max-lora-cls-labels"},
    {"what is logged: --log-level, --enable-log-requests, one line of figures every 10 s", nullptr,
     "disable-uvicorn-access-log aggregate-engine-logging enable-logging-iteration-details enable-log-outputs "
     "enable-log-deltas log-error-stack",
     "disable-access-log-for-endpoints max-log-len logging-config log-config-file"},
    {"/metrics has what docs/metrics.md lists", nullptr, "kv-cache-metrics enable-mfu-metrics",
     "kv-cache-metrics-sample collect-detailed-traces show-hidden-metrics-for-version profiler-config"},
    {"answers keep these fields null", nullptr, "enable-per-request-metrics enable-return-routed-experts return-sampling-mask",
     "per-request-spec-decode-metrics"},
    {"served in any case", nullptr,
     "enable-scale-out enable-offline-docs disable-frontend-multiprocessing trust-request-chat-template", ""},
    {"found by reading the template", nullptr, "", "chat-template-content-format"},
    {"one implementation compiles every constraint; a strict tool is constrained", nullptr, "enable-reasoning",
     "structured-outputs-config guided-decoding-backend guided-decoding-disable-fallback tool-strict-level"},
    {"these limits are the server's own: docs/failure_contract.md", nullptr, "fail-on-environ-validation enable-fault-tolerance",
     "h11-max-incomplete-event-size h11-max-header-count ssl-ciphers fault-tolerance-config"},
    {"of other APIs than ours", nullptr, "cohere-is-reasoning-model",
     "cohere-format anthropic-disabled-thinking-effort tool-server weight-transfer-config diffusion-config "
     "aux-output-config"},
    {"logprobs are those of the model, before penalties and temperature", "raw_logprobs", "", "logprobs-mode"},
    {"answers are the assistant's", "assistant", "", "response-role"},
    {"it would change what is computed, and is not implemented", "", "disable-sliding-window enable-trace-replay",
     "rope-scaling rope-theta hf-config-path model-weights logits-processors watermark-config lora-target-modules "
     "custom-histogram-buckets"},
    {"it names Python code, which this program does not run", "", "",
     "middleware tool-parser-plugin reasoning-parser-plugin io-processor-plugin scheduler-cls worker-cls "
     "worker-extension-cls"},
    {"the server listens on --host and --port, with the tokenizer, and speaks HTTP", "",
     "grpc headless skip-tokenizer-init tokens-only", "grpc-port uds"},
    {"say it as --speculative-config", "", "", "spec-method spec-model spec-tokens speculative-model num-speculative-tokens"},
};

struct Alias {
  std::string_view name, alias;
};
constexpr Alias kAliases[] = {
    {"api-server-count", "asc"},
    {"attention-config", "ac"},
    {"compilation-config", "cc"},
    {"data-parallel-address", "dpa"},
    {"data-parallel-backend", "dpb"},
    {"data-parallel-external-lb", "dpe"},
    {"data-parallel-hybrid-lb", "dph"},
    {"data-parallel-rank", "dpn"},
    {"data-parallel-rpc-port", "dpp"},
    {"data-parallel-size", "dp"},
    {"data-parallel-size-local", "dpl"},
    {"data-parallel-start-rank", "dpr"},
    {"decode-context-parallel-size", "dcp"},
    {"enable-expert-parallel", "ep"},
    {"nnodes", "n"},
    {"node-rank", "r"},
    {"optimization-level", "O"},
    {"pipeline-parallel-size", "pp"},
    {"prefill-context-parallel-size", "pcp"},
    {"quantization", "q"},
};

void add_flag(Options& o, EngineConfig& c, const Group& group, std::string_view name, bool is_switch) {
  Option row;
  row.name = name;
  row.help = cat(group.only == nullptr ? "changes nothing: "
                 : *group.only         ? cat("only ", group.only, ": ")
                                       : "refused: ",
                 group.why);
  row.is_bool = is_switch;
  row.is_list = !is_switch;
  row.default_text = is_switch ? "false" : "";
  row.get = [] { return std::string(); };
  row.set = [&c, &group, flag = std::string(name), is_switch](std::string_view value) -> Result<> {
    const bool off = is_switch && (value == "false" || value == "False" || value == "0");
    if (off || (group.only && *group.only && value == group.only)) return {};
    if (group.only) return fail(Code::kInvalidArgument, "is not supported: ", group.why);
    std::string note = cat("--", flag, " changes nothing here: ", group.why);
    if (std::find(c.flag_notes.begin(), c.flag_notes.end(), note) == c.flag_notes.end()) c.flag_notes.push_back(std::move(note));
    return {};
  };
  o.add(std::move(row));
  for (const Alias& a : kAliases) {
    if (a.name == name) o.alias(std::string(a.alias));
  }
}

void add_flags(Options& o, EngineConfig& c, const Group& group, std::string_view names, bool are_switches) {
  while (!names.empty()) {
    const std::string_view name = names.substr(0, names.find(' '));
    names.remove_prefix(std::min(names.size(), name.size() + 1));
    if (!name.empty()) add_flag(o, c, group, name, are_switches);
  }
}

Result<Json> object_of(std::string_view flag, const std::string& text) {
  auto json = parse_json(text);
  if (!json || !json->is_object())
    return fail(Code::kInvalidArgument, flag, " wants a JSON object", json ? std::string() : cat(": ", json.error().message));
  return json;
}

Result<> read_generation(EngineConfig& c) {
  BATON_TRY(const Json json, object_of("--override-generation-config", c.override_generation));
  wire::Fields f(json);
  GenerationOverride& g = c.generation;
  wire::read_sampling_numbers(f, g);
  f.integer("max_new_tokens", g.max_new_tokens);
  wire::check_sampling_numbers(f, g);
  f.require(g.max_new_tokens.value_or(1) >= 1, "max_new_tokens must be at least 1");
  if (f.error()) return fail(Code::kInvalidArgument, "--override-generation-config: ", f.error()->message);
  for (const std::string& key : f.unknown())
    c.flag_notes.push_back(cat("--override-generation-config: ", key, " is not known and changes nothing"));
  return {};
}

// vLLM takes these lists as one JSON text.
Result<> unfold(std::string_view flag, std::vector<std::string>& list) {
  if (list.size() != 1 || !list[0].starts_with('[')) return {};
  auto json = parse_json(list[0]);
  const bool texts =
      json && std::all_of(json->items.begin(), json->items.end(), [](const Json& item) { return item.is_string(); });
  if (!texts) return fail(Code::kInvalidArgument, flag, " wants a JSON list of texts");
  list.clear();
  for (const Json& item : json->items) list.push_back(item.text);
  return {};
}

}  // namespace

void add_vllm_flags(Options& o, EngineConfig& c) {
  o.group("vLLM's flags that have no effect here, or are refused");
  for (const Group& group : kGroups) {
    add_flags(o, c, group, group.switches, true);
    add_flags(o, c, group, group.valued, false);
  }
}

Result<> read_vllm_flags(EngineConfig& c) {
  if (!c.default_template_kwargs.empty()) {
    BATON_TRY(c.template_kwargs, object_of("--default-chat-template-kwargs", c.default_template_kwargs));
  }
  if (!c.override_generation.empty()) BATON_OK(read_generation(c));
  if (!c.tokenizer.empty() && c.tokenizer != c.model)
    return fail(Code::kInvalidArgument, "--tokenizer: the model's own tokenizer is used; another is not supported");
  BATON_OK(unfold("--allowed-origins", c.allowed_origins));
  BATON_OK(unfold("--allowed-methods", c.allowed_methods));
  return unfold("--allowed-headers", c.allowed_headers);
}

}  // namespace baton::engine
