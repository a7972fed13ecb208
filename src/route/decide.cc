#include "route/decide.h"

#include <algorithm>
#include <cmath>

#include "route/pair.h"
#include "route/plugins.h"
#include "route/stage.h"

namespace baton::route {
namespace {

bool serves(const Endpoint& endpoint, std::string_view model) {
  return model.empty() || endpoint.models.empty() || std::ranges::find(endpoint.models, model) != endpoint.models.end();
}

// A subset entry is "ip:port" or "ip", v6 with or without brackets; llm-d compares the host alone.
std::string_view host_of(std::string_view entry) {
  const size_t colon = entry.rfind(':');
  const bool bare_v6 = colon != std::string_view::npos && entry.find(':') != colon && !entry.starts_with('[');
  if (colon != std::string_view::npos && !bare_v6 && !entry.ends_with(']')) entry = entry.substr(0, colon);
  if (entry.starts_with('[') && entry.ends_with(']')) entry = entry.substr(1, entry.size() - 2);
  return entry;
}

bool in_subset(const Endpoint& endpoint, const Inquiry& inquiry) {
  return !inquiry.subset_given ||
         std::ranges::any_of(inquiry.subset, [&](std::string_view e) { return host_of(e) == endpoint.host; });
}

void usable_endpoints(const Snapshot& snapshot, const Inquiry& inquiry, Candidates& out) {
  const size_t n = std::min<size_t>(snapshot.endpoints.size(), kEndpointsMax);
  for (size_t i = 0; i < n; ++i) {
    const Endpoint& e = snapshot.endpoints[i];
    if (snapshot.loads[i].healthy && !inquiry.excluded[i] && serves(e, inquiry.model) && in_subset(e, inquiry)) out.add(i);
  }
}

std::unexpected<Error> nothing_usable(const Snapshot& snapshot, const Inquiry& inquiry) {
  const bool known = std::ranges::any_of(snapshot.endpoints, [&](const Endpoint& e) { return serves(e, inquiry.model); });
  if (!known && !snapshot.endpoints.empty()) return fail(Code::kNotFound, "The model `", inquiry.model, "` does not exist.");
  return fail(Code::kUnavailable, "no ready endpoint serves the model");
}

// `Prefer: if-available`: only if the chosen decode worker holds some of the prompt.
bool wants_cache_only(const Inquiry& inquiry) {
  return std::ranges::any_of(inquiry.headers, [](const auto& h) {
    return h.first == "prefer" && h.second.find("if-available") != std::string_view::npos;
  });
}

// A prefill worker is wanted: is there one that is better than the decode worker itself?
void remote_prefill(const Scene& s, const Plan::Policy& policy, int decode, Verdict& v) {
  const ProfileSpec& profile = policy.profiles[static_cast<size_t>(policy.prefill)];
  Candidates c = usable_without(s, decode);
  apply_filters(s, profile, false, c);
  if (c.count == 0) {
    v.why = prefills(s.endpoint(static_cast<size_t>(decode)).role) ? Why::kDecodeServesBoth : Why::kNoPrefillEndpoint;
    return;
  }
  if (only_repeats_decode(s, profile, decode, c)) {
    v.why = Why::kDecodeServesBoth;
    return;
  }
  v.prefill = rank(s, profile, c, {});
  if (v.why != Why::kSplit) v.why = Why::kRemotePrefill;
}

bool wants_stage(const Scene& s, const Plan::Policy& policy, int plugin, int decode, Verdict& v) {
  const PluginSpec& decider = policy.plugins[static_cast<size_t>(plugin)];
  const bool yes = decider.row->decider(s, decider.params, decode, v);
  if (s.steps != nullptr) s.steps->done(Point::kDecider, plugin);
  return yes;
}

// The decode stage; where its role is missing, anybody who can serve does, unless the plan says 429.
bool decode_stage(Scene& s, const ProfileSpec& profile, Missing missing, int without, std::span<float> scores, Verdict& v) {
  Candidates c = usable_without(s, without);
  const bool role_missing = apply_filters(s, profile, false, c);
  if (c.count == 0 && role_missing && missing == Missing::kServe) {
    c = usable_without(s, -1);
    c.keep_if([&](uint16_t i) { return decodes(s.endpoint(i).role) || prefills(s.endpoint(i).role); });
    apply_filters(s, profile, true, c);
    v.why = Why::kPrefillServesAll;
  }
  if (c.count == 0) return false;
  v.primary = rank(s, profile, c, scores);
  return true;
}

std::unexpected<Error> no_decode() { return fail(Code::kResourceExhausted, "failed to find available decode workers"); }

void encode_stage(Scene& s, const Plan::Policy& policy, Verdict& v) {
  if (policy.encode_decider < 0 || policy.encode < 0) return;
  const int decode = v.primary.ranked.index[0];
  Verdict scratch;  // what the encode decider thinks of prefill is nobody's business
  if (!wants_stage(s, policy, policy.encode_decider, decode, scratch)) return;
  const ProfileSpec& profile = policy.profiles[static_cast<size_t>(policy.encode)];
  Candidates c = usable_without(s, -1);
  apply_filters(s, profile, false, c);
  if (c.count > 0) v.encode = rank(s, profile, c, {});
}

Result<> decode_first(Scene& s, const Plan::Policy& policy, const DisaggParams& p, std::span<float> scores, Verdict& v) {
  const ProfileSpec& profile = policy.profiles[static_cast<size_t>(policy.decode)];
  v.profile = profile.name;
  if (!decode_stage(s, profile, p.missing, -1, scores, v)) return no_decode();
  if (v.why == Why::kPrefillServesAll) return {};
  const int decode = v.primary.ranked.index[0];
  s.peer = decode;
  encode_stage(s, policy, v);
  if (policy.prefill_decider < 0 || policy.prefill < 0) return v.why = Why::kDeciderNever, Result<>();
  if (!s.inquiry.remote_prefill_allowed) return v.why = Why::kNotAllowed, Result<>();
  v.why = Why::kDeciderNever;
  if (!wants_stage(s, policy, policy.prefill_decider, decode, v)) return {};
  v.why = v.decode_tail_tokens > 0 ? Why::kSplit : Why::kRemotePrefill;
  remote_prefill(s, policy, decode, v);
  return {};
}

Result<> prefill_first(Scene& s, const Plan::Policy& policy, const DisaggParams& p, std::span<float> scores, Verdict& v) {
  const ProfileSpec& profile = policy.profiles[static_cast<size_t>(policy.decode)];
  v.profile = profile.name;
  v.why = Why::kNotAllowed;
  if (s.inquiry.remote_prefill_allowed) {
    const ProfileSpec& first = policy.profiles[static_cast<size_t>(policy.prefill)];
    Candidates c = usable_without(s, -1);
    apply_filters(s, first, false, c);
    const bool dedicated = std::ranges::any_of(c.all(), [&](uint16_t i) { return !decodes(s.endpoint(i).role); });
    v.why = c.count == 0 ? Why::kNoPrefillEndpoint : Why::kDecodeServesBoth;
    if (c.count > 0 && (dedicated || !only_role_filters(first))) {
      v.prefill = rank(s, first, c, {});
      v.why = Why::kRemotePrefill;
      s.peer = v.prefill.ranked.index[0];
    }
  }
  const Why why = v.why;
  if (!decode_stage(s, profile, p.missing, s.peer, scores, v)) return no_decode();
  if (v.why == Why::kPrefillServesAll) return v.prefill = {}, Result<>();
  v.why = why;
  encode_stage(s, policy, v);
  return {};
}

Result<> one_profile(Scene& s, const ProfileSpec& profile, std::span<float> scores, Verdict& v) {
  v.profile = profile.name;
  if (!decode_stage(s, profile, Missing::kServe, -1, scores, v))
    return fail(Code::kResourceExhausted, "no endpoint passed the filters");
  if (v.why != Why::kPrefillServesAll) v.why = Why::kSingle;
  return {};
}

const ProfileSpec& profile_by_header(const Scene& s, const Plan::Policy& policy, const HeaderProfileParams& p) {
  char name[64];  // header names come in lower case
  const size_t n = std::min(p.header.size(), sizeof name);
  std::transform(p.header.begin(), p.header.begin() + static_cast<std::ptrdiff_t>(n), name,
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  const std::string_view wanted = s.header({name, n});
  for (const ProfileSpec& profile : policy.profiles) {
    if (!wanted.empty() && profile.name == wanted) return profile;
  }
  return policy.profiles[static_cast<size_t>(policy.decode)];
}

Result<> run_handler(Scene& s, const Plan::Policy& policy, std::span<float> scores, Verdict& v) {
  const PluginSpec& handler = policy.plugins[static_cast<size_t>(policy.handler)];
  const ProfileSpec& first = policy.profiles[static_cast<size_t>(policy.decode)];
  switch (handler.row->handler) {
    case HandlerKind::kDisagg: {
      const auto& p = std::get<DisaggParams>(handler.params);
      BATON_OK(p.order == StageOrder::kDecodeFirst ? decode_first(s, policy, p, scores, v)
                                                   : prefill_first(s, policy, p, scores, v));
      v.destination_port = static_cast<int>(p.primary_port);
      return {};
    }
    case HandlerKind::kDataParallel:
      BATON_OK(one_profile(s, first, scores, v));
      v.destination_port = static_cast<int>(std::get<DataParallelParams>(handler.params).primary_port);
      return {};
    case HandlerKind::kHeader:
      return one_profile(s, profile_by_header(s, policy, std::get<HeaderProfileParams>(handler.params)), scores, v);
    case HandlerKind::kPair:
      return choose_pair(s, policy, std::get<PairParams>(handler.params), scores, v);
    case HandlerKind::kSingle:
    case HandlerKind::kNone:
      break;
  }
  return one_profile(s, first, scores, v);
}

}  // namespace

Candidates usable_without(const Scene& s, int without) {
  Candidates out;
  for (uint16_t i : s.usable) {
    if (i != without) out.add(i);
  }
  return out;
}

bool apply_filters(const Scene& s, const ProfileSpec& profile, bool skip_roles, Candidates& c) {
  bool role_missing = c.count == 0;
  for (const ProfileSpec::FilterStep& step : profile.filters) {
    if (c.count == 0) break;
    if (step.role && skip_roles) continue;
    step.filter(s, *step.params, c);
    if (s.steps != nullptr) s.steps->done(Point::kFilter, step.plugin, s.place_of(profile), c.count);
    role_missing |= step.role && c.count == 0;
  }
  return role_missing;
}

bool only_role_filters(const ProfileSpec& profile) {
  return std::ranges::all_of(profile.filters, [](const ProfileSpec::FilterStep& f) { return f.role; });
}

bool only_repeats_decode(const Scene& s, const ProfileSpec& profile, int decode, const Candidates& c) {
  // An aggregated worker prefills for itself; sending its prompt to another aggregated worker would only add a hand-over. Filters
  // on anything but roles mean that the operator has another notion of who prefills.
  if (!prefills(s.endpoint(static_cast<size_t>(decode)).role) || !only_role_filters(profile)) return false;
  return std::ranges::all_of(c.all(), [&](uint16_t i) { return decodes(s.endpoint(i).role); });
}

void add_scores(const Scene& s, const ProfileSpec& profile, std::span<const uint16_t> candidates, std::span<float> total) {
  std::array<float, kEndpointsMax> part;
  const size_t n = candidates.size();
  std::fill_n(total.begin(), n, 0.0f);
  for (const ProfileSpec::ScorePart& row : profile.scorers) {
    row.score(s, *row.params, candidates, std::span(part).first(n));
    if (s.steps != nullptr) s.steps->done(Point::kScorer, row.plugin, s.place_of(profile), n);
    for (size_t k = 0; k < n; ++k) {
      const float x = part[k];
      total[k] += row.weight * (x > 0 ? std::min(x, 1.0f) : 0.0f);  // NaN counts as 0
    }
  }
}

StageResult rank(const Scene& s, const ProfileSpec& profile, const Candidates& c, std::span<float> scores) {
  std::array<float, kEndpointsMax> total;
  add_scores(s, profile, c.all(), total);
  struct Key {
    float key;
    uint64_t tie;
    uint16_t k;
    bool operator>(const Key& o) const { return key != o.key ? key > o.key : tie > o.tie; }
  };
  std::array<Key, kRankedMax + 1> best;
  size_t n = 0;
  for (size_t k = 0; k < c.count; ++k) {
    Key key{total[k], s.prng.next(), static_cast<uint16_t>(k)};
    if (profile.picker == PickerKind::kRandom) key.key = 0;
    // Efraimidis and Spirakis, A-Res: U^(1/w), here as log(U)/w, which is never 0/0.
    if (profile.picker == PickerKind::kWeightedRandom) {
      key.key = total[k] <= 0 ? -INFINITY : static_cast<float>(std::log(s.prng.uniform() + 1e-300)) / total[k];
    }
    if (n == kRankedMax && !(key > best[n - 1])) continue;
    size_t at = n;
    for (; at > 0 && key > best[at - 1]; --at) best[at] = best[at - 1];
    best[at] = key;
    n = std::min<size_t>(n + 1, kRankedMax);
  }
  if (!scores.empty()) {
    for (size_t k = 0; k < c.count; ++k) scores[c.index[k]] = total[k];
  }
  StageResult out;
  for (size_t j = 0; j < n; ++j) out.ranked.index[j] = c.index[best[j].k];
  out.ranked.count = static_cast<int>(n);
  out.listed = std::min(profile.listed, out.ranked.count);
  if (n > 0) {
    out.score = total[best[0].k];
    out.cached_tokens = s.cached_tokens(out.ranked.index[0]);
  }
  if (s.steps != nullptr) s.steps->done(Point::kPicker, profile.picker_plugin, s.place_of(profile), c.count);
  return out;
}

Result<Verdict> decide(const Snapshot& snapshot, const Inquiry& inquiry, const Plan& plan, Prng& prng, std::span<float> scores,
                       StepLog* steps) {
  BATON_CHECK(snapshot.endpoints.size() == snapshot.loads.size() && plan.policy != nullptr);
  BATON_CHECK(scores.empty() || scores.size() >= snapshot.endpoints.size());
  const Plan::Policy& policy = *plan.policy;
  Candidates usable;
  usable_endpoints(snapshot, inquiry, usable);
  if (usable.count == 0) return nothing_usable(snapshot, inquiry);
  Scene scene{.snapshot = snapshot, .inquiry = inquiry, .plan = plan, .prng = prng, .usable = usable.all(), .steps = steps};
  for (int i : policy.admitters) {
    const PluginSpec& admitter = policy.plugins[static_cast<size_t>(i)];
    const auto admitted = admitter.row->admit(scene, admitter.params);
    if (steps != nullptr) steps->done(Point::kAdmission, i);
    BATON_OK(admitted);
  }
  std::ranges::fill(scores, -1.0f);
  Verdict verdict;
  const auto handled = run_handler(scene, policy, scores, verdict);
  if (steps != nullptr) steps->done(Point::kProfileHandler, policy.handler);
  BATON_OK(handled);
  if (plan.needs.cold_order) {
    verdict.cold = std::ranges::none_of(usable.all(), [&](uint16_t i) { return scene.matched(i) > 0; });
  }
  if (verdict.primary.cached_tokens == 0 && wants_cache_only(inquiry)) {
    return fail(Code::kFailedPrecondition, "no decode worker has the requested KV cache");
  }
  return verdict;
}

}  // namespace baton::route
