#include "route/pair.h"

#include <algorithm>
#include <limits>

#include "route/estimate.h"
#include "route/stage.h"

namespace baton::route {
namespace {

struct Part {
  double cost = 0;
  uint64_t tie = 0;
  uint16_t i = 0;
  auto operator<=>(const Part&) const = default;
};

struct Parts {
  std::array<Part, kEndpointsMax> part;
  size_t count = 0;
  std::span<const Part> all() const { return {part.data(), count}; }
};

template <class CostOf>
void fill(const Scene& s, const ProfileSpec& profile, const PairParams& p, const Candidates& c, Parts& out, CostOf cost_of) {
  std::array<float, kEndpointsMax> total;
  if (p.score_weight > 0) add_scores(s, profile, c.all(), total);
  for (size_t k = 0; k < c.count; ++k) {
    const double bonus = p.score_weight > 0 ? p.score_weight * static_cast<double>(total[k]) : 0;
    out.part[k] = {cost_of(c.index[k]) - bonus, s.prng.next(), c.index[k]};
  }
  out.count = c.count;
  std::sort(out.part.begin(), out.part.begin() + static_cast<std::ptrdiff_t>(c.count));
}

struct Best {
  double cost = std::numeric_limits<double>::infinity();
  int prefill = -1, decode = -1;
};

// The cheapest pair of two different workers. own_transfer: what of the hand-over is sure, whoever prefills.
Best search(const Scene& s, const PairParams& p, const Parts& prefill, const Parts& decode) {
  Best best;
  for (const Part& d : decode.all()) {
    const double floor = p.ttft_weight * transfer_floor_ms(s, d.i);
    if (d.cost + prefill.part[0].cost + floor >= best.cost) break;
    for (const Part& f : prefill.all()) {
      if (d.cost + f.cost + floor >= best.cost) break;
      if (f.i == d.i) continue;
      const double cost = d.cost + f.cost + p.ttft_weight * transfer_ms(s, f.i, d.i, 0);
      if (cost < best.cost) best = {cost, f.i, d.i};
    }
  }
  return best;
}

// The chosen one first, then the others by their own part: what a retry tries next.
void fill_stage(const Scene& s, const ProfileSpec& profile, const Parts& parts, int chosen, StageResult& out) {
  out.ranked.index[0] = static_cast<uint16_t>(chosen);
  out.ranked.count = 1;
  for (const Part& part : parts.all()) {
    if (out.ranked.count == kRankedMax) break;
    if (part.i != chosen) out.ranked.index[static_cast<size_t>(out.ranked.count++)] = part.i;
  }
  out.listed = std::min(profile.listed, out.ranked.count);
  out.cached_tokens = s.cached_tokens(static_cast<size_t>(chosen));
}

}  // namespace

Result<> choose_pair(Scene& s, const Plan::Policy& policy, const PairParams& p, std::span<float> scores, Verdict& v) {
  const ProfileSpec& decode_profile = policy.profiles[static_cast<size_t>(policy.decode)];
  const ProfileSpec& prefill_profile = policy.profiles[static_cast<size_t>(policy.prefill)];
  v.profile = decode_profile.name;
  Candidates decoders = usable_without(s, -1), prefillers = usable_without(s, -1);
  const bool role_missing = apply_filters(s, decode_profile, false, decoders);
  apply_filters(s, prefill_profile, false, prefillers);
  bool serves_all = false;
  if (decoders.count == 0 && role_missing && p.missing == Missing::kServe) {
    decoders = usable_without(s, -1);
    decoders.keep_if([&](uint16_t i) { return decodes(s.endpoint(i).role) || prefills(s.endpoint(i).role); });
    serves_all = true;
  }
  if (decoders.count == 0) return fail(Code::kResourceExhausted, "failed to find available decode workers");

  Parts local, decode, prefill;
  fill(s, decode_profile, p, decoders, local, [&](uint16_t i) {
    const Estimate e = estimate_local(s, i, p.harm_weight);
    return p.ttft_weight * e.ttft_ms + p.harm_weight * e.harm_ms;
  });
  if (!scores.empty()) {
    for (const Part& part : local.all()) scores[part.i] = static_cast<float>(1e3 / (1e3 + std::max(0.0, part.cost)));
  }
  const Part alone = local.part[0];
  v.primary.score = static_cast<float>(alone.cost);
  Best best;
  const bool may_remote = s.inquiry.remote_prefill_allowed && prefillers.count > 0 && !serves_all;
  if (may_remote) {
    fill(s, decode_profile, p, decoders, decode,
         [&](uint16_t i) { return p.ttft_weight * decode_ms(s, i) + p.harm_weight * stream_harm_ms(s, i); });
    fill(s, prefill_profile, p, prefillers, prefill, [&](uint16_t i) { return p.ttft_weight * prefill_ms(s, i, 0); });
    best = search(s, p, prefill, decode);
  }
  const bool local_allowed = p.local || best.decode < 0;
  if (best.decode < 0 || (local_allowed && alone.cost <= best.cost + p.local_bonus_ms)) {
    fill_stage(s, decode_profile, local, alone.i, v.primary);
    v.why = serves_all                           ? Why::kPrefillServesAll
            : !s.inquiry.remote_prefill_allowed  ? Why::kNotAllowed
            : best.decode >= 0                   ? Why::kCheaperLocal
            : prefills(s.endpoint(alone.i).role) ? Why::kDecodeServesBoth
                                                 : Why::kNoPrefillEndpoint;
    v.estimated_ttft_ms = estimate_local(s, alone.i, 0).ttft_ms;
    return {};
  }
  fill_stage(s, decode_profile, decode, best.decode, v.primary);
  fill_stage(s, prefill_profile, prefill, best.prefill, v.prefill);
  v.primary.score = v.prefill.score = static_cast<float>(best.cost);
  v.why = Why::kRemotePrefill;
  v.estimated_ttft_ms = estimate_remote(s, best.prefill, best.decode, 0).ttft_ms;
  return {};
}

}  // namespace baton::route
