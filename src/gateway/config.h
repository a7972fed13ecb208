#pragma once
// GatewayConfig: what a person can set of the embedded gateway. gateway_options() is the table of a gateway that stands alone;
// add_gateway_flags() adds only the gateway's own rows to a table that has the picker's already (pool, endpoints, configuration,
// scraping, seed, log level), for a program with both doors. Validated by check() once, all errors together.
#include <string>
#include <vector>

#include "base/config.h"
#include "base/result.h"

namespace baton {
class Tracer;
}

namespace baton::gateway {

struct GatewayConfig {
  Tracer* tracer = nullptr;  // of its own pools' pickers; no flag
  bool tracing = false;      // likewise: make one by OpenTelemetry's environment
  std::string host = "0.0.0.0";
  int http_port = 8080;  // 0 = any free one
  int metrics_port = 0;  // a second listener with /metrics, /health and /debug alone; 0 = none
  int io_threads = 1;
  std::string log_level = "info";

  // What is behind it: one pool by these, or several by a file (pools.h).
  std::string pools_file, pool_name = "baton";
  std::string endpoints_file;            // discovery::FileDiscovery
  std::string config_file, config_text;  // EndpointPickerConfig; both "" = made of the flags below
  bool allow_experimental_plugins = false;
  std::string scorers = "queue-scorer=2,kv-cache-utilization-scorer=2,prefix-cache-scorer=3,active-request-scorer=2";
  std::string prefill_scorers;  // "" = scorers
  std::string picker = "max-score-picker";
  std::string pd_decider = "always-disagg-pd-decider";
  int64_t non_cached_tokens = 0, prompt_tokens = 0;
  int prefill_candidates = 1;  // llm-d's sidecar v0.3.0 takes one; ours tries the next with --on-prefill-failure next
  bool prefill_may_decode = true;
  int64_t seed = 0;  // of the picker's ties; 0 = random
  int64_t refresh_metrics_interval_ms = 50, metrics_staleness_threshold_ms = 2'000;

  // Who may come in, and how.
  std::string api_key, api_keys_file;
  bool tls = false, http2 = true;  // tls without files: self-signed
  std::string tls_cert_dir, tls_cert_file, tls_key_file;
  std::string access_log;  // "" = none, "-" = standard output

  bool resume_streams = true;
  int attempts_max = 3;
  int concurrent_requests_max = 8'192;  // 32'000 need 64'512 open files
  int64_t header_bytes_max = 64 << 10, body_bytes_max = 64 << 20;
  int64_t body_timeout_ms = 60'000;
  int64_t connect_timeout_ms = 2'000, first_byte_timeout_ms = 3'600'000, idle_timeout_ms = 600'000;
  int64_t drain_timeout_ms = 30'000;

  Result<> check() const;
  // The EndpointPickerConfig (JSON) that --scorers, --picker, --pd-decider and their kin mean.
  Result<std::string> picker_config() const;
  bool wants_tls() const { return tls || !tls_cert_dir.empty() || !tls_cert_file.empty(); }
};

Options gateway_options(GatewayConfig& config);
void add_gateway_flags(Options& options, GatewayConfig& config);

}  // namespace baton::gateway
