#pragma once
// SidecarConfig: what a person can set of the sidecar; sidecar_options() makes the one table of it. The flags are the union of
// llm-d's routing sidecar v0.3.0 and its successor (facts sheet "kv_transfer" 1.2, 1.3), so either's manifest starts this one.
// A flag that makes no difference here is accepted silently. check() reports everything that is wrong, all together.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "base/result.h"

namespace baton::sidecar {

// TLS towards one kind of worker.
struct StageTls {
  bool use = false, verify = true;
};

// AMD's MoRI-IO connector in WRITE mode: the prefiller writes KV into the decode worker, so it is told where that is.
struct MoriioConfig {
  bool write_mode = false;
  bool parallel_dispatch = false;  // both legs at once; else the decode leg waits for the prefiller's answer
  int64_t wait_timeout_ms = 30'000;
  int decode_notify_port = 61005, decode_handshake_port = 6301;
  int prefill_notify_port = 61005, prefill_handshake_port = 6301;
  int tp_size = 1, dp_size = 1, dp_size_local = 0;
  std::vector<std::string> remote_hosts, decode_hosts;  // of deployments over several pods: the prefill and the decode side's
  int resolve_ttl_s = 30;                               // MORIIO_DNS_RESOLVE_TTL_SECONDS
};

struct SidecarConfig {
  std::string host = "0.0.0.0";
  int port = 8000;  // 0 = any free one; of data-parallel rank 0
  int model_server_port = 8200;
  std::string model_server_host = "127.0.0.1";
  int data_parallel_size = 1;
  int metrics_port = 0;  // 0 = off
  int io_threads = 1;
  std::string pod_ip;  // of this pod, "" = not known
  std::string connector = "nixlv2";
  std::string ec_connector;  // "" = no encoder stage
  int mooncake_bootstrap_port = 8998, sglang_bootstrap_port = 8998, p2p_connector_port = 7777;
  bool p2p_pull = false;
  MoriioConfig moriio;
  int decode_chunk_size = 0;  // tokens a call of chunked decode; 0 = one call
  bool prefiller_sampling = false;
  std::string kv_push = "auto";
  int idle_connections_max = 1024;
  int prefill_max_retries = 0;
  int64_t prefill_retry_backoff_ms = 200;
  std::string on_prefill_failure = "local";
  int64_t prefill_timeout_ms = 300'000;
  std::string kv_params_trust = "none", kv_params_token;
  bool rewrite_cached_tokens = true, expose_kv_params = false;
  bool secure_proxy = true;
  std::string cert_path;
  StageTls prefiller_tls, decoder_tls, encoder_tls;
  std::string ca_file;  // trusted for the workers' certificates, "" = the system's
  bool ssrf_protection = false;
  std::string inference_pool, inference_pool_namespace, inference_pool_name, pool_group = "inference.networking.k8s.io";
  std::string kubeconfig;
  std::vector<std::string> allowed_prefillers;
  int64_t body_bytes_max = 64 << 20;
  int64_t drain_timeout_ms = 60'000;
  std::string log_level = "info", log_encoder = "console";
  bool tracing = false;

  Result<> check() const;
  // The pool of the allow-list, from either generation's flags.
  Result<std::pair<std::string, std::string>> pool() const;  // namespace, name
};

// Every flag but --configuration and --configuration-file, which sidecar/configuration.h reads.
Options sidecar_options(SidecarConfig& config);

}  // namespace baton::sidecar
