#pragma once
// Router: everything of baton-router but its HTTP door: configuration, the source of endpoints, the picker, leader election, and
// the ext_proc, health and metrics listeners. A gateway is made on picker() and metrics(), which live as long as this. Life
// cycle: start() -> begin_drain(): not ready any more, the lease is given back, requests are still served; drained() once
// drain_timeout is over -> stop(): no new calls, those in flight get what is left of kStopGrace. Owner: main or a test, one
// thread. Source: facts sheet "epp" 1.7, 2.2.
#include <memory>

#include "base/metrics.h"
#include "base/result.h"
#include "base/trace.h"
#include "discovery/access_review.h"
#include "epp/config.h"
#include "picker/picker.h"

namespace baton::epp {

class Router {
 public:
  explicit Router(RouterFlags flags);  // finish()ed
  ~Router();
  Result<> start();
  picker::Picker& picker();
  Metrics& metrics();
  Tracer* tracer();  // nullptr: no spans
  // What a reader of metrics must show where the cluster decides (--metrics-endpoint-auth); empty: nothing. After start().
  const discovery::AccessGuardFactory& metrics_guard() const;
  int grpc_port() const, health_port() const, metrics_port() const;  // 0 = not listening
  void look_at_config();                                             // now instead of within a second
  void begin_drain();
  bool drained() const;
  void stop();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace baton::epp
