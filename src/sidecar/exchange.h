#pragma once
// Exchange: one request through the sidecar. Without a prefiller named it is passed to the engine as it came; with one, the
// connector says what the two legs are sent and whether they run one after the other or at the same time:
//
//   client --body--> sidecar --prefill leg--> prefiller      (attempt() of the Connector)
//                    sidecar --decode leg---> engine --tokens--> client
//
// A prefiller that cannot serve is handled here, by --on-prefill-failure, for every connector alike; a 4xx of its own judgement
// goes to the client, because the engine would say the same. The client's leaving cancels whichever legs run. Nothing is sent to
// the client before the engine's first body byte, so that a dead engine is a 503 the gateway can retry elsewhere.
// Source: facts sheet "kv_transfer" 1.5 to 1.12, 8.5. Owner: the handler's frame; one I/O thread.
#include <atomic>
#include <deque>
#include <functional>

#include "base/clock.h"
#include "net/http.h"
#include "net/tls.h"
#include "sidecar/allow_list.h"
#include "sidecar/chunked.h"
#include "sidecar/config.h"
#include "sidecar/legs.h"
#include "sidecar/metrics.h"
#include "sidecar/proxy_trace.h"
#include "sidecar/resolver.h"
#include "sidecar/rewrite.h"

namespace baton::sidecar {

class Connector;

// nullptr where a stage is reached in plaintext.
struct WorkerTls {
  std::shared_ptr<net::TlsClient> prefiller, decoder, encoder;
};
Result<WorkerTls> make_worker_tls(const SidecarConfig& config);

// A data-parallel rank of the local engine; rank 0 is the whole of most deployments.
struct Engine {
  HostPort at;
  std::atomic<bool> ready{false};
};

// What all exchanges use; any thread.
struct Shared {
  explicit Shared(SidecarConfig c);
  const SidecarConfig config;
  SidecarMetrics metrics;
  Tracer* tracer = nullptr;  // nullptr: no spans
  std::deque<Engine> engines;  // by rank
  std::atomic<int> port{0};    // of rank 0, where it listens
  WorkerTls tls;               // set before the first exchange
  AllowList allowed;
  std::unique_ptr<Resolver> resolver;
  std::atomic<bool> engine_takes_push{false};  // rank 0 said so with its health; all ranks are of one engine
};

// What the exchanges of one I/O thread use.
struct Local {
  net::Client client;
  std::unique_ptr<Connector> connector;
  size_t rank = 0;
};

using HeaderList = std::vector<std::pair<std::string, std::string>>;

struct PrefillAsk {
  std::string_view body;                 // lives until the leg has ended
  HeaderList headers{};                  // set over the request's own
  bool reads_reply = true;               // a 2xx must be a JSON object, which is read; false: any 2xx will do
  std::optional<net::Millis> timeout{};  // nullopt = --prefill-timeout
  net::Cancel* cancel = nullptr;         // nullptr = the client's leaving
};

// How one prefiller did: ok, or status says why not.
struct Prefill {
  bool ok = false;
  int status = 502;  // 504 = too late, 502 = no connection or a broken answer, else the prefiller's own
  PrefillReply reply{};
  bool unreadable = false;  // 2xx, but no JSON object
  std::string why{};
  std::optional<net::Response> response{};  // its answer, if it gave one that we do not understand or like
};

struct DecodeAsk {
  std::string_view body;  // lives until the engine has it; see keep()
  HeaderList headers{};
  bool rewrite = true;  // the answer's usage, and its kv_transfer_params become null
  std::optional<int64_t> cached_tokens{};
  net::Cancel* cancel = nullptr;  // nullptr = the client's leaving
  std::function<void(const net::Headers&)> on_head{};  // sees the answer's head
  // Asked once before the first byte goes to the client, whatever it is; false: nothing goes.
  std::function<net::Task<bool>()> may_answer{};
  // Sees the answer's beginning, as it grows, before any of it goes to the client: true = send it, false = do not, nullopt = more
  // is needed (with `end` it must decide).
  std::function<std::optional<bool>(std::string_view so_far, bool end)> judge{};
};
enum class Decoded { kAnswered, kWithheld };  // the client got an answer, an error too, or is gone; or it saw nothing yet

class Exchange {
 public:
  Exchange(Shared& shared, Local& local, net::Request& request, net::ResponseWriter& writer);
  net::Task<> run();

  // From here on: what connectors are made of.
  const SidecarConfig& config() const { return shared_.config; }
  Shared& shared() { return shared_; }
  net::Client& client() { return local_.client; }
  Api api() const { return *api_; }
  const std::string& body() const { return request_.body; }  // an object
  const Json& root() const { return *root_; }                // and what is in it
  const std::string& id() const { return id_; }              // x-request-id of both legs
  const std::string& log_id() const { return log_id_; }
  int status() const { return status_; }  // what the client got, 0 = nothing yet
  // Who else has a longer prefix of this prompt cached, where the connector can make use of it.
  const std::optional<HostPort>& kv_source() const { return kv_source_; }
  net::Cancel& cancel() { return writer_.cancel(); }  // the client leaves
  bool answered() const { return writer_.started() || cancelled(); }

  // Owns the text of the decode leg until the client has its first byte: a stream may last much longer than its prompt is needed.
  std::string_view keep(std::string body) { return kept_ = std::move(body); }
  // The prefill leg, retries included.
  net::Task<Prefill> prefill(const HostPort& host, PrefillAsk ask);
  // The decode leg, to the end of the answer.
  net::Task<Decoded> decode(DecodeAsk ask);
  // Both at the same time, each ended early when it has become useless: a failed prefill cancels the decode leg that nothing was
  // heard of yet, a decode leg that ended cancels the prefill. hold: the client sees nothing of the decode leg before the prefill
  // leg is known good. Ok if the client was answered.
  net::Task<Prefill> both(const HostPort& host, PrefillAsk prefill_ask, DecodeAsk decode_ask, bool hold);
  bool engine_takes_push() const { return shared_.engine_takes_push; }
  void count_hand_over(std::string_view mode) { shared_.metrics.hand_over(mode); }
  // Told to whoever reads the log line of this request.
  void note(std::string_view text) { note_ += cat(note_.empty() ? "" : ", ", text); }

 private:
  net::Task<> serve();
  net::Task<bool> choose_rank();
  net::Task<bool> read_body();
  net::Task<bool> choose_workers();
  net::Task<> decode_alone();
  net::Task<bool> encode(const std::vector<HostPort>& encoders);
  Result<> take_encoded(const std::vector<std::string>& answers);
  Result<> replace_body(std::string body);  // and parses it

  net::Task<> disaggregate(std::vector<HostPort> hosts);
  net::Task<Prefill> prefill_at_first_that_can(const std::vector<HostPort>& hosts);
  net::Task<Prefill> prefill_once(const HostPort& host, const PrefillAsk& ask);
  net::Task<> show_failure(Prefill failed);

  net::Call engine_call(const DecodeAsk& ask);
  net::Cancel* call_cancel(const DecodeAsk& ask) { return ask.cancel ? ask.cancel : &cancel(); }
  void forget_bodies();
  net::Task<Decoded> decode_in_chunks(ChunkedAnswer chunks, const DecodeAsk& ask);
  net::Task<Decoded> pass_on(net::ResponseStream& stream, const DecodeAsk& ask);
  net::Task<Decoded> engine_failed(Error error, const DecodeAsk& ask);
  Rewrite rewrite_of(const DecodeAsk& ask) const;
  void add_ttft(net::Headers& headers) const;

  net::Task<Result<>> answer(int status, std::string body);
  net::Headers headers_for(const HeaderList& more) const;
  bool cancelled() const { return writer_.cancel().cancelled(); }
  double ms_since(int64_t ns) const { return static_cast<double>(clock_.now_ns() - ns) * 1e-6; }
  void log_done() const;

  Shared& shared_;
  Local& local_;
  net::Request& request_;
  net::ResponseWriter& writer_;
  SteadyClock clock_;
  std::string id_, log_id_;  // log_id_: the client's if it sent one: what a person greps for
  std::optional<Api> api_;   // of an intercepted request
  std::optional<Json> root_;
  std::string kept_;
  std::optional<std::vector<HostPort>> prefillers_;  // as the request names them
  std::vector<HostPort> encoders_;
  std::optional<HostPort> kv_source_;
  size_t rank_ = 0;
  int status_ = 0;  // what the client got
  std::string prefiller_ = "-", note_;
  std::string ttft_;  // our part of the x-baton-ttft header
  double prefill_ms_ = 0, first_byte_ms_ = 0;
  ProxyTrace trace_;
};

}  // namespace baton::sidecar
