#pragma once
// Gateway: the embedded HTTP gateway: pool, prober, discovery and HTTP server wired together. See exchange.h for what a request
// meets. Life cycle: start() binds and begins to probe; stop() drains: /health turns 503, requests in flight get up to the grace
// time; wait() blocks until stop() was called. Owner: main or a test; start, stop and wait may be called from different threads.
#include <memory>
#include <vector>

#include "base/result.h"
#include "discovery/members.h"
#include "gateway/config.h"
#include "net/http.h"

namespace baton::gateway {

class Gateway {
 public:
  explicit Gateway(GatewayConfig config);
  ~Gateway();
  Result<> start();
  int port() const;
  int metrics_port() const;  // 0 = none
  // Replaces the members of the pool, for callers that discover by themselves; endpoints_file does it through this.
  void set_members(const std::vector<discovery::Member>& members);
  int ready_endpoints() const;
  void stop();  // waits up to config.drain_timeout_ms for requests in flight
  void wait();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace baton::gateway
