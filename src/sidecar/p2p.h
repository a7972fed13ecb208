#pragma once
// The peer-to-peer tier of vLLM's OffloadingConnector, as kv_transfer_params name it. Source: facts sheet "kv_transfer" 1.10.
#include <string>

#include "sidecar/config.h"
#include "sidecar/hosts.h"

namespace baton::sidecar {

class Exchange;

// Rank r of a pod listens on --port + r and has its tier on --p2p-connector-port + r; a port outside of that is rank 0's.
int p2p_port(const SidecarConfig& config, const HostPort& worker);
// {"kv_request_id":..., "remote_host":..., "remote_port":...}
std::string p2p_peer(const SidecarConfig& config, const HostPort& worker, std::string_view kv_request_id);
// "remote_kv_source":{...}, for the leg that computes the prefix; "" if the request names no source, or the prefiller itself.
std::string p2p_source(Exchange& exchange, const HostPort& prefiller);

}  // namespace baton::sidecar
