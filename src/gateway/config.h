#pragma once
// GatewayConfig: what a person can set of the embedded gateway; gateway_options() makes the one table of it.
// Names are the llm-d endpoint picker's where it has the same thing. Validated by finish() once, all errors together.
#include <string>
#include <vector>

#include "base/config.h"
#include "base/result.h"
#include "route/pick.h"

namespace baton::gateway {

struct GatewayConfig {
  std::string host = "0.0.0.0";
  int http_port = 8080;  // 0 = any free one
  int metrics_port = 0;  // a second listener with /metrics and /health alone; 0 = none
  int io_threads = 1;
  std::string endpoints_file;  // discovery::FileDiscovery
  std::string pool_name = "baton";
  std::string api_key;
  std::string log_level = "info";

  std::string scorers = route::profile_text(route::RouteConfig::defaults().decode);
  std::string prefill_scorers;  // "" = scorers
  std::string picker = "max-score-picker";
  std::string pd_decider = "always-disagg-pd-decider";
  int64_t non_cached_tokens = 0, prompt_tokens = 0;
  int prefill_candidates = 1;  // llm-d's sidecar v0.3.0 takes one; ours tries the next with --on-prefill-failure next
  bool prefill_may_decode = true;
  int64_t seed = 0;  // of the picker's ties; 0 = random

  int64_t refresh_metrics_interval_ms = 50, metrics_staleness_threshold_ms = 2'000;
  int attempts_max = 3;
  int concurrent_requests_max = 4'096;
  int64_t body_bytes_max = 64 << 20;
  int64_t connect_timeout_ms = 2'000, first_byte_timeout_ms = 3'600'000, idle_timeout_ms = 600'000;
  int64_t drain_timeout_ms = 30'000;

  Result<route::RouteConfig> finish() const;  // checks the texts above
};

Options gateway_options(GatewayConfig& config);

}  // namespace baton::gateway
