#pragma once
// Parameter structs of the plugins: what a row of plugins.h is configured with. Values only; the names and limits under which a
// file gives them are in the rows (plugins_*.cc). Defaults are llm-d's; what is ours is marked so. Source: facts sheet "epp" 4.
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "route/plan.h"

namespace baton::route {

struct NoParams {
  bool operator==(const NoParams&) const = default;
};

struct PickerParams {
  int64_t endpoints_max = 1;  // how many alternatives the destination header lists
  bool operator==(const PickerParams&) const = default;
};

// ---- handlers
enum class StageOrder : uint8_t { kDecodeFirst, kPrefillFirst };
enum class Missing : uint8_t { kServe, kFail };
struct DisaggParams {
  StageOrder order = StageOrder::kDecodeFirst;
  std::string decode = "decode", prefill = "prefill", encode = "encode";  // profiles
  std::string prefill_decider, encode_decider;                            // "" = the stage is not run
  int64_t primary_port = 0;                                               // decode goes to this port, with the DP header; 0 = off
  Missing missing = Missing::kServe;  // ours: no decode worker lives: any live worker that can serves the request, or 429
  // what v0.2 to v0.5 had
  int64_t threshold = -1, hash_block_size = -1;
  std::string prefix_plugin_name, prefix_plugin_type, prefix_producer, old_decider;
  bool operator==(const DisaggParams&) const = default;
};
struct DataParallelParams {
  int64_t primary_port = 8000;
  bool operator==(const DataParallelParams&) const = default;
};
struct HeaderProfileParams {
  std::string header = "EPP-Profile", profile = "decode";
  bool operator==(const HeaderProfileParams&) const = default;
};
struct PairParams {  // ours: baton-pair-handler
  std::string decode = "decode", prefill = "prefill";
  double ttft_weight = 1, harm_weight = 0.2, score_weight = 0;  // ms of own TTFT, of others' delay, per point of profile score
  double local_bonus_ms = 0;                                    // how much slower remote may be estimated and still be taken
  bool local = true;                                            // the decode worker may prefill by itself
  Missing missing = Missing::kServe;
  CostParams cost;
  bool operator==(const PairParams&) const = default;
};

// ---- deciders
struct PdDeciderParams {
  int64_t non_cached_tokens = 0, prompt_tokens = 0;
  bool operator==(const PdDeciderParams&) const = default;
};
struct CostDeciderParams {        // ours: baton-cost-decider
  double harm_weight = 0.2;       // a ms by which all running streams are delayed counts as this many ms of own TTFT, each
  double margin_ms = 0;           // remote must win by this much
  int64_t split_tail_tokens = 0;  // a remote prefill leaves up to this many of the prompt's last tokens to decode; 0 = none
  CostParams cost;
  bool operator==(const CostDeciderParams&) const = default;
};

// ---- filters
struct ByLabelParams {
  std::string label;
  std::vector<std::string> values;
  bool allows_none = false;
  bool operator==(const ByLabelParams&) const = default;
};
enum class LabelOp : uint8_t { kIn, kNotIn, kExists, kDoesNotExist };
struct LabelExpression {
  std::string key;
  LabelOp op = LabelOp::kIn;
  std::vector<std::string> values;
  bool operator==(const LabelExpression&) const = default;
};
struct SelectorParams {
  std::vector<std::pair<std::string, std::string>> labels;
  std::vector<LabelExpression> expressions;
  bool operator==(const SelectorParams&) const = default;
};
enum class TtftSource : uint8_t { kThroughput, kPredictor };
struct PrefixAffinityParams {
  double threshold = 0.8, exploration = 0, penalty_max_ms = 18'000, throughput = 15'928;
  TtftSource source = TtftSource::kThroughput;
  std::string producer;
  bool operator==(const PrefixAffinityParams&) const = default;
};
struct SloTierParams {
  double explore_negative = 0.01;
  bool operator==(const SloTierParams&) const = default;
};
struct ContextLengthParams {
  std::string label = "llm-d.ai/context-length-range";
  bool filtering = false;
  bool operator==(const ContextLengthParams&) const = default;
};
enum class Gauge : uint8_t { kActive, kRunning, kWaiting, kKvUsage, kInflightTokens };
struct GaugeLimit {
  Gauge gauge = Gauge::kWaiting;
  double max = 0;
  bool operator==(const GaugeLimit&) const = default;
};
struct UtilizationFilterParams {
  std::vector<GaugeLimit> limits;
  bool fallback = false;
  bool operator==(const UtilizationFilterParams&) const = default;
};
enum class Affinity : uint8_t { kHost, kRack, kZone, kRegion };
struct TopologyParams {
  Affinity min = Affinity::kHost;
  bool operator==(const TopologyParams&) const = default;
};
enum class Compare : uint8_t { kLess, kLessEqual, kGreater, kGreaterEqual, kEqual };
struct AttributeFilterParams {
  Gauge attribute = Gauge::kWaiting;
  Compare op = Compare::kLessEqual;
  double value = 0;
  bool pass_missing = true, fallback = false;
  std::string producer;
  bool operator==(const AttributeFilterParams&) const = default;
};

// ---- scorers
struct PrefixScorerParams {
  double length_weight = 0, length_scale_tokens = 8'192;
  std::string producer;
  // moved to approx-prefix-cache-producer
  int64_t block_tokens = -1, hash_block_size = -1, blocks_max = -1, capacity = -1;
  bool operator==(const PrefixScorerParams&) const = default;
};
struct LoadAwareParams {
  int64_t threshold = 128;
  bool operator==(const LoadAwareParams&) const = default;
};
struct ActiveRequestParams {
  int64_t idle_threshold = 0;
  double busy_score_max = 1;
  bool operator==(const ActiveRequestParams&) const = default;
};
struct TokenLoadParams {
  int64_t threshold_tokens = 4'194'304;
  bool operator==(const TokenLoadParams&) const = default;
};
struct NoHitLruParams {
  int64_t lru_size = 1'024;
  std::string producer;
  bool operator==(const NoHitLruParams&) const = default;
};
enum class Headroom : uint8_t { kLeast, kMost };
struct LatencyScorerParams {
  double ttft_weight = 0.8, tpot_weight = 0.2, kv_weight = 1, queue_weight = 1, prefix_weight = 1;
  Headroom strategy = Headroom::kLeast;
  bool operator==(const LatencyScorerParams&) const = default;
};
enum class SessionStrategy : uint8_t { kEncodedEndpoint, kSessionId };
struct SessionScorerParams {
  SessionStrategy strategy = SessionStrategy::kEncodedEndpoint;  // x-session-token carries the endpoint's name, or an id names it
  std::vector<std::string> headers = {"x-session-id"};
  int64_t ttl_ms = 300'000, sweep_ms = 10'000;
  std::string profile;
  bool operator==(const SessionScorerParams&) const = default;
};
struct HeaderLabelParams {
  std::string header, label;
  bool operator==(const HeaderLabelParams&) const = default;
};
struct AttributeScorerParams {
  Gauge attribute = Gauge::kWaiting;
  bool higher_is_better = false;
  double min = 0, max = 0;  // max > min: a fixed range
  std::string producer;
  bool operator==(const AttributeScorerParams&) const = default;
};

// ---- admitters, policies, producers whose values Plan does not hold as they are
struct ProbabilisticParams {
  double queue_depth = 5, kv_cache_util = 0.8, power = 5, k = 300;
  bool operator==(const ProbabilisticParams&) const = default;
};
struct StaticCeilingParams {
  double threshold = 1;
  bool operator==(const StaticCeilingParams&) const = default;
};
enum class HoldbackDomain : uint8_t { kRank, kValue };
struct HoldbackParams {
  double min = -1, max = 1;
  HoldbackDomain domain = HoldbackDomain::kRank;
  bool operator==(const HoldbackParams&) const = default;
};
struct ProgramAwareParams {
  double weight_service = 0.8, weight_head_wait = 0.2, half_life_s = 60;
  bool operator==(const ProgramAwareParams&) const = default;
};
struct TokenWeightedParams {  // ours: baton-token-weighted-fairness-policy
  std::vector<std::pair<std::string, double>> weights;
  double output_token_weight = 2;
  bool operator==(const TokenWeightedParams&) const = default;
};
struct InflightParams {
  bool output_tokens = false;
  double output_ratio = 1.5;
  int64_t output_tokens_max = 0;
  std::string producer;
  bool operator==(const InflightParams&) const = default;
};
struct PredictedParams {
  double slo_buffer = 1;
  std::string role_label, prefix_producer, tokens_producer;
  bool streaming = false, in_produce = true;
  int64_t context_ttl_ms = 300'000;
  bool operator==(const PredictedParams&) const = default;
};
struct ReferenceParams {  // rows whose only parameter names a producer or a profile
  std::string producer;
  int64_t tokens_min = 1;
  bool operator==(const ReferenceParams&) const = default;
};
struct SessionIdParams {
  std::string header, cookie;
  bool operator==(const SessionIdParams&) const = default;
};
struct ExtractorParams {
  std::string engine_label = "llm-d.ai/engine-type", default_engine = "vllm";
  std::vector<SourceParams::Engine> engines;
  bool operator==(const ExtractorParams&) const = default;
};
struct FileDiscoveryParams {
  std::string path;
  bool watch = true;
  bool operator==(const FileDiscoveryParams&) const = default;
};
struct HeaderHandlerParams {  // prefill-header-handler: the profile handler does this now
  std::string prefill = "prefill", encode = "encode";
  bool operator==(const HeaderHandlerParams&) const = default;
};

using AnyParams =
    std::variant<NoParams, PickerParams, DisaggParams, DataParallelParams, HeaderProfileParams, PairParams, PdDeciderParams,
                 CostDeciderParams, ByLabelParams, SelectorParams, PrefixAffinityParams, SloTierParams, ContextLengthParams,
                 UtilizationFilterParams, TopologyParams, AttributeFilterParams, PrefixScorerParams, LoadAwareParams,
                 ActiveRequestParams, TokenLoadParams, NoHitLruParams, LatencyScorerParams, SessionScorerParams,
                 HeaderLabelParams, AttributeScorerParams, ProbabilisticParams, StaticCeilingParams, HoldbackParams,
                 ProgramAwareParams, TokenWeightedParams, InflightParams, PredictedParams, ReferenceParams, SessionIdParams,
                 ExtractorParams, FileDiscoveryParams, HeaderHandlerParams, DetectorParams, PrefixParams, KvEventsParams,
                 TokenParams, SourceParams>;

// A type of its own, so that its copies, moves, end and comparison, each over every alternative, are compiled once (params.cc).
struct Params : AnyParams {
  using AnyParams::variant;
  Params();
  Params(const Params& other);
  Params(Params&& other) noexcept;
  Params& operator=(const Params& other);
  Params& operator=(Params&& other) noexcept;
  ~Params();
  bool operator==(const Params& other) const;
};

}  // namespace baton::route
