#include "engine/config.h"

#include "base/json.h"
#include "engine/flag_file.h"
#include "engine/limits.h"
#include "engine/lora_flags.h"
#include "engine/reasoning_config.h"
#include "engine/transfer_config.h"
#include "engine/vllm_flags.h"
#include "kv/layout.h"
#include "model/limits.h"
#include "parse/message.h"

namespace baton::engine {
namespace {

// A flag that turns something off, as vLLM spells some of them.
Option opposite(std::string name, bool* target, std::string help) {
  Option o;
  o.name = std::move(name);
  o.help = std::move(help);
  o.is_bool = true;
  o.get = [target] { return *target ? "false" : "true"; };
  o.default_text = o.get();
  o.set = [target](std::string_view text) -> Result<> {
    *target = text == "false" || text == "0";
    return {};
  };
  return o;
}

std::string names_of(const auto& rows) {
  std::string out;
  for (const auto& row : rows) out += cat(out.empty() ? "" : ", ", row.name);
  return out;
}

std::vector<std::string> cache_dtype_names() {
  std::vector<std::string> out;
  for (const kv::CacheDtype& row : kv::cache_dtypes()) out.emplace_back(row.name);
  return out;
}

void add_server(Options& o, EngineConfig& c) {
  o.group("server");
  o.add_file("config", "a YAML file of these flags, as vLLM reads it: port: 8000; what the command line has too is not taken from it",
             read_flag_file);
  o.add("host", &c.host, "address to listen on");
  o.add("port", &c.port, "port", "port to listen on; 0 takes a free one", 0, 65535);
  o.add("api-key", &c.api_keys, "requests under /v1 must carry one of these as a bearer token").env("VLLM_API_KEY");
  o.add("enable-request-id-headers", &c.request_id_headers, "answer with the request's X-Request-Id");
  o.add("allowed-origins", &c.allowed_origins, "web origins whose pages may call this server, or '*' for all; also as one JSON list");
  o.add("allowed-methods", &c.allowed_methods, "methods that those pages may use");
  o.add("allowed-headers", &c.allowed_headers, "headers that those pages may send");
  o.add("allow-credentials", &c.allow_credentials, "those pages may send cookies and credentials");
  o.add("enable-force-include-usage", &c.force_include_usage, "usage in every stream, at its end and in each chunk");
  o.add("return-tokens-as-token-ids", &c.return_tokens_as_token_ids, "tokens of logprobs as token_id:N in every answer");
  o.add("fingerprint-mode", &c.fingerprint_mode, "system_fingerprint of answers: version, ranks and model; without the ranks; --fingerprint-value; null",
        {"full", "hash", "custom", "none"});
  o.add("fingerprint-value", &c.fingerprint_value, "system_fingerprint with --fingerprint-mode custom");
  o.add("enable-prompt-tokens-details", &c.prompt_tokens_details, "report cached prompt tokens in usage");
  o.add("enable-log-requests", &c.log_requests, "log every request").alias("log-requests");
  o.add(opposite("disable-log-requests", &c.log_requests, "the opposite of --enable-log-requests, and the default"));
  o.add(opposite("disable-log-stats", &c.log_stats, "no throughput line every 10 seconds"));
  o.add("otlp-traces-endpoint", &c.otlp_traces_endpoint,
        "OpenTelemetry collector that gets a span a request: the whole address, OTLP over HTTP (docs/tracing.md)");
  o.add("log-level", &c.log_level, "how much to log", {"debug", "info", "warn", "warning", "error", "off", "critical", "trace"})
      .alias("uvicorn-log-level")
      .env("VLLM_LOGGING_LEVEL");
  o.add("enable-server-load-tracking", &c.load_tracking, "count requests in flight in /load");
  o.add("enable-responses-api-store", &c.responses_store,
        "keep the answers of /v1/responses in memory, for previous_response_id, background and to be fetched again")
      .env("VLLM_ENABLE_RESPONSES_API_STORE");
  o.add("root-path", &c.root_path, "the path a proxy in front serves this under; taken off requests that carry it");
  o.add("ssl-certfile", &c.ssl_certfile, "HTTPS with this certificate chain (PEM)");
  o.add("ssl-keyfile", &c.ssl_keyfile, "its private key");
  o.add("ssl-ca-certs", &c.ssl_ca_certs, "CA certificates that clients are verified by, with --ssl-cert-reqs 2");
  o.add("ssl-cert-reqs", &c.ssl_cert_reqs, "", "2: clients must show a certificate; 0: they need none", 0, 2);
  o.add("enable-ssl-refresh", &c.ssl_refresh, "take a changed certificate without a restart");
  o.add("enable-tokenizer-info-endpoint", &c.tokenizer_info, "serve /tokenizer_info: the tokenizer's configuration, chat template included");
  o.add(opposite("disable-fastapi-docs", &c.docs, "no /docs and /openapi.json"));
  o.add("dev-mode", &c.dev_mode, "serve /reset_prefix_cache, /sleep, /wake_up and /is_sleeping").env("VLLM_SERVER_DEV_MODE");
  o.add("drain-timeout", &c.drain_s, "s", "after SIGTERM, how long requests and hand-overs in flight may take", 0, 86400).alias("shutdown-timeout");
}

void add_model(Options& o, EngineConfig& c) {
  o.group("model");
  o.add("model", &c.model, "a GGUF file or a Hugging Face directory; also the word after `serve`");
  o.add("dtype", &c.dtype, "of the weights; they are used as the file has them",
        {"auto", "bfloat16", "bf16", "half", "float16", "float", "float32"});
  o.add("served-model-name", &c.served_model_names, "names to answer to; the first appears in answers and metrics");
  o.add("max-model-len", &c.max_model_len, "tokens", "prompt and output together; 0 = the model's context", 0, 10'000'000);
  o.add("generation-config", &c.generation_config, "auto: the model's own sampling defaults; vllm: none");
  o.add("override-generation-config", &c.override_generation,
        "JSON as vLLM takes it: sampling defaults instead of the model's own, and max_new_tokens, the most an answer may have");
  o.add("tokenizer", &c.tokenizer, "the model's own: another is refused");
  o.add("runner", &c.runner, "generate, or pooling: the model's hidden states as embeddings; auto: pooling for a sentence-transformers directory",
        {"auto", "generate", "pooling", "draft"});
  o.add("convert", &c.convert, "what a generative model becomes with --runner pooling", {"auto", "none", "embed", "classify", "reward"});
  o.add("task", &c.task, "older spelling: embed is --runner pooling", {"auto", "generate", "embed", "embedding", "classify", "score", "reward"});
  o.add("pooler-config", &c.pooler_config, "JSON as vLLM takes it: pooling_type LAST, MEAN or CLS, normalize, dimensions")
      .alias("override-pooler-config");
  o.add("hf-overrides", &c.hf_overrides, "JSON as vLLM takes it: is_matryoshka and matryoshka_dimensions; other keys are ignored");
  o.add("seed", &c.seed, "", "seed for requests without one; -1 = random", -1, INT64_MAX);
  o.add("chat-template", &c.chat_template, "a file with a chat template, or the template itself");
  o.add("default-chat-template-kwargs", &c.default_template_kwargs, "JSON: chat_template_kwargs of every request, unless it has its own");
  o.add("exclude-tools-when-tool-choice-none", &c.exclude_tools_when_none, "a request with tool_choice none does not show its tools to the model");
  o.add("enable-auto-tool-choice", &c.auto_tool_choice, "let the model call the tools of a request; wants --tool-call-parser");
  o.add("tool-call-parser", &c.tool_call_parser, cat("how the model writes calls: ", names_of(parse::tool_parsers())));
  o.add("reasoning-parser", &c.reasoning_parser,
        cat("how the model marks what it thinks, which is answered apart: ", names_of(parse::reasoning_parsers())));
  o.add("reasoning-config", &c.reasoning_config,
        "JSON as vLLM takes it: reasoning_start_str and reasoning_end_str, what begins thoughts and what is written when a request's "
        "thinking_token_budget is spent, instead of the parser's own marks");
  o.add("max-logprobs", &c.max_logprobs, "", "most logprobs a request may ask for; -1 = the vocabulary", -1, 10'000'000);
}

void add_scheduler(Options& o, EngineConfig& c) {
  o.group("scheduler and KV cache");
  o.add("max-num-batched-tokens", &c.max_num_batched_tokens, "tokens", "most tokens of one step", 1, 10'000'000);
  o.add("max-num-seqs", &c.max_num_seqs, "", "most sequences of one step", 1, 65536);
  o.add("block-size", &c.block_size, "tokens", "tokens of one KV block", 1, 1024);
  o.add("kv-cache-dtype", &c.kv_cache_dtype,
        "elements of the KV cache: auto is fp8 where the checkpoint's quantization_config asks for an FP8 cache, else bfloat16; fp8 is "
        "fp8_e4m3, half the bytes; per_token_head keeps a scale for each token and head (docs/weights.md has the errors). Prefill and "
        "decode workers must agree",
        cache_dtype_names());
  o.add("enable-prefix-caching", &c.prefix_caching, "reuse the KV of common prefixes");
  o.add("enable-chunked-prefill", &c.chunked_prefill, "cut long prompts to fit between decode steps");
  o.add("long-prefill-token-threshold", &c.long_prefill_token_threshold, "tokens",
        "most prompt tokens of one request a step; 0 = no limit", 0, 10'000'000);
  o.add("scheduling-policy", &c.scheduling_policy, "who goes first", {"fcfs", "priority"});
  o.add("speculative-config", &c.speculative_config,
        "JSON as vLLM takes it, of method ngram: guess what follows from what stood there before, and check several guesses in one step; "
        "answers are the same, and come faster where they repeat their prompt or themselves");
  o.add("kv-cache-memory-bytes", &c.kv_cache_bytes, "bytes", "size of the KV pool", 0, INT64_MAX).alias("kv-cache-memory");
  o.add("kv-cache-space", &c.kv_cache_gib, "GiB", "size of the KV pool", 0, 1 << 20).env("VLLM_CPU_KVCACHE_SPACE");
  o.add("num-gpu-blocks-override", &c.num_blocks, "blocks", "size of the KV pool", 0, 1 << 30);
}

void add_lora(Options& o, EngineConfig& c) {
  o.group("LoRA adapters");
  o.add("enable-lora", &c.enable_lora, "serve LoRA adapters, each as a model of its own");
  o.add("lora-modules", &c.lora_modules,
        "adapters loaded at start: name=path, or JSON {\"name\", \"path\", \"base_model_name\"}; a path is a directory as PEFT writes it");
  o.add("max-loras", &c.max_loras, "", "different adapters in one step; requests with others wait", 1, 1024);
  o.add("max-lora-rank", &c.max_lora_rank, "", "largest rank of an adapter: 1, 8, 16, 32, 64, 128, 256, 320 or 512", 1, 512);
  o.add("max-cpu-loras", &c.max_cpu_loras, "", "adapters kept in memory; others are read again when they are asked for; 0 = all that are loaded",
        0, 1 << 20);
  o.add("allow-runtime-lora-updating", &c.lora_updating,
        "serve /v1/load_lora_adapter and /v1/unload_lora_adapter: whoever may call them names directories of this machine")
      .env("VLLM_ALLOW_RUNTIME_LORA_UPDATING");
}

void add_baton(Options& o, EngineConfig& c) {
  o.group("prefill and decode on different workers");
  o.add("kv-transfer-config", &c.kv_transfer_config, "JSON as vLLM takes it; any connector and role: ours serves both roles");
  o.add("kv-events-config", &c.kv_events_config, "JSON as vLLM takes it: publish what the prefix cache stores and drops, over ZeroMQ");
  o.add("kv-transfer-host", &c.kv_host, "address to bind and to tell peers; empty = that of --kv-interface, else 127.0.0.1")
      .env("VLLM_NIXL_SIDE_CHANNEL_HOST");
  o.add("kv-interface", &c.kv_interface,
        "network interface for KV on hosts with several: its address is bound, UCX keeps to it; empty = the first one that "
        "UCX_NET_DEVICES names")
      .env("BATON_KV_IFACE");
  o.add("kv-transfer-port", &c.kv_port, "port", "port for peers; 0 takes a free one; -1 = 5600 where P/D is on", -1, 65535)
      .env("VLLM_NIXL_SIDE_CHANNEL_PORT");
  o.add("kv-peers", &c.kv_peers, "host:port of every other worker's KV port, connected and tested at start; turns P/D on");
  o.add("kv-transport", &c.kv_transport, "how KV moves; auto: shm on one host, ucx with an RDMA device, else tcp",
        {"auto", "shm", "ucx", "tcp"});
  o.add("kv-load-failure-policy", &c.kv_load_failure_policy, "when KV cannot be fetched: compute it here, or fail the request",
        {"recompute", "fail"});
  o.add("kv-secret", &c.kv_secret, "shared secret of all workers; empty = none").env("BATON_KV_SECRET");
  o.add("kv-params-trust", &c.kv_params_trust,
        "whose kv_transfer_params are read: any request's, as vLLM does; of those that show --kv-params-token; nobody's",
        {"any", "token", "none"});
  o.add("kv-params-token", &c.kv_params_token, "what sidecars show in x-baton-kv-token").env("BATON_KV_PARAMS_TOKEN");
  o.add("kv-push-chunk", &c.kv_push_chunk, "tokens",
        "a prompt whose KV a decode worker takes while it is computed is computed in steps of so many; 0 = as any other", 0,
        1 << 20);
  o.add("kv-lease", &c.kv_lease_s, "s", "how long KV is kept for a decode worker that shows no sign of life", 1, 86400);
  o.group("machine");
  o.add("tensor-parallel-size", &c.tensor_parallel_size, "processes",
        "processes of this host that compute the model together, each its share of the heads and of the feed-forward layer", 1,
        model::kRanksMax)
      .alias("tp");
  o.add("threads", &c.threads, "", "compute threads of each of these processes; 0 = all cores, shared out", 0, 1024);
  o.add("io-threads", &c.io_threads, "", "threads that parse, tokenise and stream", 1, 64);
  o.add("isa", &c.isa, "kernels to use", {"auto", "avx512", "avx2", "plain"});
}

Result<> read_events_config(EngineConfig& c) {
  auto json = parse_json(c.kv_events_config);
  if (!json || !json->is_object())
    return fail(Code::kInvalidArgument, "--kv-events-config wants a JSON object", json ? std::string() : cat(": ", json.error().message));
  KvEventsConfig& e = c.kv_events;
  for (size_t i = 0; i < json->keys.size(); ++i) {
    const std::string& key = json->keys[i];
    const Json& v = json->items[i];
    const auto count = v.as_int();
    int* number = key == "buffer_steps" ? &e.buffer_steps : key == "hwm" ? &e.hwm : key == "max_queue_size" ? &e.queue_max : nullptr;
    std::string* text = key == "endpoint" ? &e.endpoint : key == "replay_endpoint" ? &e.replay_endpoint : key == "topic" ? &e.topic : nullptr;
    if (key == "enable_kv_cache_events" && v.is_bool()) {
      e.enabled = v.boolean;
    } else if (key == "publisher" && (v.as_string() == "zmq" || v.as_string() == "null" || v.is_null())) {
      if (v.as_string() != "zmq") return c.kv_events.enabled = false, Result<>();
    } else if (number != nullptr && count && *count >= 1 && *count <= kKvEventBatchesMax) {
      *number = static_cast<int>(*count);
    } else if (text != nullptr && (v.is_string() || v.is_null())) {
      *text = v.text;
    } else {
      return fail(Code::kInvalidArgument, "--kv-events-config: ", key, " is not known, or not of its kind");
    }
  }
  if (e.enabled && !c.prefix_caching) return fail(Code::kInvalidArgument, "KV events need prefix caching");
  return {};
}

}  // namespace

Options engine_options(EngineConfig& c) {
  Options o("baton-engine", "model server with vLLM's interfaces", "baton-engine serve MODEL [flags]");
  add_server(o, c);
  add_model(o, c);
  add_scheduler(o, c);
  add_lora(o, c);
  add_baton(o, c);
  add_vllm_flags(o, c);
  o.unknown_is_warning("vLLM");
  return o;
}

Result<> finish_config(EngineConfig& c, const std::vector<std::string>& positional) {
  std::vector<std::string> words = positional;
  if (!words.empty() && words[0] == "serve") words.erase(words.begin());
  if (words.size() > 1) return fail(Code::kInvalidArgument, "unexpected argument '", words[1], "'");
  if (!words.empty()) c.model = words[0];
  std::string errors;
  const auto require = [&](bool ok, std::string_view message) {
    if (!ok) errors += cat(errors.empty() ? "" : "\n", message);
  };
  require(!c.model.empty(), "no model given: baton-engine serve MODEL");
  require(c.max_num_batched_tokens >= c.max_num_seqs || c.chunked_prefill,
          "max_num_batched_tokens must be at least max_num_seqs");
  require((c.block_size & (c.block_size - 1)) == 0 && c.block_size >= 2, "--block-size wants a power of two from 2 to 1024");
  require(!c.auto_tool_choice || !c.tool_call_parser.empty(), "--enable-auto-tool-choice requires --tool-call-parser");
  require(c.tool_call_parser.empty() || parse::find_tool_parser(c.tool_call_parser),
          cat("invalid tool call parser: ", c.tool_call_parser, " (chose from { ", names_of(parse::tool_parsers()), " })"));
  require(c.reasoning_parser.empty() || parse::find_reasoning_parser(c.reasoning_parser),
          cat("invalid reasoning parser: ", c.reasoning_parser, " (chose from { ", names_of(parse::reasoning_parsers()), " })"));
  require(c.kv_peers.size() <= kKvPeersMax, cat("--kv-peers takes at most ", kKvPeersMax, " peers"));
  if (!c.kv_transfer_config.empty()) {
    auto read = read_transfer_config(c);
    require(read.has_value(), read ? "" : read.error().message);
  }
  require(c.ssl_certfile.empty() == c.ssl_keyfile.empty(), "--ssl-certfile and --ssl-keyfile come together");
  require(c.ssl_cert_reqs != 1, "--ssl-cert-reqs 1 (an optional certificate) is not supported");
  require(c.ssl_cert_reqs != 2 || !c.ssl_ca_certs.empty(), "--ssl-cert-reqs 2 wants --ssl-ca-certs");
  require(c.ssl_ca_certs.empty() || !c.ssl_certfile.empty(), "--ssl-ca-certs wants --ssl-certfile");
  require(c.root_path.empty() || c.root_path.starts_with('/'), "--root-path begins with a slash");
  require(c.kv_params_trust != "token" || !c.kv_params_token.empty(), "--kv-params-trust=token wants --kv-params-token");
  if (!c.kv_events_config.empty()) {
    auto read = read_events_config(c);
    require(read.has_value(), read ? "" : read.error().message);
  }
  if (!c.speculative_config.empty()) {
    auto read = parse_speculative_config(c.speculative_config);
    require(read.has_value(), read ? "" : cat("--speculative-config: ", read.error().message));
    if (read) c.speculation = *read;
  }
  if (!c.reasoning_config.empty()) {
    auto read = reasoning_marks(c);
    require(read.has_value(), read ? "" : read.error().message);
  }
  if (auto read = read_lora_flags(c); !read) require(false, read.error().message);
  if (auto read = read_vllm_flags(c); !read) require(false, read.error().message);
  if (!errors.empty()) return fail(Code::kInvalidArgument, errors);
  while (c.root_path.ends_with('/')) c.root_path.pop_back();
  if (!c.kv_peers.empty() || c.kv_port >= 0) c.kv_transfer = true;
  if (c.kv_transfer && c.kv_port < 0) c.kv_port = 5600;
  if (c.kv_load_failure_policy.empty()) c.kv_load_failure_policy = "recompute";
  if (c.served_model_names.empty()) c.served_model_names = {c.model};
  return {};
}

}  // namespace baton::engine
