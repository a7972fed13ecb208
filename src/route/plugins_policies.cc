// Rows: flow control. And the joined table.
#include <algorithm>
#include <vector>

#include "route/plugin_field.h"

namespace baton::route {
namespace {

constexpr Field kProgramFields[] = {
    field<&ProgramAwareParams::weight_service>("lasWeightService", "weight of little attained service", kAmount),
    field<&ProgramAwareParams::weight_head_wait>("lasWeightHeadWait", "weight of the head's waiting", kAmount),
    field<&ProgramAwareParams::half_life_s>("lasHalfLifeSeconds", "service is forgotten by half in this time", {1e-3, 1e9}),
};
constexpr Field kTokenFields[] = {
    field<&TokenWeightedParams::weights>("weights", "share of a fairness id; 1 where not named", {1e-6, 1e9}),
    field<&TokenWeightedParams::output_token_weight>("outputTokenWeight", "input tokens that an output token counts as", kAmount),
};
constexpr Field kStaticFields[] = {
    field<&StaticCeilingParams::threshold>("threshold", "saturation up to which requests go out", {0, 1e6}),
};
constexpr Field kHoldbackFields[] = {
    ours(field<&HoldbackParams::min>("minCeiling", "ceiling of the lowest band; required", {0, 1e6})),
    field<&HoldbackParams::max>("maxCeiling", "ceiling of the highest band", {0, 1e6}),
    field<&HoldbackParams::domain>("domain", "how bands between them are spread", {}, "rank|value"),
};

constexpr PluginRow kRows[] = {
    {.type = "global-strict-fairness-policy", .kinds = kFairness, .summary = "the best head of all flows"},
    {.type = "round-robin-fairness-policy", .kinds = kFairness, .summary = "flows in turn"},
    {.type = "program-aware-fairness",
     .kinds = kFairness,
     .summary = "least attained service, tempered by waiting",
     .make = make<ProgramAwareParams>,
     .fields = kProgramFields},
    {.type = "baton-token-weighted-fairness-policy",
     .kinds = kFairness,
     .stability = Stability::kOurs,
     .summary = "tokens served a tenant, in proportion to its weight",
     .make = make<TokenWeightedParams>,
     .fields = kTokenFields},
    {.type = "fcfs-ordering-policy", .kinds = kOrdering, .summary = "in order of arrival"},
    {.type = "edf-ordering-policy", .kinds = kOrdering, .summary = "the one that expires first"},
    {.type = "slo-deadline-ordering-policy", .kinds = kOrdering, .summary = "the one whose TTFT objective ends first"},
    {.type = "static-usage-limit-policy",
     .kinds = kCeiling,
     .summary = "one ceiling for all bands",
     .make = make<StaticCeilingParams>,
     .fields = kStaticFields},
    {.type = "priority-holdback-policy",
     .kinds = kCeiling,
     .stability = Stability::kAlpha,
     .summary = "lower ceilings for lower bands",
     .make = make<HoldbackParams>,
     .fields = kHoldbackFields},
    {.type = "soft-reflective-ceiling-policy",
     .kinds = kCeiling,
     .stability = Stability::kAlpha,
     .summary = "lower bands are let through less often as the pool fills"},
    {.type = "sheddable-eviction-filter",
     .kinds = kOther,
     .stability = Stability::kAlpha,
     .ignored = "with enableEviction requests of negative priority are what is evicted"},
    {.type = "priority-then-time-eviction-order-policy",
     .kinds = kOther,
     .stability = Stability::kAlpha,
     .ignored = "with enableEviction the lowest priority goes first, the newest of it"},
};

std::vector<const PluginRow*> join_rows() {
  std::vector<const PluginRow*> out;
  for (auto rows : {handler_rows(), filter_rows(), scorer_rows(), producer_rows(), policy_rows()}) {
    for (const PluginRow& row : rows) out.push_back(&row);
  }
  std::ranges::sort(out, {}, &PluginRow::type);
  return out;
}

}  // namespace

std::span<const PluginRow> policy_rows() { return kRows; }

std::span<const PluginRow* const> plugin_rows() {
  static const std::vector<const PluginRow*> kJoined = join_rows();
  return kJoined;
}

const PluginRow* find_plugin(std::string_view type) {
  const auto rows = plugin_rows();
  const auto at = std::ranges::lower_bound(rows, type, {}, [](const PluginRow* row) { return row->type; });
  return at != rows.end() && (*at)->type == type ? *at : nullptr;
}

}  // namespace baton::route
