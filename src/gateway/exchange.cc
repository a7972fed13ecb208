#include "gateway/exchange.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "base/json.h"
#include "base/log.h"
#include "base/prng.h"
#include "gateway/limits.h"
#include "wire/errors.h"
#include "wire/headers.h"
#include "wire/request_id.h"

namespace baton::gateway {
namespace {

// What is forwarded. Administration (/sleep, /reset_prefix_cache, ...) is not: it is between an operator and one engine.
struct Forwarded {
  std::string_view path;
  bool generates, chat;  // streams of these can be resumed
};
constexpr std::array<Forwarded, 9> kForwarded = {{
    {"/v1/chat/completions", true, true},
    {"/v1/completions", true, false},
    {"/v1/responses", false, false},
    {"/v1/messages", false, false},
    {"/v1/messages/count_tokens", false, false},
    {"/v1/embeddings", false, false},
    {"/inference/v1/generate", false, false},
    {"/tokenize", false, false},
    {"/detokenize", false, false},
}};

// What only proxies and we may say to a picker.
constexpr std::string_view kInsiders[] = {"x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite"};
constexpr std::string_view kFairness = "x-llm-d-inference-fairness-id", kFairnessOld = "x-gateway-inference-fairness-id";
constexpr std::string_view kObjective = "x-llm-d-inference-objective", kObjectiveOld = "x-gateway-inference-objective";
constexpr std::string_view kDropReason = "x-llm-d-request-dropped-reason";

net::Response error_response(int status, std::string_view message, std::string_view param) {
  wire::ApiError error{.status = status, .message = std::string(message), .type = "", .param = std::nullopt};
  if (!param.empty()) error.param = param;
  net::Response response = net::Response::json(status, wire::error_json(error));
  if (status == 429 || status == 503) response.headers.set("Retry-After", "1");
  return response;
}

int64_t wall_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

double ms_between(int64_t from_ns, int64_t to_ns) { return static_cast<double>(to_ns - from_ns) * 1e-6; }

// A place among the requests in flight, given back however the request ends.
struct Slot {
  std::atomic<int>& count;
  const int before;
  explicit Slot(std::atomic<int>& c) : count(c), before(c.fetch_add(1)) {}
  ~Slot() { count -= 1; }
  Slot(const Slot&) = delete;
};

}  // namespace

std::shared_ptr<net::BodyListener> listen_to(Shared& shared, std::string_view method, std::string_view target) {
  const std::string_view path = target.substr(0, target.find('?'));
  if (shared.pools.several() || method != "POST" || std::ranges::find(kForwarded, path, &Forwarded::path) == kForwarded.end())
    return nullptr;
  auto reader = shared.pools.first().picker->begin_body(path);
  return reader ? std::make_shared<EarlyBody>(std::move(reader)) : nullptr;
}

Worker::Worker(Shared& shared, bool probes_only)
    : shared_(shared), probes_only_(probes_only), counts_(shared.metrics.metrics()), posted_(std::make_shared<Posted>()) {
  if (shared.make_guard) guard_ = shared.make_guard();
  if (probes_only) return;
  net::spawn_here([](std::shared_ptr<Posted> posted) -> net::Task<> {
    while (auto f = co_await posted->pop()) (*f)();
  }(posted_));
}

Worker::~Worker() { posted_->close(); }

net::Task<> Worker::handle(net::Request& request, net::ResponseWriter& writer) {
  Exchange x(request, writer);
  x.start_ns = shared_.clock.now_ns();
  x.bytes_in = request.body.size();
  const auto id = request.headers.get(wire::kRequestId);
  x.id = id && wire::usable_request_id(*id) ? std::string(*id) : uuid4();
  co_await dispatch(x);
  if (x.forwarded) finish(x);
}

net::Task<> Worker::dispatch(Exchange& x) {
  const net::Request& request = x.request;
  const auto row = std::ranges::find(kForwarded, std::string_view(request.path), &Forwarded::path);
  const bool probe = request.path == "/metrics" || request.path == "/health" || request.path == "/ping";
  const bool debug = request.path.starts_with("/debug/");
  if (probes_only_ && !probe && !debug) co_return co_await send_error(x, 404, "Not Found");
  x.forwarded = row != kForwarded.end() && request.method == "POST";
  const bool needs_key =
      request.path.starts_with("/v1/") || request.path.starts_with("/inference/") || debug || row != kForwarded.end();
  if (needs_key && !probes_only_ && request.method != "OPTIONS" && !shared_.keys.empty()) {
    x.key = shared_.keys.find(request.headers.get("authorization").value_or(""));
    if (!x.key) {
      counts_.rejected("unauthorized");
      co_return co_await send(x, net::Response::json(401, R"({"error":"Unauthorized"})"));
    }
  }
  if (row == kForwarded.end()) co_return co_await serve_get(x);
  if (request.method != "POST") {
    net::Response response = error_response(405, "Method Not Allowed", "");
    response.headers.set("Allow", "POST");
    co_return co_await send(x, std::move(response));
  }
  x.generates = row->generates, x.chat = row->chat;
  co_await admit(x);
}

// What the gateway answers by itself.
net::Task<> Worker::serve_get(Exchange& x) {
  const std::string_view path = x.request.path;
  const bool state = path == "/debug/plugins/state";
  const bool known = state || path == "/health" || path == "/ping" || path == "/metrics" || path == "/v1/models" ||
                     path.starts_with("/v1/models/");
  if (!known) co_return co_await send_error(x, 404, "Not Found");
  if (x.request.method != "GET" && x.request.method != "HEAD") {
    net::Response response = error_response(405, "Method Not Allowed", "");
    response.headers.set("Allow", "GET");
    co_return co_await send(x, std::move(response));
  }
  if (auto refusal = guard_ && (state || path == "/metrics") ? co_await guard_(x.request) : std::optional<net::Response>())
    co_return co_await send(x, *std::move(refusal));
  if (path == "/metrics") {
    net::Response response = net::Response::text(200, shared_.metrics.text(shared_.pools));
    response.headers.set("Content-Type", Metrics::kContentType);
    co_return co_await send(x, std::move(response));
  }
  if (state) {
    JsonWriter w;
    w.object().field("requests", shared_.in_flight.load()).field("draining", shared_.draining.load()).key("pools").array();
    for (const auto& pool : shared_.pools.all()) w.raw(pool->picker->debug_json());
    w.end().end();
    co_return co_await send(x, net::Response::json(200, w.take()));
  }
  if (path != "/health" && path != "/ping") co_return co_await models(x);
  if (shared_.draining) co_return co_await send_error(x, 503, "shutting down");
  // Ready = a request sent now would find a worker that answers it.
  if (!shared_.pools.can_serve()) co_return co_await send_error(x, 503, "no ready decode worker");
  co_await send(x, net::Response::text(200, ""));
}

net::Task<> Worker::models(Exchange& x) {
  const auto cards = shared_.pools.model_cards();
  constexpr std::string_view kPrefix = "/v1/models/";
  if (x.request.path.starts_with(kPrefix)) {
    const std::string_view id = std::string_view(x.request.path).substr(kPrefix.size());
    const auto card = std::ranges::find(cards, id, &std::pair<std::string, std::string>::first);
    if (card == cards.end()) co_return co_await send_error(x, 404, cat("The model `", id, "` does not exist."), "model");
    co_return co_await send(x, net::Response::json(200, card->second));
  }
  JsonWriter w;
  w.object().field("object", "list").key("data").array();
  for (const auto& [id, json] : cards) w.raw(json);
  w.end().end();
  co_await send(x, net::Response::json(200, w.take()));
}

net::Task<> Worker::admit(Exchange& x) {
  const Slot slot(shared_.in_flight);
  struct Running {
    GatewayMetrics& metrics;
    explicit Running(GatewayMetrics& m) : metrics(m) { metrics.running(1); }
    ~Running() { metrics.running(-1); }
  } running(shared_.metrics);
  if (slot.before >= shared_.config.concurrent_requests_max) {
    counts_.rejected("limit");
    co_return co_await send_error(x, 429,
                                  cat("more than ", shared_.config.concurrent_requests_max, " concurrent requests; retry later"));
  }
  if (const int64_t wait = x.key ? x.key->wait_ms(shared_.clock.now_ms()) : 0; wait > 0) {
    counts_.rejected("rate");
    net::Response response = error_response(429, "the tokens of this key are used up; retry later", "");
    response.headers.set("Retry-After", std::to_string((wait + 999) / 1000));
    co_return co_await send(x, std::move(response));
  }
  x.pool = &shared_.pools.route(shared_.pools.several() ? peek_model(x.request.body) : "");
  const Slot pool_slot(x.pool->in_flight);
  if (const int most = x.pool->spec.concurrent_requests_max; most > 0 && pool_slot.before >= most) {
    counts_.rejected("pool_limit");
    co_return co_await send_error(x, 429, cat("more than ", most, " concurrent requests in this pool; retry later"));
  }
  read_head(x);
  const auto left = x.writer.cancel().on_cancel([&x] { x.stop.cancel(); });
  x.flight = x.pool->picker->begin({.method = x.request.method,
                                    .path = x.request.path,
                                    .headers = x.head,
                                    .request_id = x.id,
                                    .post = [posted = posted_](auto f) { posted->push(std::move(f)); }});
  x.flight->on_evict([&x](picker::Refusal refusal) {
    x.evicted = std::move(refusal);
    x.stop.cancel();
  });
  co_await forward(x);
}

// The request's fields as the picker wants them: lower case, with what only insiders may say left out, and the key's tenant.
void Worker::read_head(Exchange& x) {
  size_t bytes = 0;
  for (const auto& [name, value] : x.request.headers.fields()) bytes += name.size();
  x.names.reserve(bytes);  // views into it must stay
  x.head.reserve(x.request.headers.fields().size() + 2);
  for (const auto& [name, value] : x.request.headers.fields()) {
    const size_t begin = x.names.size();
    for (char c : name) x.names += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    const std::string_view lower = std::string_view(x.names).substr(begin);
    const bool tenant = lower == kFairness || lower == kFairnessOld;
    const bool objective = lower == kObjective || lower == kObjectiveOld;
    if (x.key && (tenant || (objective && !x.key->objective.empty()))) continue;
    if (std::ranges::find(kInsiders, lower) != std::end(kInsiders)) continue;
    if (std::ranges::find(wire::kRoutingHeaders, lower) != std::end(wire::kRoutingHeaders)) continue;
    x.head.push_back({lower, value});
  }
  if (!x.key) return;
  x.head.push_back({kFairness, x.key->name});
  if (!x.key->objective.empty()) x.head.push_back({kObjective, x.key->objective});
}

// Waits where flow control makes it wait; nullopt: the client left meanwhile, or we are stopping.
net::Task<std::optional<Worker::Picked>> Worker::decide(Exchange& x) {
  struct Wait {
    std::optional<Picked> picked;
    std::unique_ptr<net::Mailbox<char>> wake;
  };
  const auto wait = std::make_shared<Wait>();
  x.flight->decide({}, [wait](Picked picked) {
    wait->picked = std::move(picked);
    if (wait->wake) wait->wake->close();
  });
  if (!wait->picked) {
    wait->wake = std::make_unique<net::Mailbox<char>>();
    const auto left = x.stop.on_cancel([wait] { wait->wake->close(); });
    (void)co_await wait->wake->pop();
  }
  co_return std::move(wait->picked);
}

net::Task<> Worker::send(Exchange& x, net::Response response) {
  response.headers.set(wire::kRequestId, x.id);
  x.status = response.status;
  x.bytes_out = response.body.size();
  if (!co_await x.writer.send(std::move(response))) x.note = "client left";
}

net::Task<> Worker::send_error(Exchange& x, int status, std::string_view message, std::string_view param) {
  co_await send(x, error_response(status, message, param));
}

net::Task<> Worker::refuse(Exchange& x, const picker::Refusal& refusal) {
  net::Response response = error_response(refusal.status, refusal.message, refusal.status == 404 ? "model" : "");
  if (refusal.retry_after_s > 0) response.headers.set("Retry-After", std::to_string(refusal.retry_after_s));
  if (!refusal.drop_reason.empty()) response.headers.set(kDropReason, refusal.drop_reason);
  co_await send(x, std::move(response));
}

void Worker::finish(Exchange& x) {
  const double ms = ms_between(x.start_ns, shared_.clock.now_ns());
  const int status = x.writer.cancel().cancelled() && x.note == "client left" ? 499 : x.status;
  if (x.flight) x.flight->finish(status);
  counts_.finished(x.pool ? std::string_view(x.pool->spec.name) : "", status);
  write_logs(x, status, ms);
}

void Worker::write_logs(const Exchange& x, int status, double ms) {
  const int64_t tokens_in = x.flight ? x.flight->prompt_tokens() : 0;
  if (log_enabled(LogLevel::kInfo)) {
    log_info("request",
             "x-request-id={} peer={} path={} model={} status={} decode={} prefill={} attempts={} tokens_in={} bytes_out={} "
             "first_byte_ms={:.1f} ms={:.1f}{}{}{}{}",
             x.id, x.request.peer, x.request.path, x.model, status, x.decode.empty() ? "-" : x.decode,
             x.prefill.empty() ? "-" : x.prefill, x.attempts, tokens_in, x.bytes_out, x.first_byte_ms, ms, x.key ? " key=" : "",
             x.key ? x.key->name : "", x.note.empty() ? "" : " note=", x.note.empty() ? "" : json_string(x.note));
  }
  if (!shared_.access_log.on()) return;
  JsonWriter w;
  w.object().field("time_ms", wall_ms()).field("id", x.id).field("peer", x.request.peer);
  w.field("key", x.key ? x.key->name : "").field("method", x.request.method).field("path", x.request.path);
  w.field("pool", x.pool ? x.pool->spec.name : "")
      .field("model", x.model)
      .field("stream", x.flight && x.flight->stream())
      .field("status", status);
  w.field("decode", x.decode).field("prefill", x.prefill).field("why", std::string(x.why)).field("attempts", x.attempts);
  w.field("legs", x.legs).field("tokens_in", tokens_in);
  if (x.tokens_out >= 0) w.field("tokens_out", x.tokens_out);
  w.field("bytes_in", x.bytes_in).field("bytes_out", x.bytes_out).field("decided_ms", x.decided_ms);
  w.field("ttft_ms", x.first_byte_ms).field("ms", ms).field("note", x.note).end();
  shared_.access_log.line(w.text());
}

}  // namespace baton::gateway
