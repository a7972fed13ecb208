// Rows: profile handlers, deciders, pickers, admitters.
#include "route/plugin_field.h"

namespace baton::route {
namespace {

using enum Field::Type;
constexpr std::string_view kOrders = "decode-first|prefill-first", kMissing = "serve|fail";
constexpr std::string_view kMissingHelp =
    "no decode worker is there: \"serve\" by any live worker that can, or \"fail\" with 429 as llm-d does";

constexpr Field kPickerFields[] = {
    field<&PickerParams::endpoints_max>("maxNumOfEndpoints", "endpoints in the destination header", {1, kRankedMax}),
};

constexpr Field kDisaggFields[] = {
    field<&DisaggParams::order>("stageOrder", "which worker is chosen first", {}, kOrders),
    field<&DisaggParams::decode>("profiles.decode", "profile of the decode stage"),
    field<&DisaggParams::prefill>("profiles.prefill", "profile of the prefill stage"),
    field<&DisaggParams::encode>("profiles.encode", "profile of the encode stage"),
    field<&DisaggParams::prefill_decider>("deciders.prefill", "decides whether a prefill worker is used; none = never"),
    field<&DisaggParams::encode_decider>("deciders.encode", "decides whether an encode worker is used; none = never"),
    ours(field<&DisaggParams::missing>("onMissingDecode", kMissingHelp, {}, kMissing)),
    ours(field<&DisaggParams::primary_port>("primaryPort", "decode goes to this port, the rank to a header; 0 = off", kPort)),
    historic("is profiles.decode now", field<&DisaggParams::decode>("decodeProfile", "")),
    historic("is profiles.prefill now", field<&DisaggParams::prefill>("prefillProfile", "")),
    historic("is profiles.encode now", field<&DisaggParams::encode>("encodeProfile", "")),
    historic("is deciders.prefill now", field<&DisaggParams::prefill_decider>("prefillDeciderPluginName", "")),
    historic("is deciders.encode now", field<&DisaggParams::encode_decider>("encodeDeciderPluginName", "")),
    historic("is deciders.prefill now", field<&DisaggParams::prefill_decider>("deciderPluginName", "")),
};

constexpr Field kPdFields[] = {
    field<&DisaggParams::decode>("decodeProfile", "profile of the decode stage"),
    field<&DisaggParams::prefill>("prefillProfile", "profile of the prefill stage"),
    field<&DisaggParams::old_decider>("deciderPluginName", "decides whether a prefill worker is used"),
    field<&DisaggParams::primary_port>("primaryPort", "decode goes to this port, the rank to a header; 0 = off", kPort),
    field<&DisaggParams::prefix_plugin_type>("prefixPluginType", "accepted; there is one prefix index"),
    field<&DisaggParams::prefix_plugin_name>("prefixPluginName", "accepted; there is one prefix index"),
    field<&DisaggParams::prefix_producer>("prefixMatchInfoProducerName", "accepted; there is one prefix index"),
    field<&DisaggParams::threshold>("threshold", "v0.2 to v0.5: uncached characters from which prefill is remote; 0 = always",
                                    kNatural),
    field<&DisaggParams::hash_block_size>("hashBlockSize", "v0.2 to v0.5: characters a hash block", kPositive),
};

constexpr Field kDataParallelFields[] = {
    field<&DataParallelParams::primary_port>("primaryPort", "port that fans out to the ranks", {1, 65'535}),
};
constexpr Field kHeaderProfileFields[] = {
    field<&HeaderProfileParams::header>("headerName", "request header that names the profile"),
    field<&HeaderProfileParams::profile>("defaultProfile", "profile where the header is absent or names none"),
};

constexpr FieldRange kCoefficient{0, 1e12};
template <auto Cost>
constexpr std::array<Field, 9> cost_fields() {
  using W = cost::WorkerCost;
  using L = cost::LinearCost;
  using K = cost::LinkCost;
  return {
      field<Cost, &CostParams::worker, &W::prefill, &L::fixed_us>("cost.prefillFixedUs", "prefill step, fixed part, us",
                                                                  kCoefficient),
      field<Cost, &CostParams::worker, &W::prefill, &L::per_token_us>("cost.prefillPerTokenUs", "us a new token", kCoefficient),
      field<Cost, &CostParams::worker, &W::prefill, &L::per_ctx_us>("cost.prefillPerContextUs",
                                                                    "us a new token and 1,024 tokens of context", kCoefficient),
      field<Cost, &CostParams::worker, &W::decode, &L::fixed_us>("cost.decodeFixedUs", "decode step, fixed part, us",
                                                                 kCoefficient),
      field<Cost, &CostParams::worker, &W::decode, &L::per_token_us>("cost.decodePerStreamUs", "us a running stream",
                                                                     kCoefficient),
      field<Cost, &CostParams::worker, &W::kv_bytes_per_token>("cost.kvBytesPerToken", "KV cache bytes a token", kNatural),
      field<Cost, &CostParams::link, &K::latency_us>("cost.linkLatencyUs", "KV hand-over, fixed part, us", kCoefficient),
      field<Cost, &CostParams::link, &K::bytes_per_us>("cost.linkBytesPerUs", "KV hand-over, bytes per us (1,000 = 1 GB/s)",
                                                       {1e-3, 1e9}),
      field<Cost, &CostParams::far_link_factor>("cost.farLinkFactor", "hand-over between zones takes this much longer", {1, 1e6}),
  };
}
template <size_t N, size_t M>
constexpr std::array<Field, N + M> join(const Field (&a)[N], const std::array<Field, M>& b) {
  std::array<Field, N + M> out;
  std::copy(a, a + N, out.begin());
  std::copy(b.begin(), b.end(), out.begin() + N);
  return out;
}

constexpr Field kPairOwn[] = {
    field<&PairParams::decode>("profiles.decode", "profile whose filters name the decode workers"),
    field<&PairParams::prefill>("profiles.prefill", "profile whose filters name the prefill workers"),
    field<&PairParams::ttft_weight>("ttftWeight", "cost of a ms of the request's own time to first token", kAmount),
    field<&PairParams::harm_weight>("harmWeight", "cost of a ms by which one running stream is delayed", kAmount),
    field<&PairParams::score_weight>("scoreWeight", "ms that a point of a profile's total score is worth; 0 = scorers unused",
                                     kAmount),
    field<&PairParams::local>("local", "the decode worker may prefill by itself"),
    field<&PairParams::local_bonus_ms>("localBonusMs", "remote prefill must beat local by this much", kAmount),
    field<&PairParams::missing>("onMissingDecode", kMissingHelp, {}, kMissing),
};
constexpr auto kPairFields = join(kPairOwn, cost_fields<&PairParams::cost>());

constexpr Field kPdDeciderFields[] = {
    field<&PdDeciderParams::non_cached_tokens>("nonCachedTokens", "remote prefill from this many uncached tokens on; 0 = never",
                                               kNatural),
    field<&PdDeciderParams::prompt_tokens>("promptTokens", "and from this prompt length on", kNatural),
};
constexpr Field kCostDeciderOwn[] = {
    field<&CostDeciderParams::harm_weight>("harmWeight", "cost of a ms by which one running stream is delayed", kAmount),
    field<&CostDeciderParams::margin_ms>("marginMs", "remote prefill must beat local by this much", kAmount),
    field<&CostDeciderParams::split_tail_tokens>("splitTailTokens",
                                                 "tokens of the prompt's end that decode may compute itself; 0 = off", kNatural),
};
constexpr auto kCostDeciderFields = join(kCostDeciderOwn, cost_fields<&CostDeciderParams::cost>());

constexpr Field kProbabilisticFields[] = {
    field<&ProbabilisticParams::queue_depth>("queueDepthThreshold", "queue length taken as full", {1e-6, 1e9}),
    field<&ProbabilisticParams::kv_cache_util>("kvCacheUtilThreshold", "KV usage taken as full", {1e-6, 1}),
    field<&ProbabilisticParams::power>("power", "exponent of the refusal curve", kAmount),
    field<&ProbabilisticParams::k>("k", "factor of the refusal curve", kAmount),
};
constexpr Field kHeaderHandlerFields[] = {
    field<&HeaderHandlerParams::prefill>("prefillProfile", "accepted"),
    field<&HeaderHandlerParams::encode>("encodeProfile", "accepted"),
};
constexpr std::string_view kHeaderHandlerNote = "the profile handler sets the headers by itself";

constexpr PluginRow kRows[] = {
    {.type = "single-profile-handler", .kinds = kHandler, .summary = "one profile, one worker", .handler = HandlerKind::kSingle},
    {.type = "disagg-profile-handler",
     .kinds = kHandler,
     .summary = "decode worker, then encode and prefill workers as the deciders say",
     .make = make<DisaggParams>,
     .fields = kDisaggFields,
     .handler = HandlerKind::kDisagg},
    {.type = "pd-profile-handler",
     .kinds = kHandler,
     .stability = Stability::kDeprecated,
     .summary = "disagg-profile-handler as it was called; a bare one, or threshold 0, always prefills remotely",
     .make = make<DisaggParams>,
     .fields = kPdFields,
     .handler = HandlerKind::kDisagg},
    {.type = "data-parallel-profile-handler",
     .kinds = kHandler,
     .summary = "one profile; the rank's address goes to x-data-parallel-host-port",
     .make = make<DataParallelParams>,
     .fields = kDataParallelFields,
     .handler = HandlerKind::kDataParallel},
    {.type = "header-profile-handler",
     .kinds = kHandler,
     .stability = Stability::kAlpha,
     .summary = "profile named by a request header",
     .make = make<HeaderProfileParams>,
     .fields = kHeaderProfileFields,
     .handler = HandlerKind::kHeader},
    {.type = "baton-pair-handler",
     .kinds = kHandler,
     .stability = Stability::kOurs,
     .summary = "prefill and decode worker chosen together by estimated TTFT, KV hand-over and harm to running streams",
     .make = make<PairParams>,
     .fields = kPairFields,
     .handler = HandlerKind::kPair},
    {.type = "prefill-header-handler",
     .kinds = kOther,
     .stability = Stability::kDeprecated,
     .summary = "set x-prefiller-host-port",
     .make = make<HeaderHandlerParams>,
     .fields = kHeaderHandlerFields,
     .ignored = kHeaderHandlerNote},
    {.type = "disagg-headers-handler",
     .kinds = kOther,
     .stability = Stability::kDeprecated,
     .summary = "set the P/D headers",
     .make = make<HeaderHandlerParams>,
     .fields = kHeaderHandlerFields,
     .ignored = kHeaderHandlerNote},

    {.type = "always-disagg-pd-decider", .kinds = kDecider, .summary = "prefill is always remote", .decider = decide_always},
    {.type = "prefix-based-pd-decider",
     .kinds = kDecider,
     .summary = "prefill is remote if enough of the prompt is uncached on the decode worker",
     .make = make<PdDeciderParams>,
     .fields = kPdDeciderFields,
     .decider = decide_prefix_based},
    {.type = "always-disagg-multimodal-decider",
     .kinds = kDecider,
     .summary = "encode is remote if the request has media",
     .decider = decide_multimodal},
    {.type = "baton-cost-decider",
     .kinds = kDecider,
     .stability = Stability::kOurs,
     .summary = "local, remote or split prefill, whichever is estimated to cost less, harm to running streams included",
     .make = make<CostDeciderParams>,
     .fields = kCostDeciderFields,
     .decider = decide_cost},

    {.type = "max-score-picker",
     .kinds = kPicker,
     .summary = "the highest total; ties at random",
     .make = make<PickerParams>,
     .fields = kPickerFields,
     .picker = PickerKind::kMaxScore},
    {.type = "random-picker",
     .kinds = kPicker,
     .summary = "any",
     .make = make<PickerParams>,
     .fields = kPickerFields,
     .picker = PickerKind::kRandom},
    {.type = "weighted-random-picker",
     .kinds = kPicker,
     .summary = "at random, with chances in proportion to the total",
     .make = make<PickerParams>,
     .fields = kPickerFields,
     .picker = PickerKind::kWeightedRandom},

    {.type = "latency-slo-admitter",
     .kinds = kAdmitter,
     .summary = "refuses sheddable requests whose SLO no worker is predicted to hold",
     .admit = admit_latency_slo},
    {.type = "probabilistic-admitter",
     .kinds = kAdmitter,
     .summary = "refuses sheddable requests with a chance that grows with saturation (429)",
     .make = make<ProbabilisticParams>,
     .fields = kProbabilisticFields,
     .admit = admit_probabilistic},
    {.type = "disaggregatedset-rollout-screener",
     .kinds = kScreener,
     .stability = Stability::kAlpha,
     .summary = "prefill and decode of one rollout revision",
     .refused = "DisaggregatedSet rollouts are not known here; use label-selector-filter on the revision label"},
    {.type = "destination-endpoint-served-verifier",
     .kinds = kOther,
     .summary = "conformance: tells the served endpoint in an answer header"},
};

}  // namespace

std::span<const PluginRow> handler_rows() { return kRows; }

}  // namespace baton::route
