#pragma once
// Prober: asks every endpoint how it is: /health (alive?), /v1/models (what does it serve?), /metrics (how busy?).
// One task an endpoint on one I/O thread of its own. A busy endpoint's /metrics is read every `interval`, an idle one's every
// second, one that is down is tried five times a second. An endpoint counts as down at once when it refuses the connection or
// answers /health with an error, and after kProbeTimeoutsMax probes without an answer. Owner: the Gateway; follow() from any
// thread; stop() ends every task.
#include <atomic>
#include <memory>

#include "base/clock.h"
#include "gateway/pool.h"
#include "net/http.h"

namespace baton::gateway {

class Prober {
 public:
  Prober(Pool& pool, const Clock& clock, net::Millis interval);
  ~Prober();
  void follow(std::shared_ptr<EndpointState> state);
  void stop();

 private:
  struct Task;
  net::Task<> run(std::shared_ptr<EndpointState> state);
  net::Task<bool> probe(Task& task);
  net::Task<Result<net::Response>> get(Task& task, std::string_view target);
  net::Task<> pause(const Task& task);

  Pool& pool_;
  const Clock& clock_;
  net::Millis interval_;
  std::atomic<bool> stopping_{false};
  net::IoThread thread_;
};

// The cards of a /v1/models answer; unusable ones are left out.
std::vector<ModelCard> read_model_cards(std::string_view body);

}  // namespace baton::gateway
