#pragma once
// SidecarConfig: what a person can set of the sidecar; sidecar_options() makes the one table of it. The flags are the union of
// llm-d's routing sidecar v0.3.0 and its successor (facts sheet "kv_transfer" 1.2, 1.3), so either's manifest starts this one.
// A flag that asks for what this build does not do is collected in `refused` and reported by check(), all of them together; one
// that makes no difference here is accepted silently.
#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/result.h"

namespace baton::sidecar {

struct SidecarConfig {
  std::string host = "0.0.0.0";
  int port = 8000;  // 0 = any free one
  int model_server_port = 8200;
  std::string model_server_host = "127.0.0.1";
  int metrics_port = 0;  // 0 = off
  int io_threads = 1;
  std::string connector = "nixlv2";
  bool prefiller_sampling = false;
  int idle_connections_max = 1024;
  int prefill_max_retries = 0;
  int64_t prefill_retry_backoff_ms = 200;
  std::string on_prefill_failure = "local";
  int64_t prefill_timeout_ms = 300'000;
  std::string kv_params_trust = "none";
  bool rewrite_cached_tokens = true;
  int64_t body_bytes_max = 64 << 20;
  int64_t drain_timeout_ms = 60'000;
  std::string log_level = "info";
  std::vector<std::string> refused;  // what was asked for and cannot be had

  Result<> check() const;
};

Options sidecar_options(SidecarConfig& config);

}  // namespace baton::sidecar
