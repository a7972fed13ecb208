#include "gateway/metrics.h"

#include "base/json.h"

namespace baton::gateway {
namespace {

using picker::MetricId;

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
    : metrics_(metrics), running_(gauge_of(metrics, MetricId::kGatewayRunning)) {}

// Gauges per endpoint are written here and not registered: an endpoint that is gone must leave no series behind.
std::string GatewayMetrics::text(Pools& pools) {
  for (const auto& pool : pools.all()) pool->picker->refresh_metrics();
  const auto head = [](MetricId id) {
    const picker::MetricRow& row = metric_row(id);
    return cat("# HELP ", row.name, " ", row.help, "\n# TYPE ", row.name, " gauge\n");
  };
  const std::string_view names[] = {metric_row(MetricId::kGatewayEndpointUp).name,
                                    metric_row(MetricId::kGatewayInflightRequests).name,
                                    metric_row(MetricId::kGatewayInflightTokens).name};
  std::string up = head(MetricId::kGatewayEndpointUp), requests = head(MetricId::kGatewayInflightRequests),
              tokens = head(MetricId::kGatewayInflightTokens);
  each_endpoint(pools, [&](std::string_view pool, std::string_view address, const Json& endpoint) {
    const std::string labels = pools.several() ? cat("{endpoint=", json_string(address), ",pool=", json_string(pool), "} ")
                                               : cat("{endpoint=", json_string(address), "} ");
    auto number = [&](std::string_view key) { return endpoint.find(key) ? endpoint.find(key)->as_int().value_or(0) : 0; };
    up += cat(names[0], labels, healthy(endpoint) ? 1 : 0, "\n");
    requests += cat(names[1], labels, number("inflight_requests"), "\n");
    tokens += cat(names[2], labels, number("inflight_tokens"), "\n");
  });
  return metrics_.text() + up + requests + tokens;
}

int endpoints_up(const Pools& pools) {
  int up = 0;
  each_endpoint(pools, [&](auto&, auto&, const Json& endpoint) { up += healthy(endpoint); });
  return up;
}

void Handles::count(MetricId id, std::initializer_list<std::string_view> values) {
  key_ = static_cast<char>(id);
  for (std::string_view part : values) key_ += '\n', key_ += part;
  auto at = counters_.find(key_);
  if (at == counters_.end()) at = counters_.emplace(key_, counter_of(metrics_, id, values)).first;
  at->second.inc();
}

void Handles::decided(std::string_view pool, const picker::Choice& choice) {
  count(MetricId::kGatewayDecisions, {pool, choice.why});
  count(MetricId::kGatewayPicks, {pool, choice.targets.front().address, "decode"});
  if (!choice.prefill.empty()) count(MetricId::kGatewayPicks, {pool, choice.prefill, "prefill"});
}

void Handles::retried(std::string_view reason) { count(MetricId::kGatewayRetries, {reason}); }

void Handles::resumed(std::string_view result) { count(MetricId::kGatewayResumed, {result}); }

void Handles::rejected(std::string_view reason) { count(MetricId::kGatewayRejected, {reason}); }

void Handles::first_byte(std::string_view model, double seconds) {
  auto at = first_bytes_.find(model);
  if (at == first_bytes_.end()) {
    const auto made = histogram_of(metrics_, MetricId::kGatewayFirstByte, {model});
    at = first_bytes_.emplace(std::string(model), made).first;
  }
  at->second.observe(seconds);
}

void Handles::finished(std::string_view pool, int status) {
  count(MetricId::kGatewayRequests, {pool, std::to_string(status)});
}

}  // namespace baton::gateway
