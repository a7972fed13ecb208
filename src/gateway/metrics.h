#pragma once
// GatewayMetrics: what the HTTP door tells Prometheus beside its pickers (baton_gateway_*). Counters are handles, looked up once
// and kept by each I/O thread (Handles), because a look-up costs more than the rest of a small request's bookkeeping.
// Model labels come from the pools, never from the client: an unknown model counts as "unknown". Threads: GatewayMetrics any,
// a Handles only its own.
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/metrics.h"
#include "gateway/pools.h"
#include "picker/metric_table.h"

namespace baton::gateway {

class GatewayMetrics {
 public:
  explicit GatewayMetrics(Metrics& metrics);
  Metrics& metrics() { return metrics_; }
  void running(double delta) { running_.add(delta); }
  std::string text(Pools& pools);  // with the pools' gauges brought up to date

 private:
  Metrics& metrics_;
  picker::TwinGauge running_;
};

class Handles {
 public:
  explicit Handles(Metrics& metrics) : metrics_(metrics) {}
  void decided(std::string_view pool, const picker::Choice& choice);
  void retried(std::string_view reason);
  void resumed(std::string_view result);
  void rejected(std::string_view reason);  // before a pick: limit, auth, parse
  void first_byte(std::string_view model, double seconds);
  void finished(std::string_view pool, int status);

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  template <class T>
  using Map = std::unordered_map<std::string, T, Hash, std::equal_to<>>;
  void count(picker::MetricId id, std::initializer_list<std::string_view> values);

  Metrics& metrics_;
  Map<picker::TwinCounter> counters_;  // by metric and label values
  Map<picker::TwinHistogram> first_bytes_;
  std::string key_;
};

// Endpoints that can take requests, over all pools.
int endpoints_up(const Pools& pools);

}  // namespace baton::gateway
