#pragma once
// Resolver: addresses of names that must not be looked up on a request's way (MoRI-IO's hosts). Looked up when the sidecar starts
// and every --moriio-dns-resolve-ttl from then on; a failed look-up leaves the last addresses in force. IPv4 is preferred.
// Owner: Shared; run() on one I/O thread, the rest from any. Source: facts sheet "kv_transfer" 1.2, 1.12 (metrics).
#include <map>
#include <mutex>

#include "net/http.h"
#include "sidecar/config.h"
#include "sidecar/metrics.h"

namespace baton::sidecar {

class Resolver {
 public:
  Resolver(const SidecarConfig& config, SidecarMetrics& metrics);
  bool needed() const { return !names_.empty(); }
  net::Task<> run();                                   // until its thread stops; at once if there is nothing to look up
  net::Task<Result<>> look_up_all();                   // once; an error if the thread stops
  std::string address(const std::string& host) const;  // one address; the host itself while none is known
  std::vector<std::string> addresses(const std::vector<std::string>& hosts) const;  // one for each, in order

 private:
  const SidecarConfig& config_;
  SidecarMetrics& metrics_;
  std::vector<std::string> names_;
  mutable std::mutex mutex_;
  std::map<std::string, std::string> known_;
};

}  // namespace baton::sidecar
