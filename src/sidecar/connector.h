#pragma once
// Connector: how a request with a prefiller runs: what each leg is sent, in which order. One file in connectors/ and one row in
// connectors/table.cc each. A Connector belongs to one I/O thread and may keep state there (mooncake's engine ids).
// What fails over to whom is not its business: it tries the prefiller it is given and says how that went; Exchange goes on.
#include <memory>
#include <span>

#include "sidecar/exchange.h"

namespace baton::sidecar {

class Connector {
 public:
  virtual ~Connector() = default;
  // Before any prefiller is asked; true = the client was answered without one.
  virtual net::Task<bool> decode_first(Exchange&) { co_return false; }
  // The request through this prefiller, to the end of the client's answer. A Prefill that is not ok means that the client saw
  // nothing yet, and the next prefiller, or the engine alone, can take over.
  virtual net::Task<Prefill> attempt(Exchange& exchange, const HostPort& prefiller) = 0;
};

struct ConnectorRow {
  std::string_view name;  // of --kv-connector
  std::unique_ptr<Connector> (*make)(const SidecarConfig& config);
  std::string_view instead_of{};     // a deprecated name: what to say now
  bool engine_reads_prompts = true;  // the decode engine can do without a prefiller
};
std::span<const ConnectorRow> connectors();
const ConnectorRow* find_connector(std::string_view name);  // nullptr if there is none

// connectors/*.cc
std::unique_ptr<Connector> make_nixlv2(const SidecarConfig& config);
std::unique_ptr<Connector> make_moriio(const SidecarConfig& config);  // nixlv2 with --moriio-write-mode
std::unique_ptr<Connector> make_shared_storage(const SidecarConfig& config);
std::unique_ptr<Connector> make_lmcache(const SidecarConfig& config);
std::unique_ptr<Connector> make_sglang(const SidecarConfig& config);
std::unique_ptr<Connector> make_mooncake(const SidecarConfig& config);
std::unique_ptr<Connector> make_offloading(const SidecarConfig& config);

// The data-parallel rank of MoRI-IO for a request: BLAKE2s-256 of its id, first eight bytes, big endian, modulo dp_size.
int moriio_rank(std::string_view request_id, int dp_size);

}  // namespace baton::sidecar
