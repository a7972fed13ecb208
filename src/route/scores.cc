// The scorers' functions; their rows are in plugins_scorers.cc. A scorer writes a score in [0, 1] for every candidate; decide()
// clamps, multiplies by the weight and adds up. Numbers that are too old to believe score 0, as scorer.h says.
// Source: facts sheet "epp" 4.6.
#include <algorithm>
#include <cmath>
#include <limits>

#include "route/plugin_field.h"

namespace baton::route {
namespace {

// (max - v) / (max - min) over the fresh candidates; all equal = 1; stale = 0.
template <class ValueOf>
void least_is_best(const Scene& s, Picked candidates, Scores out, ValueOf value_of) {
  double lo = std::numeric_limits<double>::infinity(), hi = -lo;
  for (uint16_t i : candidates) {
    if (!s.fresh(i)) continue;
    const double v = value_of(s.load(i));
    lo = std::min(lo, v), hi = std::max(hi, v);
  }
  for (size_t k = 0; k < out.size(); ++k) {
    const bool fresh = s.fresh(candidates[k]);
    out[k] = !fresh ? 0.0f : hi == lo ? 1.0f : static_cast<float>((hi - value_of(s.load(candidates[k]))) / (hi - lo));
  }
}

double match_share(const Scene& s, size_t i) {
  return s.inquiry.blocks_total == 0 ? 0 : static_cast<double>(s.matched(i)) / static_cast<double>(s.inquiry.blocks_total);
}

double round_cent(double x) { return std::round(x * 100) / 100; }

struct Headrooms {
  double ttft = 0, tpot = 0;
  bool known = false;
};

Headrooms headroom(const Scene& s, size_t i) {
  const double ttft = s.ttft_ms(i), tpot = s.tpot_ms(i);
  if (ttft < 0 || tpot < 0) return {};
  return {s.inquiry.ttft_slo_ms * s.plan.slo_buffer - ttft, s.inquiry.tpot_slo_ms * s.plan.slo_buffer - tpot, true};
}

// Which group an endpoint is in; the lowest that has members is the one that is scored.
int tier(const Scene& s, size_t i, const Headrooms& h) {
  if (!h.known) return 5;
  if (h.ttft >= 0 && h.tpot >= 0) return 0;
  if (is_idle(s.load(i))) return 1;
  if (h.ttft >= 0) return 2;
  return h.tpot >= 0 ? 3 : 4;
}

void composite(const Scene& s, const LatencyScorerParams& p, Picked candidates, Scores out) {
  double queue_max = 0;
  for (uint16_t i : candidates) queue_max = std::max<double>(queue_max, effective_waiting(s.load(i)));
  const double weights = p.kv_weight + p.queue_weight + p.prefix_weight;
  for (size_t k = 0; k < out.size(); ++k) {
    const Load& l = s.load(candidates[k]);
    const double queue = queue_max > 0 ? (queue_max - effective_waiting(l)) / queue_max : 1;
    const double sum = p.kv_weight * (1 - l.kv_usage) + p.queue_weight * queue + p.prefix_weight * match_share(s, candidates[k]);
    out[k] = weights > 0 ? static_cast<float>(round_cent(sum / weights)) : 0.0f;
  }
}

struct Spread {
  double lo = std::numeric_limits<double>::infinity(), hi = -std::numeric_limits<double>::infinity();
  void add(double x) { lo = std::min(lo, x), hi = std::max(hi, x); }
  bool flat() const { return !(hi > lo); }
  double share(double x) const { return flat() ? 0.5 : (x - lo) / (hi - lo); }
};

}  // namespace

void score_queue(const Scene& s, const Params&, Picked candidates, Scores out) {
  least_is_best(s, candidates, out, effective_waiting);
}

void score_running(const Scene& s, const Params&, Picked candidates, Scores out) {
  least_is_best(s, candidates, out, [](const Load& load) { return load.running; });
}

void score_kv_usage(const Scene& s, const Params&, Picked candidates, Scores out) {
  for (size_t k = 0; k < out.size(); ++k) out[k] = s.fresh(candidates[k]) ? 1.0f - s.load(candidates[k]).kv_usage : 0.0f;
}

void score_load_aware(const Scene& s, const Params& params, Picked candidates, Scores out) {
  const auto threshold = static_cast<double>(std::get<LoadAwareParams>(params).threshold);
  for (size_t k = 0; k < out.size(); ++k) {
    const double waiting = std::min<double>(effective_waiting(s.load(candidates[k])), threshold);
    out[k] = s.fresh(candidates[k]) ? static_cast<float>(0.5 * (1 - waiting / threshold)) : 0.0f;
  }
}

void score_prefix(const Scene& s, const Params& params, Picked candidates, Scores out) {
  const auto* p = std::get_if<PrefixScorerParams>(&params);
  const double w = p != nullptr ? p->length_weight : 0, scale = p != nullptr ? p->length_scale_tokens : 1;
  for (size_t k = 0; k < out.size(); ++k) {
    const double share = match_share(s, candidates[k]);
    double score = share;
    if (w > 0 && s.inquiry.blocks_total > 0) {
      const double length = std::min(1.0, static_cast<double>(s.matched(candidates[k]) * s.inquiry.block_tokens) / scale);
      score = w * length * length + (1 - w) * share;
    }
    out[k] = static_cast<float>(score);
  }
}

// Our own counts, never stale: what spreads a burst that arrives between two scrapes.
void score_active(const Scene& s, const Params& params, Picked candidates, Scores out) {
  const auto& p = std::get<ActiveRequestParams>(params);
  int32_t most = 0;
  for (uint16_t i : candidates) most = std::max(most, s.load(i).inflight_requests);
  for (size_t k = 0; k < out.size(); ++k) {
    const int32_t n = s.load(candidates[k]).inflight_requests;
    out[k] = n <= p.idle_threshold ? 1.0f : static_cast<float>(p.busy_score_max * (most - n) / most);
  }
}

void score_token_load(const Scene& s, const Params& params, Picked candidates, Scores out) {
  const auto threshold = static_cast<double>(std::get<TokenLoadParams>(params).threshold_tokens);
  for (size_t k = 0; k < out.size(); ++k) {
    const auto tokens = static_cast<double>(s.load(candidates[k]).inflight_tokens + s.uncached_tokens(candidates[k]));
    out[k] = static_cast<float>(1 - std::min(tokens / threshold, 1.0));
  }
}

void score_lora(const Scene& s, const Params&, Picked candidates, Scores out) {
  const auto has = [&](std::span<const std::string> list) { return std::ranges::find(list, s.inquiry.model) != list.end(); };
  for (size_t k = 0; k < out.size(); ++k) {
    const Load& l = s.load(candidates[k]);
    const bool room = static_cast<int64_t>(l.lora_running.size() + l.lora_waiting.size()) < l.lora_max;
    out[k] = has(l.lora_running) ? 1.0f : room ? 0.8f : has(l.lora_waiting) ? 0.6f : 0.0f;
  }
}

void score_no_hit_lru(const Scene& s, const Params&, Picked candidates, Scores out) {
  if (candidates.size() == 1) {
    out[0] = 1;
    return;
  }
  if (std::ranges::any_of(candidates, [&](uint16_t i) { return s.matched(i) > 0; })) {
    std::ranges::fill(out, 0.5f);
    return;
  }
  const auto last = [&](uint16_t k) -> uint32_t {
    const auto slot = static_cast<size_t>(s.endpoint(candidates[k]).slot);
    return slot < s.inquiry.cold_order.size() ? s.inquiry.cold_order[slot] : 0;
  };
  std::array<uint16_t, kEndpointsMax> order;
  const size_t n = candidates.size();
  for (size_t k = 0; k < n; ++k) order[k] = static_cast<uint16_t>(k);
  std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n),
            [&](uint16_t a, uint16_t b) { return last(a) < last(b); });
  size_t rank = 0;  // equals share a rank, so that chance spreads those never used
  for (size_t j = 0; j < n; ++j) {
    if (j > 0 && last(order[j]) != last(order[j - 1])) rank = j;
    out[order[j]] = 1.0f - static_cast<float>(rank) / static_cast<float>(n - 1);
  }
}

void score_latency(const Scene& s, const Params& params, Picked candidates, Scores out) {
  const auto& p = std::get<LatencyScorerParams>(params);
  int best = 5;
  for (uint16_t i : candidates) best = std::min(best, tier(s, i, headroom(s, i)));
  if (best == 5) return composite(s, p, candidates, out);
  Spread ttft, tpot;
  for (uint16_t i : candidates) {
    const Headrooms h = headroom(s, i);
    if (tier(s, i, h) == best) ttft.add(std::abs(h.ttft)), tpot.add(std::abs(h.tpot));
  }
  const double a = ttft.flat() ? 0 : p.ttft_weight, b = tpot.flat() ? 0 : p.tpot_weight, sum = a + b;
  const bool least = best != 0 || p.strategy == Headroom::kLeast;
  for (size_t k = 0; k < out.size(); ++k) {
    const Headrooms h = headroom(s, candidates[k]);
    if (tier(s, candidates[k], h) != best) {
      out[k] = 0;
      continue;
    }
    const double c = sum > 0 ? (a * ttft.share(std::abs(h.ttft)) + b * tpot.share(std::abs(h.tpot))) / sum : 0.5;
    out[k] = static_cast<float>(std::min(1.0, (std::floor((least ? 1 - c : c) * 100) + 1) / 100));
  }
}

void score_session(const Scene& s, const Params&, Picked candidates, Scores out) {
  for (size_t k = 0; k < out.size(); ++k) {
    out[k] = s.inquiry.session_slot >= 0 && s.endpoint(candidates[k]).slot == s.inquiry.session_slot ? 1.0f : 0.0f;
  }
}

void score_header_label(const Scene& s, const Params& params, Picked candidates, Scores out) {
  const auto& p = std::get<HeaderLabelParams>(params);
  const std::string_view wanted = s.header(p.header);
  for (size_t k = 0; k < out.size(); ++k) {
    out[k] = !wanted.empty() && s.endpoint(candidates[k]).label(p.label) == wanted ? 1.0f : 0.0f;
  }
}

void score_media(const Scene& s, const Params&, Picked candidates, Scores out) {
  for (size_t k = 0; k < out.size(); ++k) {
    const auto slot = static_cast<size_t>(s.endpoint(candidates[k]).slot);
    const bool known = s.inquiry.media_total > 0 && slot < s.inquiry.media_matched.size();
    out[k] =
        known
            ? static_cast<float>(static_cast<double>(s.inquiry.media_matched[slot]) / static_cast<double>(s.inquiry.media_total))
            : 0.0f;
  }
}

void score_topology(const Scene& s, const Params&, Picked candidates, Scores out) {
  constexpr float kByNearness[] = {0, 0.02f, 0.05f, 0.2f, 1};
  for (size_t k = 0; k < out.size(); ++k) {
    out[k] = s.peer < 0 ? 0 : kByNearness[nearness(s.endpoint(candidates[k]), s.endpoint(static_cast<size_t>(s.peer)))];
  }
}

void score_attribute(const Scene& s, const Params& params, Picked candidates, Scores out) {
  const auto& p = std::get<AttributeScorerParams>(params);
  Spread spread;
  if (p.max > p.min) {
    spread.add(p.min), spread.add(p.max);
  } else {
    for (uint16_t i : candidates) {
      if (const double v = gauge_value(s, p.attribute, i); !std::isnan(v)) spread.add(v);
    }
  }
  for (size_t k = 0; k < out.size(); ++k) {
    const double v = gauge_value(s, p.attribute, candidates[k]);
    const double share = spread.flat() ? 1 : std::clamp(spread.share(v), 0.0, 1.0);
    out[k] = std::isnan(v) ? 0.0f : spread.flat() ? 1.0f : static_cast<float>(p.higher_is_better ? share : 1 - share);
  }
}

}  // namespace baton::route
