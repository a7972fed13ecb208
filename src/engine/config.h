#pragma once
// EngineConfig: everything baton-engine can be told, under the names `vllm serve` uses; our own flags are in the group "baton".
// engine_options() is the one table behind flags, environment, --help and docs/config.md; finish_config() adds the positional
// model, checks all values together and fills what follows from others. Plain values, read-only after start.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/json.h"
#include "base/result.h"
#include "engine/speculative_config.h"
#include "wire/sampling_numbers.h"

namespace baton::engine {

// What a prefix-aware picker hears of our cache: vLLM's --kv-events-config.
struct KvEventsConfig {
  bool enabled = false;
  std::string endpoint = "tcp://*:5557";  // bound where it has a '*', "::" or is ipc or inproc; else connected, as vLLM does
  std::string replay_endpoint, topic;     // "" = no replay; topic as llm-d wants it: kv@<pod>@<model>
  int buffer_steps = 10'000, hwm = 100'000, queue_max = 100'000;  // batches: kept for replay, in ZeroMQ, waiting to be sent
};

// --override-generation-config: what the model's own generation_config.json would say.
struct GenerationOverride : wire::SamplingNumbers {
  std::optional<int32_t> max_new_tokens;
};

// A LoRA adapter: what --lora-modules and /v1/load_lora_adapter name.
struct LoraModule {
  std::string name, path;
  std::string base_model{};  // "" = the first served name
};

struct EngineConfig {
  std::string host = "0.0.0.0";
  int port = 8000;
  std::string model;
  std::string dtype = "auto";
  std::vector<std::string> served_model_names;  // empty: the model as given
  std::vector<std::string> api_keys;
  int max_model_len = 0;  // 0: the model's context, or what the KV pool holds
  int max_num_batched_tokens = 2048;
  int max_num_seqs = 256;
  int block_size = 16;
  std::string kv_cache_dtype = "auto";
  bool prefix_caching = true;
  bool chunked_prefill = true;
  int long_prefill_token_threshold = 0;
  std::string scheduling_policy = "fcfs";
  int64_t kv_cache_bytes = 0;  // 0: kv_cache_gib, else a share of the machine
  int kv_cache_gib = 0;
  int num_blocks = 0;  // 0: from bytes
  int max_logprobs = 20;
  bool request_id_headers = false;
  std::vector<std::string> allowed_origins, allowed_methods = {"*"}, allowed_headers = {"*"};  // CORS: no origin, none of it
  bool allow_credentials = false;
  bool force_include_usage = false, return_tokens_as_token_ids = false;  // for every request
  bool exclude_tools_when_none = false;
  std::string fingerprint_mode = "full", fingerprint_value;
  std::string default_template_kwargs, override_generation;  // JSON
  std::string tokenizer;  // "", or the model
  bool prompt_tokens_details = false;
  std::string generation_config = "auto";
  std::string runner = "auto", convert = "auto", task = "auto";  // what the model is for: --runner pooling serves embeddings
  std::string pooler_config, hf_overrides;                       // JSON
  int64_t seed = -1;          // -1: random
  std::string chat_template;  // a file, or the template itself
  bool auto_tool_choice = false;
  std::string tool_call_parser, reasoning_parser;  // "" = none
  std::string reasoning_config;                    // JSON
  bool log_requests = false;
  bool log_stats = true;
  std::string log_level = "info";
  std::string otlp_traces_endpoint;  // "" = no spans
  bool load_tracking = false;
  bool responses_store = false;  // VLLM_ENABLE_RESPONSES_API_STORE
  bool dev_mode = false;           // VLLM_SERVER_DEV_MODE: /reset_prefix_cache, /sleep, ...
  bool tokenizer_info = false;
  bool docs = true;
  std::string root_path;                                // a proxy's prefix, taken off requests that carry it
  std::string ssl_certfile, ssl_keyfile, ssl_ca_certs;  // "" = plain HTTP
  int ssl_cert_reqs = 0;                                // 2: clients show a certificate of ssl_ca_certs
  bool ssl_refresh = false;
  std::string kv_transfer_config;  // JSON
  std::string kv_events_config;    // JSON
  std::string speculative_config;  // JSON

  bool enable_lora = false;
  std::vector<std::string> lora_modules;
  int max_loras = 1, max_lora_rank = 16;
  int max_cpu_loras = 0;        // 0: all that are loaded
  bool lora_updating = false;   // VLLM_ALLOW_RUNTIME_LORA_UPDATING

  int threads = 0;  // of a rank; 0: all cores, shared out among the ranks
  int tensor_parallel_size = 1;
  int io_threads = 1;
  std::string isa = "auto";
  std::string kv_host;  // "": of kv_interface, else loopback
  std::string kv_interface;
  int kv_port = -1;  // -1: 5600 if P/D is on; 0: any
  std::vector<std::string> kv_peers;
  std::string kv_transport = "auto";
  std::string kv_load_failure_policy;  // recompute unless kv_transfer_config says fail
  std::string kv_secret;
  std::string kv_params_trust = "any", kv_params_token;
  int kv_lease_s = 30;
  int kv_push_chunk = 256;
  int drain_s = 30;

  // Filled by finish_config().
  Json template_kwargs;             // from default_template_kwargs; null if none
  GenerationOverride generation;    // from override_generation
  std::vector<std::string> flag_notes;  // flags of vLLM that change nothing here, and why
  std::vector<LoraModule> loras;  // from lora_modules
  bool kv_transfer = false;           // P/D is on
  std::string kv_engine_id;           // "": random
  std::vector<std::string> kv_notes;  // what keys of kv_transfer_config come to here
  KvEventsConfig kv_events;  // from kv_events_config
  std::optional<SpeculativeConfig> speculation;  // from speculative_config
};

Options engine_options(EngineConfig& config);
Result<> finish_config(EngineConfig& config, const std::vector<std::string>& positional);

}  // namespace baton::engine
