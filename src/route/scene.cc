// What filters, scorers and deciders ask about one decision.
#include <algorithm>
#include <cmath>
#include <limits>

#include "route/plugins.h"

namespace baton::route {
namespace {

constexpr std::string_view kHostLabel = "kubernetes.io/hostname", kRackLabel = "topology.kubernetes.io/rack",
                           kZoneLabel = "topology.kubernetes.io/zone", kRegionLabel = "topology.kubernetes.io/region";

bool same(const Endpoint& a, const Endpoint& b, std::string_view key) {
  const std::string_view value = a.label(key);
  return !value.empty() && value == b.label(key);
}

}  // namespace

int Scene::place_of(const ProfileSpec& profile) const { return static_cast<int>(&profile - plan.policy->profiles.data()); }

int64_t Scene::cached_tokens(size_t i) const {
  return std::min<int64_t>(inquiry.prompt_tokens, matched(i) * inquiry.block_tokens);
}

int64_t Scene::uncached_tokens(size_t i) const { return inquiry.prompt_tokens - cached_tokens(i); }

std::string_view Scene::header(std::string_view name) const {
  for (const auto& [key, value] : inquiry.headers) {
    if (key == name) return value;
  }
  return {};
}

const cost::WorkerCost& Scene::cost(size_t i) const {
  if (i < snapshot.costs.size() && snapshot.costs[i].prefill.per_token_us > 0) return snapshot.costs[i];
  return plan.cost.worker;
}

cost::WorkerLoad Scene::worker_load(size_t i) const {
  const Load& l = load(i);
  const int32_t running = std::max(l.running, 0);
  double context = l.mean_context;
  if (context <= 0 && running > 0 && l.blocks_total > 0) {  // what its KV cache holds, shared out
    context = static_cast<double>(l.kv_usage) * static_cast<double>(l.blocks_total) * std::max(l.block_tokens, 1) / running;
  }
  return {.queued_tokens = std::max<int64_t>(0, l.inflight_tokens), .running = running, .mean_context = std::max(context, 0.0)};
}

double Scene::ttft_ms(size_t i) const {
  if (load(i).ttft_ms >= 0) return load(i).ttft_ms;
  if (snapshot.costs.empty() || !plan.needs.predictions) return -1;
  return cost::ttft_us(cost(i), worker_load(i), inquiry.prompt_tokens, cached_tokens(i)) / 1e3;
}

double Scene::tpot_ms(size_t i) const {
  if (load(i).tpot_ms >= 0) return load(i).tpot_ms;
  if (snapshot.costs.empty() || !plan.needs.predictions) return -1;
  return cost::tpot_us(cost(i), worker_load(i), 1) / 1e3;
}

int nearness(const Endpoint& a, const Endpoint& b) {
  if (a.host == b.host || same(a, b, kHostLabel)) return 4;
  if (same(a, b, kRackLabel)) return 3;
  if (same(a, b, kZoneLabel)) return 2;
  return same(a, b, kRegionLabel) ? 1 : 0;
}

double gauge_value(const Scene& scene, Gauge gauge, size_t i) {
  const Load& load = scene.load(i);
  if (gauge == Gauge::kActive) return load.inflight_requests;
  if (gauge == Gauge::kInflightTokens) return static_cast<double>(load.inflight_tokens);
  if (load.age_ms < 0) return std::numeric_limits<double>::quiet_NaN();
  switch (gauge) {
    case Gauge::kRunning:
      return load.running;
    case Gauge::kKvUsage:
      return load.kv_usage;
    default:
      return effective_waiting(load);
  }
}

bool is_idle(const Load& load) { return load.running == 0 && load.waiting == 0 && load.inflight_requests == 0; }

}  // namespace baton::route
