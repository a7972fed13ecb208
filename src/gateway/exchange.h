#pragma once
// Worker: one I/O thread's share of the gateway: answers what the gateway itself knows, forwards the rest. An Exchange is one
// request. The spine (docs/life_of_a_request.md 1-2): read the body once, pick, name the prefill worker in x-prefiller-host-port,
// forward the body verbatim, stream the answer through. Until the first answer byte a failed worker is replaced by another; after
// it the client gets one clear error event. The client's disconnect cancels the worker's side at once. Shared is owned by the
// Gateway and outlives all Workers; everything in it may be used from any thread.
#include <atomic>
#include <bitset>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/prng.h"
#include "gateway/config.h"
#include "gateway/metrics.h"
#include "gateway/pool.h"
#include "gateway/request_view.h"
#include "net/http.h"

namespace baton::gateway {

struct Shared {
  GatewayConfig config;
  route::RouteConfig route;
  Pool pool;
  GatewayMetrics metrics;
  SteadyClock clock;
  uint64_t hash_seed = 0;
  std::atomic<uint64_t> pick_seed{0};
  std::atomic<int> in_flight{0};
  std::atomic<bool> draining{false};
  explicit Shared(GatewayConfig c) : config(std::move(c)), metrics(config.pool_name) {}
};

struct Exchange {
  Exchange(net::Request& r, net::ResponseWriter& w) : request(r), writer(w) {}
  net::Request& request;
  net::ResponseWriter& writer;
  std::string id;           // x-request-id
  std::string model = "-";  // for labels and log: known ones only
  RequestView view;
  std::shared_ptr<const View> pool;
  std::bitset<route::kEndpointsMax> excluded;  // indices into pool
  bool remote_prefill_allowed = true, remote_prefill_blamed = false;
  int attempts = 0;
  int64_t start_ns = 0;
  double first_byte_ms = 0;
  int status = 0;
  size_t bytes_out = 0;
  std::string decode, prefill, note;          // of the last attempt, for the log
  std::optional<net::Response> last_failure;  // a worker's 502 or 503, shown if nobody does better
};

class Worker {
 public:
  // probes_only: the second listener, which answers /health and /metrics and forwards nothing.
  explicit Worker(Shared& shared, bool probes_only = false);
  net::Task<> handle(net::Request& request, net::ResponseWriter& writer);

 private:
  struct Attempt {
    route::Decision decision;
    InFlight decode, prefill;
  };
  enum class Tried : uint8_t { kDone, kNext };

  net::Task<> dispatch(Exchange& x);
  net::Task<> serve_get(Exchange& x);
  net::Task<> models(Exchange& x);
  net::Task<> admit(Exchange& x, Api api, bool disaggregated);
  net::Task<> forward(Exchange& x, std::string_view body);
  Result<Attempt> choose(Exchange& x);
  net::Call make_call(const Exchange& x, const Attempt& attempt, std::string_view body);
  net::Task<Tried> attempt_once(Exchange& x, Attempt& attempt, std::string_view body);
  net::Task<> relay(Exchange& x, Attempt& attempt, net::ResponseStream& upstream);
  net::Task<> broken_stream(Exchange& x, const Error& error, bool sse);
  net::Task<> send(Exchange& x, net::Response response);
  net::Task<> send_error(Exchange& x, int status, std::string_view message, std::string_view param = "");
  void finish(Exchange& x);
  void give_up_on(Exchange& x, const Attempt& attempt, std::string_view reason);

  Shared& shared_;
  bool probes_only_;
  net::Client client_;
  Prng prng_;
  std::vector<route::Load> loads_;  // scratch of choose()
};

}  // namespace baton::gateway
