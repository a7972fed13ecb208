#pragma once
// Worker: one I/O thread's share of the gateway: answers what the gateway itself knows, forwards the rest. An Exchange is one
// request. The spine (docs/life_of_a_request.md 1-2): the body goes into a Flight of the pool's picker, which chooses; it is
// forwarded verbatim with the headers of the Choice (a stream's with return_token_ids, resume.h); the answer streams through.
// Until the first answer byte a failed worker is replaced by another; after it a stream goes on elsewhere where that is possible (resume.h), else the client gets one clear
// error. The client's disconnect cancels the worker's side at once. Shared is owned by the Gateway and outlives all Workers;
// everything in it may be used from any thread. exchange.cc: dispatch and what the gateway answers; forward.cc: attempts and
// answers.
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "discovery/access_review.h"
#include "gateway/access_log.h"
#include "gateway/config.h"
#include "gateway/keys.h"
#include "gateway/metrics.h"
#include "gateway/pools.h"
#include "gateway/resume.h"
#include "net/http.h"
#include "net/mailbox.h"
#include "picker/body_reader.h"

namespace baton::gateway {

struct Shared {
  GatewayConfig config;
  SteadyClock clock;
  Metrics own_metrics;
  GatewayMetrics metrics;
  Pools pools;
  ApiKeys keys;
  AccessLog access_log;
  std::atomic<int> in_flight{0};
  std::atomic<bool> draining{false};
  discovery::AccessGuardFactory make_guard;  // of /metrics and /debug
  explicit Shared(GatewayConfig c, Metrics* shared_metrics = nullptr)
      : config(std::move(c)), metrics(shared_metrics != nullptr ? *shared_metrics : own_metrics) {}
};

struct Exchange {
  Exchange(net::Request& r, net::ResponseWriter& w) : request(r), writer(w) {}
  net::Request& request;
  net::ResponseWriter& writer;
  std::string id;           // x-request-id
  std::string model = "-";  // for labels and log: known ones only
  std::shared_ptr<ApiKey> key;
  GatewayPool* pool = nullptr;
  std::vector<picker::HeaderField> head;
  std::string names;  // lower-case names that head points to
  std::unique_ptr<picker::Flight> flight;
  const picker::Choice* choice = nullptr;  // of the present attempt; lives in the flight
  std::optional<Resume> resume;
  std::string resumed_body;
  bool asked_ids = false;  // the worker was asked for token ids, see Resume::asking_ids()
  bool forwarded = false, generates = false, chat = false, prefill_blamed = false;
  int attempts = 0, legs = 1;
  int64_t start_ns = 0, tokens_out = -1;
  double decided_ms = 0, first_byte_ms = 0;
  int status = 0;
  size_t bytes_in = 0, bytes_out = 0;
  std::string decode, prefill, note;  // of the last attempt, for the log
  std::string_view why;
  net::Cancel stop;  // of the worker's side: the client left, or the picker takes the request back
  std::optional<picker::Refusal> evicted;
  std::optional<net::Response> last_failure;  // a worker's 502 or 503, shown if nobody does better
};

// Reads a body while it arrives, for the Flight to come. Its faults are the reader's to tell.
struct EarlyBody final : net::BodyListener {
  explicit EarlyBody(std::shared_ptr<picker::BodyReader> r) : reader(std::move(r)) {}
  void on_body(std::string_view bytes) override { (void)reader->feed(bytes); }
  std::shared_ptr<picker::BodyReader> reader;
};
// nullptr where the pool is not known before the body is (several pools), or the request is not forwarded.
std::shared_ptr<net::BodyListener> listen_to(Shared& shared, std::string_view method, std::string_view target);

class Worker {
 public:
  // probes_only: the second listener, which answers /health, /metrics and /debug and forwards nothing.
  explicit Worker(Shared& shared, bool probes_only = false);
  ~Worker();
  net::Task<> handle(net::Request& request, net::ResponseWriter& writer);

 private:
  enum class Tried : uint8_t { kDone, kNext };
  enum class End : uint8_t { kWhole, kLost, kClientLeft };
  using Picked = std::expected<const picker::Choice*, picker::Refusal>;

  net::Task<> dispatch(Exchange& x);
  net::Task<> serve_get(Exchange& x);
  net::Task<> models(Exchange& x);
  net::Task<> admit(Exchange& x);
  void read_head(Exchange& x);
  net::Task<std::optional<Picked>> decide(Exchange& x);
  net::Task<> forward(Exchange& x);
  void take(Exchange& x, const picker::Choice& choice);
  net::Call make_call(const Exchange& x, std::string_view body);
  net::Task<Tried> attempt_once(Exchange& x);
  bool give_up_on(Exchange& x, std::string_view reason);
  net::Task<> relay(Exchange& x, std::unique_ptr<net::ResponseStream> upstream);
  net::Headers answer_headers(Exchange& x, const net::ResponseStream& upstream);
  net::Task<End> copy(Exchange& x, net::ResponseStream& upstream, std::string& error);
  net::Task<bool> pass_on(Exchange& x, std::string_view bytes, bool last);
  net::Task<std::unique_ptr<net::ResponseStream>> go_on_elsewhere(Exchange& x);
  std::string asking_ids(const Exchange& x) const;
  net::Task<std::optional<Json>> ask_about_text(Exchange& x, std::string_view path, std::string_view body);
  net::Task<std::optional<Resume::Count>> count_sent(Exchange& x, const Resume::Question& question);
  net::Task<> broken_stream(Exchange& x, bool sse);
  net::Task<> send(Exchange& x, net::Response response);
  net::Task<> send_error(Exchange& x, int status, std::string_view message, std::string_view param = "");
  net::Task<> refuse(Exchange& x, const picker::Refusal& refusal);
  void finish(Exchange& x);
  void write_logs(const Exchange& x, int status, double ms);

  Shared& shared_;
  const bool probes_only_;
  net::Client client_;
  Handles counts_;
  discovery::AccessGuard guard_;
  using Posted = net::Mailbox<std::move_only_function<void()>>;
  std::shared_ptr<Posted> posted_;  // what pickers run on this thread
};

}  // namespace baton::gateway
