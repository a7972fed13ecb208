// Rows: scorers.
#include "route/plugin_field.h"

namespace baton::route {
namespace {

constexpr std::string_view kMoved = "has moved to approx-prefix-cache-producer; one is made with it";
constexpr std::string_view kOneIndex = "producer of the prefix knowledge";
constexpr std::string_view kNoClusters = "remote clusters are not known here";

constexpr Field kPrefixFields[] = {
    field<&PrefixScorerParams::length_weight>(
        "matchLengthWeight", "share of the score that follows the length of the match, not its share of the prompt", kShare),
    field<&PrefixScorerParams::length_scale_tokens>("matchLengthScaleTokens", "length that scores 1", {1, 1e12}),
    field<&PrefixScorerParams::producer>("prefixMatchInfoProducerName", kOneIndex),
    historic(kMoved, field<&PrefixScorerParams::hash_block_size>("hashBlockSize", "", kPositive)),
    historic(kMoved, field<&PrefixScorerParams::hash_block_size>("blockSize", "", kPositive)),
    historic(kMoved, field<&PrefixScorerParams::block_tokens>("blockSizeTokens", "", kPositive)),
    historic(kMoved, field<&PrefixScorerParams::blocks_max>("maxPrefixBlocksToMatch", "", kPositive)),
    historic(kMoved, field<&PrefixScorerParams::capacity>("lruCapacityPerServer", "", kPositive)),
    accepted("autoTune", kMoved),
    accepted("mode", "the kind of producer decides between approximate and precise prefix knowledge"),
};
constexpr Field kLoadAwareFields[] = {
    field<&LoadAwareParams::threshold>("threshold", "queue length that scores 0", kPositive),
};
constexpr Field kActiveFields[] = {
    field<&ActiveRequestParams::idle_threshold>("idleThreshold", "up to so many requests in flight score 1", kNatural),
    field<&ActiveRequestParams::busy_score_max>("maxBusyScore", "the most that a busier worker scores", kShare),
    accepted("requestTimeout", "requests in flight are counted until they end"),
};
constexpr Field kTokenLoadFields[] = {
    field<&TokenLoadParams::threshold_tokens>("queueThresholdTokens", "tokens in flight that score 0", kPositive),
};
constexpr Field kNoHitFields[] = {
    field<&NoHitLruParams::lru_size>("lruSize", "accepted; every endpoint is remembered", kPositive),
    field<&NoHitLruParams::producer>("prefixMatchInfoProducerName", kOneIndex),
    accepted("prefixPluginName", "there is one prefix index"),
    accepted("prefixPluginType", "there is one prefix index"),
};
constexpr Field kContextFields[] = {
    field<&LatencyScorerParams::ttft_weight>("ttftWeight", "share of TTFT headroom", kAmount),
    field<&LatencyScorerParams::tpot_weight>("tpotWeight", "share of TPOT headroom", kAmount),
    field<&LatencyScorerParams::strategy>("headroomSelectionStrategy", "prefer the least headroom that suffices, or the most", {},
                                          "least|most"),
    field<&LatencyScorerParams::kv_weight>("compositeKVWeight", "without predictions: share of free KV", kAmount),
    field<&LatencyScorerParams::queue_weight>("compositeQueueWeight", "without predictions: share of the short queue", kAmount),
    field<&LatencyScorerParams::prefix_weight>("compositePrefixWeight", "without predictions: share of the prefix match",
                                               kAmount),
};
constexpr Field kHeaderLabelFields[] = {
    field<&HeaderLabelParams::header>("headerName", "request header"),
    field<&HeaderLabelParams::label>("labelKey", "pod label that must have its value"),
};
constexpr Field kMediaFields[] = {
    field<&ReferenceParams::producer>("mmEmbeddingsCacheProducerName", "accepted; there is one"),
    field<&ReferenceParams::producer>("producerName", "accepted; there is one"),
};
constexpr std::string_view kGauges = "active-requests|running-requests|waiting-queue|kv-cache-utilization|inflight-tokens";
constexpr Field kAttributeFields[] = {
    field<&AttributeScorerParams::attribute>("attributeKey", "the number scored", {}, kGauges),
    field<&AttributeScorerParams::producer>("producer", "accepted; there is one source of each number"),
    one_of("linear_lower_is_better|linear_higher_is_better",
           field<&AttributeScorerParams::higher_is_better>("algorithm", "which end scores 1")),
    ours(field<&AttributeScorerParams::min>("fixedRange.min", "one end; none = the candidates' own range")),
    ours(field<&AttributeScorerParams::max>("fixedRange.max", "the other")),
    quiet("adaptiveRange"),
};

constexpr PluginRow kRows[] = {
    {.type = "queue-scorer", .kinds = kScorer, .summary = "shortest queue", .score = score_queue},
    {.type = "running-requests-size-scorer", .kinds = kScorer, .summary = "fewest running requests", .score = score_running},
    {.type = "kv-cache-utilization-scorer", .kinds = kScorer, .summary = "emptiest KV cache", .score = score_kv_usage},
    {.type = "kv-cache-scorer", .kinds = kScorer, .stability = Stability::kDeprecated, .same_as = "kv-cache-utilization-scorer"},
    {.type = "load-aware-scorer",
     .kinds = kScorer,
     .summary = "half a point for an empty queue",
     .make = make<LoadAwareParams>,
     .fields = kLoadAwareFields,
     .score = score_load_aware},
    {.type = "prefix-cache-scorer",
     .kinds = kScorer,
     .summary = "longest cached prefix",
     .make = make<PrefixScorerParams>,
     .fields = kPrefixFields,
     .score = score_prefix},
    {.type = "active-request-scorer",
     .kinds = kScorer,
     .summary = "fewest requests in flight",
     .make = make<ActiveRequestParams>,
     .fields = kActiveFields,
     .score = score_active},
    {.type = "token-load-scorer",
     .kinds = kScorer,
     .summary = "fewest tokens in flight, this prompt's uncached ones included",
     .make = make<TokenLoadParams>,
     .fields = kTokenLoadFields,
     .score = score_token_load},
    {.type = "lora-affinity-scorer",
     .kinds = kScorer,
     .summary = "workers that have the adapter loaded, or room for it",
     .score = score_lora},
    {.type = "no-hit-lru-scorer",
     .kinds = kScorer,
     .summary = "for prompts nobody holds: who got such a one the longest ago",
     .make = make<NoHitLruParams>,
     .fields = kNoHitFields,
     .score = score_no_hit_lru},
    {.type = "latency-scorer",
     .kinds = kScorer,
     .summary = "predicted headroom to the SLOs",
     .make = make<LatencyScorerParams>,
     .fields = kContextFields,
     .score = score_latency},
    {.type = "session-affinity-scorer",
     .kinds = kScorer,
     .stability = Stability::kAlpha,
     .summary = "the session's worker",
     .make = make<SessionScorerParams>,
     .fields = kSessionFields,
     .score = score_session},
    {.type = "header-label-affinity-scorer",
     .kinds = kScorer,
     .stability = Stability::kAlpha,
     .summary = "workers whose label has a header's value",
     .make = make<HeaderLabelParams>,
     .fields = kHeaderLabelFields,
     .score = score_header_label},
    {.type = "mm-embeddings-cache-scorer",
     .kinds = kScorer,
     .summary = "workers that hold the request's media encoded",
     .make = make<ReferenceParams>,
     .fields = kMediaFields,
     .score = score_media},
    {.type = "topology-affinity-scorer",
     .kinds = kScorer,
     .stability = Stability::kAlpha,
     .summary = "nearness to the other stage's worker",
     .score = score_topology},
    {.type = "endpoint-attribute-scorer",
     .kinds = kScorer,
     .stability = Stability::kAlpha,
     .summary = "one of a worker's numbers, linearly",
     .make = make<AttributeScorerParams>,
     .fields = kAttributeFields,
     .score = score_attribute},
    {.type = "multicluster-queue-scorer", .kinds = kScorer, .stability = Stability::kAlpha, .ignored = kNoClusters},
    {.type = "multicluster-kv-cache-utilization-scorer",
     .kinds = kScorer,
     .stability = Stability::kAlpha,
     .ignored = kNoClusters},
    {.type = "multicluster-prefix-cache-scorer", .kinds = kScorer, .stability = Stability::kAlpha, .ignored = kNoClusters},
};

}  // namespace

std::span<const PluginRow> scorer_rows() { return kRows; }

}  // namespace baton::route
