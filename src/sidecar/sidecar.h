#pragma once
// Sidecar: the proxy beside a decode engine. Answers /health from what its poller saw of the engine, serves /metrics on a port of
// its own, and hands every other request to an Exchange.
// Owner: main(); start() and stop() from one thread, the rest from any.
#include <memory>

#include "sidecar/config.h"

namespace baton::sidecar {

class Sidecar {
 public:
  explicit Sidecar(SidecarConfig config);
  ~Sidecar();        // stops
  Result<> start();  // checks the configuration, listens, starts to watch the engine
  int port() const;
  int metrics_port() const;  // 0 if off
  bool engine_ready() const;
  void stop();  // drains for --drain-timeout

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace baton::sidecar
