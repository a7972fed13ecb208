#pragma once
// RouterFlags: what baton-router takes on its command line apart from the embedded gateway's own flags: the endpoint picker's, in
// the spellings of every release (kebab today, camelCase with one dash in v0.5), and what both doors share: pool, configuration,
// metrics. add_router_flags() puts the rows into the program's one table; the gateway adds its own beside them.
// finish() checks what no single row can, all errors together. Source: facts sheet "epp" 2.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/result.h"
#include "net/tls.h"
#include "picker/picker.h"

namespace baton::epp {

// Off: not listened on. Without --http-port the three have llm-d's ports; with it they are off unless asked for.
inline constexpr int kPortUnset = -1;

struct RouterFlags {
  int grpc_port = kPortUnset, grpc_health_port = kPortUnset, metrics_port = kPortUnset;  // 0 = any free one
  std::string host = "::";                                                               // dual stack
  int io_threads = 0;                                                                    // 0 = one a core, four at most
  bool secure_serving = true, enable_cert_reload = false, health_checking = false;
  std::string cert_path, tls_min_version, tls_cipher_suites;
  int64_t recv_msg_bytes_max = 4 << 20, send_msg_bytes_max = 4 << 20;

  std::string pool_name, pool_namespace, pool_group, endpoint_selector, endpoint_target_ports;
  std::string endpoints_file, kubeconfig;
  bool leader_election = false;

  std::string config_file, config_text;
  bool allow_experimental_plugins = false, experimental_flow_control = false, validate_config = false;

  bool disable_endpoint_subset_filter = false, emit_endpoint_scores = false, echo_headers = false, stream_metrics = false, propose_role_flips = false;
  int64_t refresh_metrics_interval_ms = 50, metrics_staleness_threshold_ms = 2'000;
  int64_t body_bytes_max = 128 << 20, body_timeout_ms = 60'000, drain_timeout_ms = 30'000;
  int64_t seed = 0;

  // Where metrics are and how they are called, as flags said it before the configuration file did (GIE v0.5 to v1.3).
  std::string metrics_path, metrics_scheme;
  int model_server_metrics_port = 0;
  bool metrics_insecure_skip_verify = true;
  std::string waiting_metric, running_metric, kv_usage_metric, lora_metric, cache_info_metric;
  std::string metrics_cert_dir, metrics_client_ca_file;
  bool metrics_endpoint_auth = true, enable_pprof = true, tracing = true;
  int64_t refresh_prometheus_metrics_interval_ms = 5'000;

  std::string log_level = "info", log_encoder = "console";
  int verbosity = 2;  // -v: from 4 on debug

  // with_gateway: --http-port was given. Fills in ports, namespace and threads.
  Result<> finish(bool with_gateway);
  std::vector<int> target_ports() const;  // of a checked endpoint_target_ports
  picker::PickerOptions picker_options() const;
  net::TlsServerOptions tls_options() const;
};

void add_router_flags(Options& options, RouterFlags& flags);

Result<int64_t> parse_quantity(std::string_view text);        // Kubernetes' "4Mi", "1G", also "4MiB": bytes
Result<std::vector<int>> parse_ports(std::string_view text);  // "8000,8001" or "[8000 8001]": 1 to 8, each once

}  // namespace baton::epp
