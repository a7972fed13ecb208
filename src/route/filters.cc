// The filters' functions; their rows are in plugins_filters.cc. Source: facts sheet "epp" 4.5.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "route/plugin_field.h"

namespace baton::route {
namespace {

bool matches(const Endpoint& endpoint, const LabelExpression& e) {
  const bool has = endpoint.has_label(e.key);
  const bool in = has && std::ranges::find(e.values, endpoint.label(e.key)) != e.values.end();
  switch (e.op) {
    case LabelOp::kIn:
      return in;
    case LabelOp::kNotIn:
      return !in;  // Kubernetes: a pod without the label is not in any set
    case LabelOp::kExists:
      return has;
    case LabelOp::kDoesNotExist:
      return !has;
  }
  return false;
}

// Keeps what `keep` keeps, or all if that is nobody and `fallback` says so.
template <class Keep>
void keep_or_all(Candidates& c, bool fallback, Keep keep) {
  if (fallback && std::ranges::none_of(c.all(), keep)) return;
  c.keep_if(keep);
}

struct Range {
  int64_t min = 0, max = 0;
  bool ok = false;
};

Range parse_range(std::string_view text) {
  Range out;
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos) return out;
  const char* end = text.data() + text.size();
  const auto low = std::from_chars(text.data(), text.data() + dash, out.min);
  const auto high = std::from_chars(text.data() + dash + 1, end, out.max);
  out.ok =
      low.ec == std::errc() && low.ptr == text.data() + dash && high.ec == std::errc() && high.ptr == end && out.min <= out.max;
  return out;
}

bool negative(double slo_ms, double predicted_ms) { return slo_ms > 0 && predicted_ms > slo_ms; }

}  // namespace

void filter_decode(const Scene& s, const Params&, Candidates& c) {
  c.keep_if([&](uint16_t i) { return decodes(s.endpoint(i).role); });
}
void filter_prefill(const Scene& s, const Params&, Candidates& c) {
  c.keep_if([&](uint16_t i) { return s.endpoint(i).role_given && prefills(s.endpoint(i).role); });
}
void filter_encode(const Scene& s, const Params&, Candidates& c) {
  c.keep_if([&](uint16_t i) { return s.endpoint(i).role_given && encodes(s.endpoint(i).role); });
}

void filter_by_label(const Scene& s, const Params& params, Candidates& c) {
  const auto& p = std::get<ByLabelParams>(params);
  c.keep_if([&](uint16_t i) {
    if (!s.endpoint(i).has_label(p.label)) return p.allows_none;
    return std::ranges::find(p.values, s.endpoint(i).label(p.label)) != p.values.end();
  });
}

void filter_selector(const Scene& s, const Params& params, Candidates& c) {
  const auto& p = std::get<SelectorParams>(params);
  c.keep_if([&](uint16_t i) {
    const Endpoint& e = s.endpoint(i);
    return std::ranges::all_of(p.labels,
                               [&](const auto& want) { return e.has_label(want.first) && e.label(want.first) == want.second; }) &&
           std::ranges::all_of(p.expressions, [&](const LabelExpression& x) { return matches(e, x); });
  });
}

void filter_prefix_affinity(const Scene& s, const Params& params, Candidates& c) {
  const auto& p = std::get<PrefixAffinityParams>(params);
  const auto total = static_cast<double>(s.inquiry.blocks_total);
  const auto sticky = [&](uint16_t i) {
    return total > 0 && static_cast<double>(s.matched(i)) >= p.threshold * total && s.matched(i) > 0;
  };
  const auto ttft = [&](uint16_t i) {
    if (p.source == TtftSource::kPredictor) return std::max(0.0, s.ttft_ms(i));
    return static_cast<double>(s.load(i).inflight_tokens) / p.throughput * 1e3;
  };
  double best_sticky = std::numeric_limits<double>::infinity(), best_other = best_sticky;
  bool any = false;
  for (uint16_t i : c.all()) {
    double& best = sticky(i) ? best_sticky : best_other;
    best = std::min(best, ttft(i));
    any |= sticky(i);
  }
  if (!any || (p.exploration > 0 && s.prng.chance(p.exploration))) return;
  if (std::isfinite(best_other) && best_sticky - best_other > p.penalty_max_ms) return;
  c.keep_if(sticky);
}

void filter_slo_tier(const Scene& s, const Params& params, Candidates& c) {
  const double buffer = s.plan.slo_buffer;
  const auto bad = [&](uint16_t i) {
    return negative(s.inquiry.ttft_slo_ms * buffer, s.ttft_ms(i)) || negative(s.inquiry.tpot_slo_ms * buffer, s.tpot_ms(i));
  };
  const auto n = static_cast<size_t>(std::ranges::count_if(c.all(), bad));
  if (n == 0 || n == c.count) return;
  const bool explore = s.prng.chance(std::get<SloTierParams>(params).explore_negative);
  c.keep_if([&](uint16_t i) { return bad(i) == explore; });
}

void filter_context_length(const Scene& s, const Params& params, Candidates& c) {
  const auto& p = std::get<ContextLengthParams>(params);
  if (!p.filtering) return;
  c.keep_if([&](uint16_t i) {
    if (!s.endpoint(i).has_label(p.label)) return true;
    const Range r = parse_range(s.endpoint(i).label(p.label));
    return r.ok && s.inquiry.prompt_tokens >= r.min && s.inquiry.prompt_tokens <= r.max;
  });
}

void score_context_length(const Scene& s, const Params& params, Picked candidates, Scores out) {
  const auto& p = std::get<ContextLengthParams>(params);
  const auto length = static_cast<double>(s.inquiry.prompt_tokens);
  for (size_t k = 0; k < candidates.size(); ++k) {
    const Endpoint& e = s.endpoint(candidates[k]);
    if (!e.has_label(p.label)) {
      out[k] = 0.5f;
      continue;
    }
    const Range range = parse_range(e.label(p.label));
    const auto min = static_cast<double>(range.min), max = static_cast<double>(range.max), r = max - min;
    double score = 0;
    if (!range.ok)
      score = 0;
    else if (length < min || length > max)
      score = 0.3 / (1 + (length < min ? min - length : length - max) / 1000);
    else if (r <= 0)
      score = 1;
    else
      score = 0.3 + 0.7 * (0.7 / (1 + r / 10'000) + 0.3 * (max - length) / r);
    out[k] = static_cast<float>(score);
  }
}

void filter_utilization(const Scene& s, const Params& params, Candidates& c) {
  const auto& p = std::get<UtilizationFilterParams>(params);
  keep_or_all(c, p.fallback, [&](uint16_t i) {
    return std::ranges::all_of(p.limits, [&](const GaugeLimit& l) {
      const double v = gauge_value(s, l.gauge, i);
      return std::isnan(v) || v < l.max;
    });
  });
}

void filter_topology(const Scene& s, const Params& params, Candidates& c) {
  if (s.peer < 0) return;
  const int wanted = 4 - static_cast<int>(std::get<TopologyParams>(params).min);
  keep_or_all(c, true, [&](uint16_t i) { return nearness(s.endpoint(i), s.endpoint(static_cast<size_t>(s.peer))) >= wanted; });
}

void filter_attribute(const Scene& s, const Params& params, Candidates& c) {
  const auto& p = std::get<AttributeFilterParams>(params);
  keep_or_all(c, p.fallback, [&](uint16_t i) {
    const double v = gauge_value(s, p.attribute, i);
    if (std::isnan(v)) return p.pass_missing;
    switch (p.op) {
      case Compare::kLess:
        return v < p.value;
      case Compare::kLessEqual:
        return v <= p.value;
      case Compare::kGreater:
        return v > p.value;
      case Compare::kGreaterEqual:
        return v >= p.value;
      case Compare::kEqual:
        break;
    }
    return v == p.value;
  });
}

void filter_session(const Scene& s, const Params&, Candidates& c) {
  if (s.inquiry.session_slot < 0) return;
  keep_or_all(c, true, [&](uint16_t i) { return s.endpoint(i).slot == s.inquiry.session_slot; });
}

void filter_detector(const Scene& s, const Params& params, Candidates& c) {
  const auto& p = std::get<DetectorParams>(params);
  const double room = 1 + p.headroom;
  if (p.kind == DetectorParams::Kind::kConcurrency) {
    c.keep_if([&](uint16_t i) {
      const bool requests = s.load(i).inflight_requests < static_cast<double>(p.concurrency_max) * room;
      const bool tokens = static_cast<double>(s.load(i).inflight_tokens) < static_cast<double>(p.tokens_max) * room;
      return p.mode == DetectorParams::Mode::kRequests ? requests
             : p.mode == DetectorParams::Mode::kTokens ? tokens
                                                       : requests && tokens;
    });
    return;
  }
  keep_or_all(c, true, [&](uint16_t i) {
    const Load& l = s.load(i);
    return l.age_ms >= 0 && l.age_ms <= p.staleness_ms && effective_waiting(l) < p.queue_depth * room &&
           l.kv_usage < p.kv_cache_util * room;
  });
}

// "10.0.0.1, 10.0.0.2:8000, [::1]:8000"
void filter_testing_header(const Scene& s, const Params&, Candidates& c) {
  const std::string_view list = s.header("test-epp-endpoint-selection");
  if (list.empty()) return;
  c.keep_if([&](uint16_t i) {
    const Endpoint& e = s.endpoint(i);
    for (size_t at = 0; at <= list.size();) {
      const size_t comma = std::min(list.find(',', at), list.size());
      std::string_view item = list.substr(at, comma - at);
      at = comma + 1;
      while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
      while (!item.empty() && item.back() == ' ') item.remove_suffix(1);
      if (item.starts_with('[') && item.ends_with(']')) item = item.substr(1, item.size() - 2);
      if (!item.empty() && (item == e.host || item == e.address)) return true;
    }
    return false;
  });
}

}  // namespace baton::route
