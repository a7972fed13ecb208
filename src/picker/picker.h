#pragma once
// Picker: the endpoint picker that ext_proc (src/epp) and the embedded gateway (src/gateway) share: pool, scraping, prefix
// knowledge, in-flight accounts, admission and flow control around route::pick(). A Flight is one request's life in it:
//
//   begin(head) -> feed(bytes)* -> decide(done) -> [repick()]* -> answer_head -> answer_bytes* -> (destructor)
//
// Requires: a Flight stays on the thread that made it; its head's views live until done was called, and until the last repick()
// returned; Flights end before their Picker. Guarantees: done is called
// exactly once, on that thread, before decide() returns unless flow control makes it wait; whatever a Flight holds (queue place,
// in-flight counts on the very endpoint instances it was counted on) is given back when it is destroyed, however it ends.
// Threads: Picker any; everything shared is atomics, a published snapshot, or behind a short lock.
// Source: facts sheet "epp" 1.3-1.6, 4; docs/adr/0007.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/result.h"
#include "discovery/cluster.h"
#include "picker/replica.h"
#include "route/plan.h"

namespace baton {
class Tracer;
}

namespace baton::picker {

struct HeaderField {
  std::string_view name, value;  // name in lower case
};

struct Head {
  std::string_view method, path;         // without the query
  std::span<const HeaderField> headers;  // pseudo headers left out
  std::string_view request_id;
  // Runs f on the Flight's own thread, from any; only used while a request waits in a queue.
  std::function<void(std::move_only_function<void()>)> post;
};

// Why a request is not served. EPP says "inference error: <Name> - <message>", the gateway an OpenAI error.
struct Refusal {
  int status = 503;  // 400 404 412 413 429 500 503
  std::string message;
  std::string drop_reason;  // x-llm-d-request-dropped-reason, "" = none
  int retry_after_s = 0;    // 0 = no Retry-After
};

struct Target {
  std::string host, address;  // address = host:port, IPv6 in brackets
  int port = 0;
  int index = -1;  // in the Flight's snapshot, for repick()
};

struct Choice {
  std::vector<Target> targets;        // best first; the first is the decode (primary) worker
  std::string destination;            // their addresses, comma separated: x-gateway-destination-endpoint
  std::string prefill;                // address, "" = none
  std::vector<std::string> prefills;  // it and the next best, for doors that name several to the sidecar
  std::vector<std::pair<std::string, std::string>> set_headers;  // x-prefiller-host-port, x-session-token, ...
  std::vector<std::string> remove_headers;                       // what a client must not say
  std::vector<std::pair<std::string, float>> scores;             // every scored candidate; only with --emit-endpoint-scores
  std::string_view why;                                          // route::why_name
};

struct Subset {
  bool given = false;
  std::vector<std::string> endpoints;  // "ip:port"
};

class BodyReader;  // picker/body_reader.h

class Flight {
 public:
  using Done = std::move_only_function<void(std::expected<const Choice*, Refusal>)>;  // the Choice lives in the Flight
  virtual ~Flight() = default;

  // The body as it arrives, parsed and hashed on the way; the Flight keeps it. An early refusal (413, 400) is final.
  virtual std::optional<Refusal> feed(std::string_view bytes) = 0;
  // All of it at once, without a copy. read: begin_body()'s, fed with these very bytes while they came, or nullptr.
  virtual std::optional<Refusal> feed_whole(std::string body, BodyReader* /*read*/) { return feed(body); }
  // No more of the body than was fed will be seen, and none of it can be changed: decide() goes by that and by the headers.
  virtual void rest_unseen() = 0;
  // The body is complete (or there is none). Parses what is left, rewrites, admits, picks.
  virtual void decide(Subset subset, Done done) = 0;
  // After a failed attempt: the same request without the targets[0] of every attempt so far. blame_prefill: the prefill worker
  // failed, and it is left out instead. No queueing again.
  virtual std::expected<const Choice*, Refusal> repick(bool blame_prefill) = 0;

  virtual std::string& body() = 0;             // what is to be forwarded; the client's bytes unless changed
  virtual bool body_changed() const = 0;       // by a model rewrite, or because kv_transfer_params was cut out
  virtual std::string_view model() const = 0;  // as the client said it; label-safe through Picker's cap
  virtual bool stream() const = 0;
  virtual int64_t prompt_tokens() const = 0;  // estimate, or the engine's own count where the prompt's tokens are known
  virtual int64_t output_tokens() const = 0;  // of the answer so far: what the engine says, or events seen; 0 if !wants_answer()

  virtual void answer_head(int status, std::string_view content_type) = 0;
  // Sees the answer for usage, TTFT, ITL. Returns the bytes to pass on: the same view unless the model name must be put back.
  virtual std::string_view answer_bytes(std::string_view bytes, bool last) = 0;
  virtual bool wants_answer() const = 0;  // false: nothing here needs to see the answer's body
  // Headers the picker adds to the answer (x-session-token, ...); valid after answer_head.
  virtual std::span<const std::pair<std::string, std::string>> answer_headers() const = 0;
  virtual void set_served(std::string_view endpoint) = 0;  // the proxy says which endpoint really answered
  // Called on the Flight's thread if the running request should be ended (eviction by flow control).
  virtual void on_evict(std::move_only_function<void(Refusal)> f) = 0;
  // How it ended, for metrics and log; else the destructor counts it as cancelled by the client.
  virtual void finish(int status) = 0;
};

struct PickerOptions {
  std::string pool_name = "default", pool_namespace = "default";
  int64_t scrape_interval_ms = 50, staleness_ms = 2'000;
  size_t body_bytes_max = 128u << 20;
  bool subset_filter = true, emit_scores = false, allow_experimental = false;
  bool replies_need_health = true;           // ask /health too (gateway); EPP trusts Kubernetes' readiness
  uint64_t seed = 0;                         // 0 = random
  std::optional<ReplicaOptions> replicas{};  // active-active: in-flight counts and prefixes are exchanged with these
  bool propose_role_flips = false;           // a gauge and a log line, at every refresh_metrics()
  Tracer* tracer = nullptr;                  // nullptr: no spans; outlives the picker
  std::function<void()> on_refresh{};        // part of refresh_metrics(): numbers of the picker's surroundings
};

class Picker {
 public:
  // plan: from route/config.h. metrics: shared by all pickers of the process. Starts its own scraping thread at start().
  static std::unique_ptr<Picker> make(PickerOptions options, std::shared_ptr<const route::Plan> plan, Metrics& metrics,
                                      const Clock& clock);
  virtual ~Picker() = default;
  virtual Result<> start() = 0;
  virtual void stop() = 0;                                             // refuses new requests (503), wakes all waiting with 503
  virtual void set_plan(std::shared_ptr<const route::Plan> plan) = 0;  // hot reload
  virtual void set_cluster(std::shared_ptr<const discovery::ClusterState> state) = 0;

  virtual std::unique_ptr<Flight> begin(const Head& head) = 0;
  // Reads a body for a Flight that will begin when it is complete, so that no work is left then. May be nullptr.
  virtual std::shared_ptr<BodyReader> begin_body(std::string_view /*path*/) { return nullptr; }
  // A request without body (GET /v1/models): any endpoint that could answer, never one outside `subset`.
  virtual std::expected<std::string, Refusal> any_endpoint(const Subset& subset) = 0;

  virtual bool ready() const = 0;      // cluster synced and plan in force
  virtual bool can_serve() const = 0;  // an endpoint that decodes is up
  virtual bool knows_model(std::string_view id) const = 0;
  virtual std::vector<std::string> model_cards() const = 0;  // JSON objects of /v1/models, each id once
  // A proxy learnt that this endpoint refuses connections; it is out until a probe succeeds.
  virtual void report_down(std::string_view address) = 0;
  virtual void refresh_metrics() = 0;          // brings gauges up to date before Metrics::text()
  virtual std::string debug_json() const = 0;  // /debug/plugins/state and `baton top`
};

}  // namespace baton::picker
