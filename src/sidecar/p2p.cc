#include "sidecar/p2p.h"

#include "base/prng.h"
#include "sidecar/exchange.h"

namespace baton::sidecar {

int p2p_port(const SidecarConfig& config, const HostPort& worker) {
  int rank = worker.port - config.port;
  return config.p2p_connector_port + (rank >= 0 && rank < config.data_parallel_size ? rank : 0);
}

std::string p2p_peer(const SidecarConfig& config, const HostPort& worker, std::string_view kv_request_id) {
  JsonWriter w;
  w.object().field("kv_request_id", kv_request_id).field("remote_host", worker.host);
  w.field("remote_port", p2p_port(config, worker));
  return w.end().take();
}

std::string p2p_source(Exchange& exchange, const HostPort& prefiller) {
  const auto& source = exchange.kv_source();
  if (!source || *source == prefiller) return "";
  return cat("\"remote_kv_source\":", p2p_peer(exchange.config(), *source, uuid4()));
}

}  // namespace baton::sidecar
