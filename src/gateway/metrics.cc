#include "gateway/metrics.h"

#include <vector>

#include "base/json.h"

namespace baton::gateway {
namespace {

const std::vector<double> kBounds = {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600};

// Calls f(address, what the picker says of it) for every endpoint of every pool.
template <class F>
void each_endpoint(const Pools& pools, F f) {
  for (const auto& pool : pools.all()) {
    const auto state = parse_json(pool->picker->debug_json());
    const Json* list = state ? state->find("endpoints") : nullptr;
    for (const Json& endpoint : list != nullptr ? list->items : std::vector<Json>()) {
      const Json* address = endpoint.find("address");
      if (address != nullptr) f(pool->spec.name, address->text, endpoint);
    }
  }
}

bool healthy(const Json& endpoint) {
  const Json* value = endpoint.find("healthy");
  return value != nullptr && value->as_bool().value_or(false);
}

}  // namespace

GatewayMetrics::GatewayMetrics(Metrics& metrics)
    : metrics_(metrics), running_(metrics.gauge("baton_gateway_running_requests", "requests being answered")) {}

// Gauges per endpoint are written here and not registered: an endpoint that is gone must leave no series behind.
std::string GatewayMetrics::text(Pools& pools) {
  for (const auto& pool : pools.all()) pool->picker->refresh_metrics();
  std::string up =
      "# HELP baton_gateway_endpoint_up 1 if the endpoint can take requests\n# TYPE baton_gateway_endpoint_up gauge\n";
  std::string requests =
      "# HELP baton_gateway_endpoint_inflight_requests our requests on an endpoint\n"
      "# TYPE baton_gateway_endpoint_inflight_requests gauge\n";
  std::string tokens =
      "# HELP baton_gateway_endpoint_inflight_tokens our prompt tokens an endpoint has still to compute\n"
      "# TYPE baton_gateway_endpoint_inflight_tokens gauge\n";
  each_endpoint(pools, [&](std::string_view pool, std::string_view address, const Json& endpoint) {
    const std::string labels = pools.several() ? cat("{endpoint=", json_string(address), ",pool=", json_string(pool), "} ")
                                               : cat("{endpoint=", json_string(address), "} ");
    auto number = [&](std::string_view key) { return endpoint.find(key) ? endpoint.find(key)->as_int().value_or(0) : 0; };
    up += cat("baton_gateway_endpoint_up", labels, healthy(endpoint) ? 1 : 0, "\n");
    requests += cat("baton_gateway_endpoint_inflight_requests", labels, number("inflight_requests"), "\n");
    tokens += cat("baton_gateway_endpoint_inflight_tokens", labels, number("inflight_tokens"), "\n");
  });
  return metrics_.text() + up + requests + tokens;
}

int endpoints_up(const Pools& pools) {
  int up = 0;
  each_endpoint(pools, [&](auto&, auto&, const Json& endpoint) { up += healthy(endpoint); });
  return up;
}

template <class Make>
Counter& Handles::cached(std::string_view a, std::string_view b, std::string_view c, Make make) {
  key_ = a;
  for (std::string_view part : {b, c}) key_ += '\n', key_ += part;
  auto at = counters_.find(key_);
  if (at == counters_.end()) at = counters_.emplace(key_, &make()).first;
  return *at->second;
}

void Handles::decided(std::string_view pool, const picker::Choice& choice) {
  const std::string name(pool);
  cached("why", pool, choice.why, [&]() -> Counter& {
    return metrics_.counter("baton_gateway_decisions", "decisions by reason", {{"pool", name}, {"why", std::string(choice.why)}});
  }).inc();
  auto picked = [&](const std::string& address, const char* role) {
    cached(role, pool, address, [&]() -> Counter& {
      return metrics_.counter("baton_gateway_picks", "requests sent to an endpoint",
                              {{"pool", name}, {"endpoint", address}, {"role", role}});
    }).inc();
  };
  picked(choice.targets.front().address, "decode");
  if (!choice.prefill.empty()) picked(choice.prefill, "prefill");
}

void Handles::retried(std::string_view reason) {
  cached("retry", reason, "", [&]() -> Counter& {
    return metrics_.counter("baton_gateway_retries", "attempts given up, by reason", {{"reason", std::string(reason)}});
  }).inc();
}

void Handles::resumed(std::string_view result) {
  cached("resumed", result, "", [&]() -> Counter& {
    return metrics_.counter("baton_gateway_resumed_streams", "streams that lost their worker, by what became of them",
                            {{"result", std::string(result)}});
  }).inc();
}

void Handles::rejected(std::string_view reason) {
  cached("rejected", reason, "", [&]() -> Counter& {
    return metrics_.counter("baton_gateway_rejected", "requests answered with an error before any worker was asked",
                            {{"reason", std::string(reason)}});
  }).inc();
}

void Handles::first_byte(std::string_view model, double seconds) {
  auto at = first_bytes_.find(model);
  if (at == first_bytes_.end()) {
    Histogram& made = metrics_.histogram("baton_gateway_first_byte_seconds", "arrival to first answer byte", kBounds,
                                         {{"model_name", std::string(model)}});
    at = first_bytes_.emplace(std::string(model), &made).first;
  }
  at->second->observe(seconds);
}

void Handles::finished(std::string_view pool, int status) {
  const std::string code = std::to_string(status);
  cached("finished", pool, code, [&]() -> Counter& {
    return metrics_.counter("baton_gateway_requests", "requests by pool and status",
                            {{"pool", std::string(pool)}, {"code", code}});
  }).inc();
}

}  // namespace baton::gateway
