#pragma once
// Plan: one configuration, compiled: what decide() runs, and what the picker around it must provide. Immutable; shared by all
// threads; replaced whole on reload. Filters, scorers, pickers, deciders, handlers, admitters are rows of one table
// (plugins.h): type name, parameter struct, function.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cost/cost.h"

namespace baton::route {

// What the policies in use read; what nobody reads is not scraped, hashed, tokenised or parsed (you pay for what you configure).
struct Needs {
  bool metrics = true;
  bool prefix = true;      // approximate index, recorded at dispatch
  bool kv_events = false;  // precise index, fed by engines' KV events
  bool lora = false, models = false;
  bool answer_usage = true;  // token counts out of answers
  bool predictions = false;  // TTFT and TPOT from cost/
  bool cold_order = false;   // Inquiry::cold_order
  bool session = false;      // Inquiry::session_slot, by Plan::session
  bool multimodal = false;   // Inquiry::multimodal, media_total, media_matched
  bool operator==(const Needs&) const = default;
};

struct PrefixParams {     // approx-prefix-cache-producer
  bool auto_tune = true;  // block size and capacity from the engines' cache_config_info
  int64_t block_tokens = 16;
  int64_t blocks_max = 2'048, capacity_per_endpoint = 31'250;  // hashes looked at per prompt; blocks remembered per endpoint
  int64_t tokens_max = 131'072;                                // maxPrefixTokensToMatch: the smaller of the two limits holds
  bool operator==(const PrefixParams&) const = default;
};

struct TokenParams {  // token-producer, and tokenizersPoolConfig of older files: how the precise index learns a text prompt's tokens
  // bytes / 4; a render service's or engine's /render or /tokenize; the same of the pool's own workers; a tokenizer in this process
  enum class Kind : uint8_t { kEstimate, kRender, kWorkers, kLocal } kind = Kind::kEstimate;
  std::string model, url = "http://localhost:8000";
  int64_t timeout_ms = 5'000, media_timeout_ms = 30'000;  // of a render call; then the approximate index decides
  std::string path;                                       // tokenizer.json, GGUF file or directory, for any model
  std::vector<std::pair<std::string, std::string>> paths;  // by model
  std::string directory, file_name = "tokenizer.json";     // directory/<model>/file_name, or a Hugging Face cache
  int64_t workers = 2, local_timeout_ms = 400;             // threads; llm-d gives its producers 400 ms
  bool operator==(const TokenParams&) const = default;
};

struct KvEventsParams {  // precise-prefix-cache-producer
  int64_t block_tokens = 16;
  std::string hash_seed, hash_algorithm = "cbor-fnv";  // or xxh64
  std::string zmq_endpoint, topic_filter = "kv@", engine_type = "vllm";
  bool discover_pods = true;
  int64_t socket_port = 5557, replay_socket_port = 0, concurrency = 4;
  int64_t blocks_max = 100'000'000;
  std::vector<std::pair<std::string, float>> tiers = {{"gpu", 1.0f}, {"cpu", 0.8f}};
  bool speculative = false;
  int64_t speculative_ttl_ms = 2'000;
  bool metrics = false;  // enableMetrics
  TokenParams tokens;    // tokenizersPoolConfig; Plan::tokens is what holds
  bool operator==(const KvEventsParams&) const = default;
};

struct SessionParams {                        // session-affinity-scorer and -filter, session-id-producer
  bool encoded_endpoint = false;              // the endpoint's name, base64, in x-session-token: in and out
  std::vector<std::string> headers, cookies;  // else a table from the first of these that the request has
  int64_t ttl_ms = 300'000;
  bool operator==(const SessionParams&) const = default;
};

struct SourceParams {  // metrics-data-source, core-metrics-extractor
  std::string scheme = "http", path = "/metrics";
  int64_t port = 0;  // 0 = the endpoint's own
  bool insecure_skip_verify = true;
  std::string ca_cert_path, client_cert_path, client_key_path;
  int64_t interval_ms = 0;  // 0 = the flag's
  std::string engine_label = "llm-d.ai/engine-type", default_engine = "vllm";
  struct Engine {  // custom names; an empty one keeps the built-in row's; may carry label filters name{a="b"}
    std::string name, waiting, running, kv_usage, lora, cache_info;
    bool operator==(const Engine&) const = default;
  };
  std::vector<Engine> engines;
  bool operator==(const SourceParams&) const = default;
};

enum class Fairness : uint8_t { kGlobalStrict, kRoundRobin, kProgramAware, kTokenWeighted };
enum class Ordering : uint8_t { kFcfs, kEdf, kSloDeadline };
enum class Ceiling : uint8_t { kStatic, kHoldback, kSoftReflective };

struct BandParams {
  int64_t priority = 0;
  int64_t bytes_max = 1'000'000'000, requests_max = 5'000;
  Fairness fairness = Fairness::kGlobalStrict;
  Ordering ordering = Ordering::kFcfs;
  bool operator==(const BandParams&) const = default;
};

struct DetectorParams {  // utilization-detector, concurrency-detector
  enum class Kind : uint8_t { kUtilization, kConcurrency } kind = Kind::kUtilization;
  double queue_depth = 5, kv_cache_util = 0.8, headroom = 0;
  int64_t staleness_ms = 200;
  bool stale_is_saturated = true;  // stalenessPolicy saturated | ignore
  int64_t concurrency_max = 100, tokens_max = 1'000'000;
  enum class Mode : uint8_t { kRequests, kTokens, kHybrid } mode = Mode::kRequests;
  bool operator==(const DetectorParams&) const = default;
};

struct FlowControlParams {
  bool enabled = false;                              // feature gate flowControl
  int64_t bytes_max = 0, requests_max = 0;           // 0 = no global limit
  int64_t ttl_ms = 60'000, no_endpoint_ttl_ms = -1;  // -1 = as ttl_ms
  BandParams default_band, default_negative_band;
  std::vector<BandParams> bands;
  Ceiling ceiling = Ceiling::kStatic;
  double ceiling_threshold = 1.0, holdback_min = 0, holdback_max = 1.0;
  bool holdback_by_rank = true;
  bool eviction = false;
  double las_weight_service = 0.8, las_weight_head_wait = 0.2, las_half_life_s = 60;  // program-aware-fairness
  std::vector<std::pair<std::string, double>> tenant_weights;  // token-weighted fairness: share of a flow id; 1 where not named
  double output_token_weight = 2;                              // an output token counts as this many input tokens
  bool operator==(const FlowControlParams&) const = default;
};

struct CostParams {  // baton-pair-handler, baton-cost-decider: until a worker's own figures are fitted
  cost::WorkerCost worker{{2'000, 60, 0.4}, {6'000, 100, 4}, 131'072};
  cost::LinkCost link{200, 10'000};  // KV hand-over inside a zone, us and bytes per us (= 10 GB/s)
  double far_link_factor = 4;        // bytes take this much longer between zones
  bool operator==(const CostParams&) const = default;
};

struct Plan {
  Needs needs;
  PrefixParams prefix;
  KvEventsParams kv_events;
  TokenParams tokens;
  SessionParams session;
  SourceParams source;
  FlowControlParams flow_control;
  DetectorParams detector;
  CostParams cost;
  bool scrape = true;                // dataLayer.injectDefaults=false and no metrics source: no scraping
  bool track_output_tokens = false;  // inflight-load-producer addEstimatedOutputTokens
  double output_ratio = 1.5;
  int64_t estimated_output_tokens_max = 0;
  double slo_buffer = 1;            // predicted-latency-producer sloBufferFactor
  bool agent_identity = false;      // fairness id from an agent's session headers where its own header is missing
  int64_t kv_source_delta_min = 0;  // p2p-source-producer: tokens another worker must hold more; 0 = off
  bool served_verifier = false;     // destination-endpoint-served-verifier (conformance)
  std::vector<std::string> parsers = {"openai-parser", "anthropic-parser", "vllmhttp-parser", "passthrough-parser"};
  std::string discovery_file;  // file-discovery's path, "" = none
  bool discovery_watch = true;
  bool passive_replica_warm = true;  // gate haPopulateNonLeaderDatastore
  struct Policy;                     // plugins.h: profiles, handler, deciders, admitters: decide()'s own
  std::shared_ptr<const Policy> policy;

  bool operator==(const Plan& other) const;  // by value, the policy included
};

}  // namespace baton::route
