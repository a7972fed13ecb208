// Rows: filters.
#include "route/plugin_field.h"

namespace baton::route {
namespace {

constexpr std::string_view kGauges = "active-requests|running-requests|waiting-queue|kv-cache-utilization|inflight-tokens";

constexpr Field kByLabelFields[] = {
    field<&ByLabelParams::label>("label", "pod label"),
    field<&ByLabelParams::values>("validValues", "values that pass"),
    field<&ByLabelParams::allows_none>("allowsNoLabel", "pods without the label pass"),
};
constexpr Field kSelectorFields[] = {
    field<&SelectorParams::labels>("matchLabels", "labels and the values they must have"),
    field<&SelectorParams::expressions>("matchExpressions", "key, operator In|NotIn|Exists|DoesNotExist, values"),
};
constexpr Field kPrefixAffinityFields[] = {
    field<&PrefixAffinityParams::threshold>("affinityThreshold", "share of the prompt that makes a worker sticky", kShare),
    field<&PrefixAffinityParams::exploration>("explorationProbability", "chance of keeping all", kShare),
    field<&PrefixAffinityParams::penalty_max_ms>("maxTTFTPenaltyMs", "keep all if the best sticky worker is slower by more",
                                                 kAmount),
    field<&PrefixAffinityParams::source>("ttftSource", "where the TTFT comes from", {}, "prefillThroughput|latencyPredictor"),
    field<&PrefixAffinityParams::throughput>("peakPrefillThroughput", "tokens per second", {1e-3, 1e12}),
    field<&PrefixAffinityParams::producer>("prefixMatchInfoProducerName", "producer of the prefix knowledge"),
};
constexpr Field kSloTierFields[] = {
    field<&SloTierParams::explore_negative>("epsilonExploreNeg", "chance of keeping the workers without headroom instead",
                                            kShare),
};
constexpr Field kContextLengthFields[] = {
    field<&ContextLengthParams::label>("label", "pod label \"min-max\", in tokens"),
    field<&ContextLengthParams::filtering>("enableFiltering", "drop workers out of range"),
};
constexpr Field kUtilizationFields[] = {
    field<&UtilizationFilterParams::limits>("conditions", "list of {metric, maxValue}; a worker must be below all", {}, kGauges),
    field<&UtilizationFilterParams::fallback>("fallbackOnEmpty", "keep all where none is below"),
};
constexpr std::string_view kAffinities = "host|rack|zone|region";
constexpr Field kTopologyFields[] = {
    field<&TopologyParams::min>("minAffinity", "how near the other stage's worker must be", {}, kAffinities),
};
constexpr Field kAttributeFields[] = {
    field<&AttributeFilterParams::attribute>("attribute", "the number compared", {}, kGauges),
    field<&AttributeFilterParams::producer>("producer", "accepted; there is one source of each number"),
    field<&AttributeFilterParams::op>("threshold.operator", "comparison that passes", {}, "lt|lte|gt|gte|eq"),
    field<&AttributeFilterParams::value>("threshold.value", "compared with"),
    one_of("Fail|Pass", field<&AttributeFilterParams::pass_missing>("onMissing", "workers that were never scraped")),
    field<&AttributeFilterParams::fallback>("fallbackOnEmpty", "keep all where none passes"),
};
constexpr FieldRange kFactor{1e-6, 1e12};
constexpr Field kUtilizationDetectorFields[] = {
    field<&DetectorParams::queue_depth>("queueDepthThreshold", "queue length taken as full", kFactor),
    field<&DetectorParams::kv_cache_util>("kvCacheUtilThreshold", "KV usage taken as full", {1e-6, 1}),
    as(Field::Type::kDurationMs,
       field<&DetectorParams::staleness_ms>("metricsStalenessThreshold", "older numbers count as stale", kNatural)),
    field<&DetectorParams::headroom>("headroom", "as a filter: share above the thresholds that still passes", kAmount),
    one_of("ignore|saturated", field<&DetectorParams::stale_is_saturated>("stalenessPolicy", "what a stale worker counts as")),
};
constexpr Field kConcurrencyDetectorFields[] = {
    field<&DetectorParams::concurrency_max>("maxConcurrency", "requests in flight a worker", kPositive),
    field<&DetectorParams::tokens_max>("maxTokenConcurrency", "prompt tokens in flight a worker", kPositive),
    field<&DetectorParams::mode>("concurrencyMode", "what is counted", {}, "requests|tokens|hybrid"),
    field<&DetectorParams::headroom>("headroom", "as a filter: share above the limit that still passes", kAmount),
};

constexpr PluginRow kRows[] = {
    {.type = "decode-filter",
     .kinds = kFilter,
     .summary = "workers whose role can decode; unlabelled ones too",
     .filter = filter_decode,
     .role_filter = true},
    {.type = "prefill-filter",
     .kinds = kFilter,
     .summary = "workers whose role can prefill",
     .filter = filter_prefill,
     .role_filter = true},
    {.type = "encode-filter",
     .kinds = kFilter,
     .summary = "workers whose role can encode media",
     .filter = filter_encode,
     .role_filter = true},
    {.type = "label-selector-filter",
     .kinds = kFilter,
     .summary = "Kubernetes label selector",
     .make = make<SelectorParams>,
     .fields = kSelectorFields,
     .filter = filter_selector},
    {.type = "by-label-selector", .kinds = kFilter, .stability = Stability::kDeprecated, .same_as = "label-selector-filter"},
    {.type = "by-label",
     .kinds = kFilter,
     .stability = Stability::kDeprecated,
     .summary = "one label and its valid values",
     .make = make<ByLabelParams>,
     .fields = kByLabelFields,
     .filter = filter_by_label},
    {.type = "prefix-cache-affinity-filter",
     .kinds = kFilter,
     .summary = "only workers that hold most of the prompt, unless they are much slower",
     .make = make<PrefixAffinityParams>,
     .fields = kPrefixAffinityFields,
     .filter = filter_prefix_affinity},
    {.type = "slo-headroom-tier-filter",
     .kinds = kFilter,
     .summary = "workers predicted to hold the SLO before the others",
     .make = make<SloTierParams>,
     .fields = kSloTierFields,
     .filter = filter_slo_tier},
    {.type = "context-length-aware",
     .kinds = kFilter | kScorer,
     .summary = "workers by the prompt lengths they are meant for",
     .make = make<ContextLengthParams>,
     .fields = kContextLengthFields,
     .filter = filter_context_length,
     .score = score_context_length},
    {.type = "utilization-filter",
     .kinds = kFilter,
     .stability = Stability::kAlpha,
     .summary = "workers below all limits",
     .make = make<UtilizationFilterParams>,
     .fields = kUtilizationFields,
     .filter = filter_utilization},
    {.type = "topology-affinity-filter",
     .kinds = kFilter,
     .stability = Stability::kAlpha,
     .summary = "workers near the other stage's one; all where none is",
     .make = make<TopologyParams>,
     .fields = kTopologyFields,
     .filter = filter_topology},
    {.type = "endpoint-attribute-filter",
     .kinds = kFilter,
     .stability = Stability::kAlpha,
     .summary = "workers by one of their numbers",
     .make = make<AttributeFilterParams>,
     .fields = kAttributeFields,
     .filter = filter_attribute},
    {.type = "session-affinity-filter",
     .kinds = kFilter,
     .stability = Stability::kAlpha,
     .summary = "the session's worker, while it is usable",
     .make = make<SessionScorerParams>,
     .fields = kSessionFields,
     .filter = filter_session},
    {.type = "utilization-detector",
     .kinds = kFilter | kDetector,
     .summary = "saturation by queue and KV usage; as a filter, workers below it",
     .make = [] { return Params{DetectorParams{.kind = DetectorParams::Kind::kUtilization}}; },
     .fields = kUtilizationDetectorFields,
     .filter = filter_detector},
    {.type = "concurrency-detector",
     .kinds = kFilter | kDetector,
     .summary = "saturation by what is in flight; as a filter, workers below it",
     .make = [] { return Params{DetectorParams{.kind = DetectorParams::Kind::kConcurrency}}; },
     .fields = kConcurrencyDetectorFields,
     .filter = filter_detector},
    {.type = "header-based-testing-filter",
     .kinds = kFilter,
     .summary = "conformance: the endpoints that test-epp-endpoint-selection lists",
     .filter = filter_testing_header},
    {.type = "multicluster-session-affinity-filter",
     .kinds = kFilter,
     .stability = Stability::kAlpha,
     .refused = "remote clusters are not known here; use session-affinity-filter"},
};

}  // namespace

std::span<const PluginRow> filter_rows() { return kRows; }

}  // namespace baton::route
