#pragma once
// Relay: an address of this machine behind which is a Service of the cluster, by the API server's own proxy; so that any client
// can ask it without a port-forward. Answers stream. Needs the right to services/proxy. The client's Authorization does not go
// with it. Owner: one command; start() once, the destructor stops it.
#include <memory>
#include <string>

#include "base/clock.h"
#include "discovery/kube_client.h"
#include "net/http.h"

namespace baton::deploy {

class Relay {
 public:
  // service: "NAME:PORT". clock outlives it. timeout: of one answer's next bytes.
  Relay(discovery::KubeAccess access, const Clock& clock, std::string ns, std::string service, net::Millis timeout);
  Result<> start();
  std::string url() const { return cat("http://127.0.0.1:", server_.port()); }

 private:
  net::Server server_;
};

}  // namespace baton::deploy
