#include "route/estimate.h"

#include <algorithm>
#include <cmath>

namespace baton::route {
namespace {

constexpr int64_t kOutputTokensUnknown = 128;  // expected answer where nobody says; llm-d's examples answer 100

double harm_of_prefill(const Scene& s, int decode, int64_t tokens, int64_t context) {
  const auto d = static_cast<size_t>(decode);
  if (tokens <= 0) return 0;
  return s.worker_load(d).running *
         s.cost(d).prefill.step_us(tokens, static_cast<double>(context) + static_cast<double>(tokens) / 2) / 1e3;
}

}  // namespace

double prefill_ms(const Scene& s, int prefill, int64_t tail_tokens) {
  const auto p = static_cast<size_t>(prefill);
  const int64_t prompt = std::max<int64_t>(1, s.inquiry.prompt_tokens - tail_tokens);
  return cost::ttft_us(s.cost(p), s.worker_load(p), prompt, std::min(s.cached_tokens(p), prompt)) / 1e3;
}

double decode_ms(const Scene& s, int decode) {
  const auto d = static_cast<size_t>(decode);
  return cost::tpot_us(s.cost(d), s.worker_load(d), 1) / 1e3;
}

double stream_harm_ms(const Scene& s, int decode) {
  const auto d = static_cast<size_t>(decode);
  const cost::WorkerLoad load = s.worker_load(d);
  const int64_t output = s.inquiry.output_tokens > 0 ? s.inquiry.output_tokens : kOutputTokensUnknown;
  const double slower = cost::tpot_us(s.cost(d), load, 1) - cost::tpot_us(s.cost(d), load, 0);
  return load.running * slower * static_cast<double>(output) / 1e3;
}

double transfer_ms(const Scene& s, int prefill, int decode, int64_t tail_tokens) {
  const auto d = static_cast<size_t>(decode), p = static_cast<size_t>(prefill);
  const int64_t tokens = std::max<int64_t>(0, s.inquiry.prompt_tokens - tail_tokens - s.cached_tokens(d));
  const double us = s.plan.cost.link.transfer_us(tokens * s.cost(p).kv_bytes_per_token);
  // Same host: shared memory, taken as the plain link. Zones that are both named and differ: far.
  const std::string_view a = s.endpoint(p).label("topology.kubernetes.io/zone"),
                         b = s.endpoint(d).label("topology.kubernetes.io/zone");
  const bool far = !a.empty() && !b.empty() && a != b;
  return (far ? us * s.plan.cost.far_link_factor : us) / 1e3;
}

double transfer_floor_ms(const Scene& s, int decode) {
  (void)decode;
  return s.plan.cost.link.latency_us / 1e3;
}

Estimate estimate_local(const Scene& s, int decode, double harm_weight) {
  const auto d = static_cast<size_t>(decode);
  Estimate out;
  out.ttft_ms = prefill_ms(s, decode, 0);
  out.harm_ms = harm_of_prefill(s, decode, s.uncached_tokens(d), s.cached_tokens(d)) + stream_harm_ms(s, decode);
  out.cost_ms = out.ttft_ms + harm_weight * out.harm_ms;
  return out;
}

Estimate estimate_remote(const Scene& s, int prefill, int decode, double harm_weight, int64_t tail_max) {
  auto with_tail = [&](int64_t tail) {
    Estimate out;
    const auto d = static_cast<size_t>(decode);
    const int64_t context = std::max<int64_t>(0, s.inquiry.prompt_tokens - tail);
    const double own_tail_ms =
        tail > 0 ? s.cost(d).prefill.step_us(tail, static_cast<double>(context)) / 1e3 : decode_ms(s, decode);
    out.ttft_ms = prefill_ms(s, prefill, tail) + transfer_ms(s, prefill, decode, tail) + own_tail_ms;
    out.harm_ms = harm_of_prefill(s, decode, tail, context) + stream_harm_ms(s, decode);
    out.cost_ms = out.ttft_ms + harm_weight * out.harm_ms;
    out.tail_tokens = tail;
    return out;
  };
  Estimate best = with_tail(0);
  // Cost is linear in the tail up to attention's small curve, so an end of the range is best.
  const int64_t tail = std::min(tail_max, s.uncached_tokens(static_cast<size_t>(decode)) - 1);
  if (tail > 0) {
    if (const Estimate split = with_tail(tail); split.cost_ms < best.cost_ms) best = split;
  }
  return best;
}

RoleFlip propose_role_flip(const Snapshot& snapshot, const Plan& plan, double ratio, int keep_min) {
  const Inquiry nothing;
  Prng prng(0);
  const Scene s{.snapshot = snapshot, .inquiry = nothing, .plan = plan, .prng = prng};
  struct Stage {
    double pressure = 0;
    int n = 0, idlest = -1;
    double idlest_pressure = 0;
    void add(double x, int i) {
      pressure += x, ++n;
      if (idlest < 0 || x < idlest_pressure) idlest = i, idlest_pressure = x;
    }
    double mean() const { return n > 0 ? pressure / n : 0; }
  };
  Stage prefill, decode;
  for (size_t i = 0; i < snapshot.endpoints.size(); ++i) {
    const Role role = snapshot.endpoints[i].role;
    const Load& l = snapshot.loads[i];
    if (!l.healthy || prefills(role) == decodes(role)) continue;  // mixed workers lend themselves already
    if (prefills(role)) {
      prefill.add(s.cost(i).prefill.step_us(std::max<int64_t>(0, l.inflight_tokens), 0) / 1e6, static_cast<int>(i));
    } else {
      const double queue = l.waiting > 0 ? 1 + 0.1 * l.waiting : 0;
      decode.add(static_cast<double>(l.kv_usage) + queue, static_cast<int>(i));
    }
  }
  RoleFlip out{.prefill_pressure = prefill.mean(), .decode_pressure = decode.mean()};
  constexpr double kIdle = 0.05;  // below this nobody is pressed, whatever the ratio
  if (prefill.mean() > std::max(kIdle, ratio * decode.mean()) && decode.n > keep_min) {
    out.endpoint = decode.idlest, out.to = Role::kPrefill;
  } else if (decode.mean() > std::max(kIdle, ratio * prefill.mean()) && prefill.n > keep_min) {
    out.endpoint = prefill.idlest, out.to = Role::kDecode;
  }
  return out;
}

}  // namespace baton::route
