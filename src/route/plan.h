#pragma once
// Plan: one configuration, compiled: what pick() runs, and what the picker around it must provide. Immutable; shared by all
// threads; replaced whole on reload. Filters, scorers, pickers, deciders, handlers, admitters are rows of one table
// (plugins.h): type name, parameter struct, function.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace baton::route {

// What the policies in use read; what nobody reads is not scraped, hashed, tokenised or parsed (you pay for what you configure).
struct Needs {
  bool metrics = true;
  bool prefix = true;             // approximate index, recorded at dispatch
  bool kv_events = false;         // precise index, fed by engines' KV events
  bool lora = false, models = false;
  bool answer_usage = true;       // token counts out of answers
  bool predictions = false;       // TTFT and TPOT from cost/
};

struct PrefixParams {             // approx-prefix-cache-producer
  bool auto_tune = true;          // block size and capacity from the engines' cache_config_info
  int block_tokens = 16;
  int64_t blocks_max = 2'048, capacity_per_endpoint = 31'250;  // hashes looked at per prompt; blocks remembered per endpoint
};

struct KvEventsParams {           // precise-prefix-cache-producer
  int block_tokens = 16;
  std::string hash_seed, hash_algorithm = "cbor-fnv";
  std::string zmq_endpoint, topic_filter = "kv@", engine_type = "vllm";
  bool discover_pods = true;
  int socket_port = 5557, replay_socket_port = 0, concurrency = 4;
  int64_t blocks_max = 100'000'000;
  std::vector<std::pair<std::string, float>> tiers = {{"gpu", 1.0f}, {"cpu", 0.8f}};
  bool speculative = false;
  int64_t speculative_ttl_ms = 2'000;
};

struct SourceParams {             // metrics-data-source, core-metrics-extractor
  std::string scheme = "http", path = "/metrics";
  int port = 0;                   // 0 = the endpoint's own
  bool insecure_skip_verify = true;
  std::string ca_cert_path, client_cert_path, client_key_path;
  int64_t interval_ms = 0;        // 0 = the flag's
  std::string engine_label = "llm-d.ai/engine-type", default_engine = "vllm";
  struct Engine {                 // custom names; an empty one keeps the built-in row's; may carry label filters name{a="b"}
    std::string name, waiting, running, kv_usage, lora, cache_info;
  };
  std::vector<Engine> engines;
};

enum class Fairness : uint8_t { kGlobalStrict, kRoundRobin, kProgramAware, kTokenWeighted };
enum class Ordering : uint8_t { kFcfs, kEdf, kSloDeadline };
enum class Ceiling : uint8_t { kStatic, kHoldback, kSoftReflective };

struct BandParams {
  int priority = 0;
  int64_t bytes_max = 1'000'000'000, requests_max = 5'000;
  Fairness fairness = Fairness::kGlobalStrict;
  Ordering ordering = Ordering::kFcfs;
};

struct DetectorParams {           // utilization-detector, concurrency-detector
  enum class Kind : uint8_t { kUtilization, kConcurrency } kind = Kind::kUtilization;
  double queue_depth = 5, kv_cache_util = 0.8, headroom = 0;
  int64_t staleness_ms = 200;
  bool stale_is_saturated = true; // stalenessPolicy saturated | ignore
  int64_t concurrency_max = 100, tokens_max = 1'000'000;
  enum class Mode : uint8_t { kRequests, kTokens, kHybrid } mode = Mode::kRequests;
};

struct FlowControlParams {
  bool enabled = false;           // feature gate flowControl
  int64_t bytes_max = 0, requests_max = 0;  // 0 = no global limit
  int64_t ttl_ms = 60'000, no_endpoint_ttl_ms = -1;  // -1 = as ttl_ms
  BandParams default_band, default_negative_band;
  std::vector<BandParams> bands;
  Ceiling ceiling = Ceiling::kStatic;
  double ceiling_threshold = 1.0, holdback_min = 0, holdback_max = 1.0;
  bool holdback_by_rank = true;
  bool eviction = false;
  double las_weight_service = 0.8, las_weight_head_wait = 0.2, las_half_life_s = 60;  // program-aware-fairness
};

struct PluginSpec;                // plugins.h: one configured plugin, its parameters bound
struct ProfileSpec;

struct Plan {
  Needs needs;
  PrefixParams prefix;
  KvEventsParams kv_events;
  SourceParams source;
  FlowControlParams flow_control;
  DetectorParams detector;
  bool track_output_tokens = false;                 // inflight-load-producer addEstimatedOutputTokens
  double output_ratio = 1.5;
  int64_t estimated_output_tokens_max = 0;
  std::vector<std::string> parsers = {"openai-parser", "anthropic-parser", "vllmhttp-parser", "passthrough-parser"};
  std::string discovery_file;                       // file-discovery's path, "" = none
  bool discovery_watch = true;
  struct Policy;                                    // profiles, handler, deciders, admitters: pick()'s own
  std::shared_ptr<const Policy> policy;
};

}  // namespace baton::route
