#pragma once
// GatewayMetrics: what the gateway tells Prometheus. Names that llm-d's picker has keep its older, still-read spelling
// (inference_objective_*, inference_pool_*, inference_extension_*, llm_d_inference_scheduler_*); ours begin with baton_gateway_.
// Model labels come from the pool, never from the client: an unknown model counts as "unknown". Any thread.
// Source: facts sheet "epp" 7.
#include <string>
#include <string_view>

#include "base/metrics.h"
#include "gateway/pool.h"
#include "route/pick.h"

namespace baton::gateway {

class GatewayMetrics {
 public:
  explicit GatewayMetrics(std::string pool_name);
  void decided(std::string_view model, const View& view, const route::Decision& decision, double seconds);
  void undecided();
  void retried(std::string_view reason) {
    metrics_.counter("baton_gateway_retries", "attempts given up, by reason", {{"reason", std::string(reason)}}).inc();
  }
  void first_byte(std::string_view model, double seconds);
  void finished(std::string_view model, int status, double seconds, size_t request_bytes, size_t response_bytes,
                int64_t input_tokens);
  void rejected(std::string_view reason);  // before a pick: limit, auth, parse
  void running(double delta) { running_.add(delta); }
  std::string text(const Pool& pool);  // with the pool's gauges brought up to date

 private:
  Metrics metrics_;
  std::string pool_name_;
  Gauge& running_;
};

}  // namespace baton::gateway
