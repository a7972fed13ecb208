// The deciders' and admitters' functions, and the pool's saturation. Source: facts sheet "epp" 4.4, 4.8, 4.9.
#include <algorithm>
#include <cmath>
#include <limits>

#include "route/estimate.h"
#include "route/plugin_field.h"

namespace baton::route {
namespace {

// Mean over endpoints of how full each is, by the fuller of queue and KV cache; nothing known counts as full.
template <class Includes>
double mean_utilization(const Snapshot& snapshot, const DetectorParams& d, bool& any, Includes includes) {
  double sum = 0;
  size_t n = 0;
  any = false;
  for (size_t i = 0; i < snapshot.loads.size(); ++i) {
    const Load& l = snapshot.loads[i];
    if (!l.healthy || !includes(snapshot.endpoints[i].role)) continue;
    any = true;
    const bool fresh = l.age_ms >= 0 && l.age_ms <= d.staleness_ms;
    if (!fresh && !d.stale_is_saturated) continue;
    sum += fresh ? std::max(effective_waiting(l) / d.queue_depth, l.kv_usage / d.kv_cache_util) : 1;
    ++n;
  }
  if (!any) return 1;
  return n == 0 ? 0 : sum / static_cast<double>(n);
}

template <class Includes>
double concurrency(const Snapshot& snapshot, const DetectorParams& d, bool& any, Includes includes) {
  double requests = 0, tokens = 0, n = 0;
  for (size_t i = 0; i < snapshot.loads.size(); ++i) {
    const Load& l = snapshot.loads[i];
    if (!l.healthy || !includes(snapshot.endpoints[i].role)) continue;
    requests += l.inflight_requests, tokens += static_cast<double>(l.inflight_tokens), ++n;
  }
  any = n > 0;
  if (!any) return 1;
  requests /= n * static_cast<double>(d.concurrency_max);
  tokens /= n * static_cast<double>(d.tokens_max);
  using Mode = DetectorParams::Mode;
  return d.mode == Mode::kRequests ? requests : d.mode == Mode::kTokens ? tokens : std::max(requests, tokens);
}

}  // namespace

StageSaturation saturation_by_stage(const Snapshot& snapshot, const DetectorParams& d) {
  auto of = [&](bool& any, auto includes) {
    return d.kind == DetectorParams::Kind::kUtilization ? mean_utilization(snapshot, d, any, includes)
                                                        : concurrency(snapshot, d, any, includes);
  };
  bool any_prefill = false, any_decode = false;
  const double prefill = of(any_prefill, [](Role role) { return prefills(role); });
  const double decode = of(any_decode, [](Role role) { return decodes(role); });
  StageSaturation out{.prefill = any_prefill ? prefill : 0, .decode = any_decode ? decode : 0, .effective = decode};
  // Without prefill workers: an aggregated pool, or one whose prefill workers are gone: decode workers serve.
  if (any_prefill) out.effective = any_decode ? std::max(prefill, decode) : prefill;
  return out;
}

double saturation(const Snapshot& snapshot, const DetectorParams& d) { return saturation_by_stage(snapshot, d).effective; }

bool decide_always(const Scene&, const Params&, int, Verdict&) { return true; }

bool decide_prefix_based(const Scene& s, const Params& params, int decode, Verdict& verdict) {
  const auto& p = std::get<PdDeciderParams>(params);
  const int64_t input = s.inquiry.prompt_tokens;
  const int64_t hit = decode < 0 ? 0 : s.cached_tokens(static_cast<size_t>(decode));
  if (p.non_cached_tokens > 0 && input >= p.prompt_tokens && input - hit >= p.non_cached_tokens) return true;
  verdict.why = Why::kCachedOrShort;
  return false;
}

bool decide_multimodal(const Scene& s, const Params&, int, Verdict&) { return s.inquiry.multimodal; }

bool decide_cost(const Scene& s, const Params& params, int decode, Verdict& verdict) {
  if (decode < 0) return true;
  const auto& p = std::get<CostDeciderParams>(params);
  const Estimate local = estimate_local(s, decode, p.harm_weight);
  Estimate best;
  best.cost_ms = std::numeric_limits<double>::infinity();
  for (uint16_t i : s.usable) {
    if (i == decode || !s.endpoint(i).role_given || !prefills(s.endpoint(i).role)) continue;
    const Estimate remote = estimate_remote(s, i, decode, p.harm_weight, p.split_tail_tokens);
    if (remote.cost_ms < best.cost_ms) best = remote;
  }
  const bool remote = best.cost_ms + p.margin_ms < local.cost_ms;
  verdict.estimated_ttft_ms = remote ? best.ttft_ms : local.ttft_ms;
  if (!remote) verdict.why = Why::kCheaperLocal;
  if (remote) verdict.decode_tail_tokens = best.tail_tokens;
  return remote;
}

// Sheddable requests with an SLO that nobody is predicted to hold, while nobody is idle or cold.
Result<> admit_latency_slo(const Scene& s, const Params&) {
  if (s.inquiry.priority >= 0 || (s.inquiry.ttft_slo_ms <= 0 && s.inquiry.tpot_slo_ms <= 0)) return {};
  bool predicted = false;
  for (uint16_t i : s.usable) {
    const double ttft = s.ttft_ms(i), tpot = s.tpot_ms(i);
    if (s.load(i).running == 0 || s.load(i).kv_usage < 0.02f) return {};
    if (ttft < 0 && tpot < 0) continue;
    predicted = true;
    const double buffer = s.plan.slo_buffer;
    const bool ttft_ok = s.inquiry.ttft_slo_ms <= 0 || ttft <= s.inquiry.ttft_slo_ms * buffer;
    const bool tpot_ok = s.inquiry.tpot_slo_ms <= 0 || tpot <= s.inquiry.tpot_slo_ms * buffer;
    if (ttft_ok && tpot_ok) return {};
  }
  if (!predicted) return {};
  return fail(Code::kResourceExhausted, "no endpoint is predicted to hold the request's latency objective");
}

Result<> admit_probabilistic(const Scene& s, const Params& params) {
  if (s.inquiry.priority >= 0 || s.usable.empty()) return {};
  const auto& p = std::get<ProbabilisticParams>(params);
  double sum = 0;
  for (uint16_t i : s.usable) {
    const Load& l = s.load(i);
    sum += l.age_ms < 0 ? 1 : std::max(effective_waiting(l) / p.queue_depth, l.kv_usage / p.kv_cache_util);
  }
  const double chance = std::min(p.k * std::pow(sum / static_cast<double>(s.usable.size()), p.power), 1.0);
  if (!s.prng.chance(chance)) return {};
  return fail(Code::kResourceExhausted, "system saturated, sheddable request refused");
}

}  // namespace baton::route
