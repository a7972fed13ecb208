#pragma once
// Gateway: the embedded HTTP gateway: pools with their pickers, key file, access log and HTTP server wired together. See
// exchange.h for what a request meets. Life cycle: start() binds and begins to probe; stop() drains: /health turns 503, requests
// in flight get up to the grace time; wait() blocks until stop() was called. Owner: main or a test; start, stop and wait may be
// called from different threads. The second form is one more door of a picker that somebody else feeds, starts and stops; it
// outlives this.
#include <memory>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "base/result.h"
#include "discovery/access_review.h"
#include "discovery/members.h"
#include "gateway/config.h"
#include "picker/picker.h"

namespace baton::gateway {

class Gateway {
 public:
  explicit Gateway(GatewayConfig config);
  Gateway(GatewayConfig config, picker::Picker& picker, Metrics& metrics);
  ~Gateway();
  // Before start(): who may read /metrics and /debug here is decided by this; empty = anybody (with keys: their owners /debug).
  void guard_metrics(discovery::AccessGuardFactory make_guard);
  Result<> start();
  int port() const;
  int metrics_port() const;  // 0 = none
  // Replaces the members of the first pool, for callers that discover by themselves.
  void set_members(const std::vector<discovery::Member>& members);
  int ready_endpoints() const;
  // Looks at key, certificate and configuration files now instead of within a second.
  void look_at_files();
  void stop();  // waits up to config.drain_timeout_ms for requests in flight
  void wait();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace baton::gateway
