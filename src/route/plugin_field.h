#pragma once
// field<&Struct::member>(...): one parameter of a plugin row, its type deduced from the member. A path of members reaches into
// nested structs: field<&PairParams::cost, &CostParams::link, &cost::LinkCost::latency_us>("linkLatencyUs", "...").
#include <type_traits>

#include "route/plugins.h"

namespace baton::route {

struct FieldRange {
  double min = -1e18, max = 1e18;
};

namespace detail {
template <class T>
struct Member;
template <class C, class T>
struct Member<T C::*> {
  using Class = C;
  using Type = T;
};
template <auto M>
using ClassOf = typename Member<decltype(M)>::Class;

template <class T>
auto& follow(T& x) {
  return x;
}
template <auto First, auto... Rest, class T>
auto& follow(T& x) {
  if constexpr (sizeof...(Rest) == 0) {
    return x.*First;
  } else {
    return follow<Rest...>(x.*First);
  }
}

template <class T>
consteval Field::Type type_of() {
  using enum Field::Type;
  if constexpr (std::is_same_v<T, bool>) return kBool;
  if constexpr (std::is_same_v<T, int64_t>) return kInt;
  if constexpr (std::is_same_v<T, double>) return kNumber;
  if constexpr (std::is_same_v<T, std::string>) return kText;
  if constexpr (std::is_same_v<T, std::vector<std::string>>) return kTexts;
  if constexpr (std::is_enum_v<T>) {
    static_assert(sizeof(T) == 1);
    return kChoice;
  }
  if constexpr (std::is_same_v<T, std::vector<std::pair<std::string, std::string>>>) return kLabels;
  if constexpr (std::is_same_v<T, std::vector<std::pair<std::string, double>>>) return kShares;
  if constexpr (std::is_same_v<T, std::vector<std::pair<std::string, float>>>) return kTiers;
  if constexpr (std::is_same_v<T, std::vector<LabelExpression>>) return kExpressions;
  if constexpr (std::is_same_v<T, std::vector<GaugeLimit>>) return kLimits;
  if constexpr (std::is_same_v<T, std::vector<SourceParams::Engine>>) return kEngines;
  return kAny;
}
}  // namespace detail

template <auto First, auto... Rest>
constexpr Field field(std::string_view name, std::string_view help, FieldRange range = {}, std::string_view choices = {}) {
  using T = std::remove_reference_t<decltype(detail::follow<First, Rest...>(std::declval<detail::ClassOf<First>&>()))>;
  constexpr Field::Type kType = detail::type_of<T>();
  static_assert(kType != Field::Type::kAny);
  return {.name = name,
          .type = kType,
          .at = [](Params& p) -> void* { return &detail::follow<First, Rest...>(std::get<detail::ClassOf<First>>(p)); },
          .help = help,
          .min = range.min,
          .max = range.max,
          .choices = choices};
}

constexpr Field as(Field::Type type, Field f) {  // a duration or a number of seconds kept in an int64_t of ms
  f.type = type;
  return f;
}
constexpr Field historic(std::string_view warning, Field f) {
  f.historic = warning;
  return f;
}
constexpr Field ours(Field f) {
  f.ours = true;
  return f;
}
constexpr Field one_of(std::string_view choices, Field f) {  // an enum, or a bool spelled as "false word|true word"
  f.type = Field::Type::kChoice;
  f.choices = choices;
  return f;
}
constexpr Field quiet(std::string_view name) { return {.name = name}; }      // any value, not kept, no warning
constexpr Field accepted(std::string_view name, std::string_view warning) {  // any value, not kept
  return {.name = name, .type = Field::Type::kAny, .historic = warning};
}

template <class P>
Params make() {
  return P{};
}

inline constexpr FieldRange kNatural{0, 9e15}, kPositive{1, 9e15}, kShare{0, 1}, kPort{0, 65'535}, kAmount{0, 1e15};

// session-affinity-filter and session-affinity-scorer bind the same session.
inline constexpr Field kSessionFields[] = {
    field<&SessionScorerParams::strategy>("strategy", "what names the session", {}, "encoded_endpoint_header|session_id"),
    as(Field::Type::kSources,
       field<&SessionScorerParams::headers>("session_id.sources", "list of {header}, the first one that a request has")),
    as(Field::Type::kSeconds,
       field<&SessionScorerParams::ttl_ms>("session_id.evictionTtlSeconds", "a session unused so long is forgotten", kPositive)),
    as(Field::Type::kSeconds, field<&SessionScorerParams::sweep_ms>("session_id.evictionSweepSeconds", "accepted", kPositive)),
    field<&SessionScorerParams::profile>("profileName", "accepted; the session is bound to the decode worker"),
};

// Functions of the rows.
void filter_decode(const Scene&, const Params&, Candidates&);
void filter_prefill(const Scene&, const Params&, Candidates&);
void filter_encode(const Scene&, const Params&, Candidates&);
void filter_by_label(const Scene&, const Params&, Candidates&);
void filter_selector(const Scene&, const Params&, Candidates&);
void filter_prefix_affinity(const Scene&, const Params&, Candidates&);
void filter_slo_tier(const Scene&, const Params&, Candidates&);
void filter_context_length(const Scene&, const Params&, Candidates&);
void filter_utilization(const Scene&, const Params&, Candidates&);
void filter_topology(const Scene&, const Params&, Candidates&);
void filter_attribute(const Scene&, const Params&, Candidates&);
void filter_session(const Scene&, const Params&, Candidates&);
void filter_detector(const Scene&, const Params&, Candidates&);
void filter_testing_header(const Scene&, const Params&, Candidates&);

using Scores = std::span<float>;
using Picked = std::span<const uint16_t>;
void score_queue(const Scene&, const Params&, Picked, Scores);
void score_running(const Scene&, const Params&, Picked, Scores);
void score_kv_usage(const Scene&, const Params&, Picked, Scores);
void score_load_aware(const Scene&, const Params&, Picked, Scores);
void score_prefix(const Scene&, const Params&, Picked, Scores);
void score_active(const Scene&, const Params&, Picked, Scores);
void score_token_load(const Scene&, const Params&, Picked, Scores);
void score_lora(const Scene&, const Params&, Picked, Scores);
void score_no_hit_lru(const Scene&, const Params&, Picked, Scores);
void score_context_length(const Scene&, const Params&, Picked, Scores);
void score_latency(const Scene&, const Params&, Picked, Scores);
void score_session(const Scene&, const Params&, Picked, Scores);
void score_header_label(const Scene&, const Params&, Picked, Scores);
void score_media(const Scene&, const Params&, Picked, Scores);
void score_topology(const Scene&, const Params&, Picked, Scores);
void score_attribute(const Scene&, const Params&, Picked, Scores);

bool decide_always(const Scene&, const Params&, int, Verdict&);
bool decide_prefix_based(const Scene&, const Params&, int, Verdict&);
bool decide_multimodal(const Scene&, const Params&, int, Verdict&);
bool decide_cost(const Scene&, const Params&, int, Verdict&);

Result<> admit_latency_slo(const Scene&, const Params&);
Result<> admit_probabilistic(const Scene&, const Params&);

}  // namespace baton::route
