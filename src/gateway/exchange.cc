#include "gateway/exchange.h"

#include <algorithm>
#include <array>

#include "base/json.h"
#include "base/log.h"
#include "gateway/limits.h"
#include "wire/errors.h"
#include "wire/headers.h"

namespace baton::gateway {
namespace {

// What is forwarded. Administration (/sleep, /reset_prefix_cache, ...) is not: it is between an operator and one engine.
struct Forwarded {
  std::string_view path;
  Api api;
  bool disaggregated;  // may be prefilled elsewhere
};
constexpr std::array<Forwarded, 8> kForwarded = {{
    {"/v1/chat/completions", Api::kChat, true},
    {"/v1/completions", Api::kCompletions, true},
    {"/v1/responses", Api::kOther, false},
    {"/v1/messages", Api::kChat, false},
    {"/v1/embeddings", Api::kOther, false},
    {"/inference/v1/generate", Api::kOther, false},
    {"/tokenize", Api::kOther, false},
    {"/detokenize", Api::kOther, false},
}};

// Names that a Connection field adds to those.
std::vector<std::string> connection_names(const net::Headers& headers) {
  std::vector<std::string> out;
  for (std::string_view list : headers.get_all("connection")) {
    while (!list.empty()) {
      const size_t comma = std::min(list.find(','), list.size());
      std::string_view name = list.substr(0, comma);
      list.remove_prefix(std::min(comma + 1, list.size()));
      while (name.starts_with(' ')) name.remove_prefix(1);
      while (name.ends_with(' ')) name.remove_suffix(1);
      if (!name.empty()) out.emplace_back(name);
    }
  }
  return out;
}

// What concerns the whole way and not one connection (RFC 9110 7.6.1).
net::Headers end_to_end(const net::Headers& headers) {
  net::Headers out;
  for (const auto& [name, value] : headers.fields()) {
    if (!net::is_hop_by_hop(name)) out.add(name, value);
  }
  for (const std::string& name : connection_names(headers)) out.remove(name);
  return out;
}

bool usable_id(std::string_view id) {
  return !id.empty() && id.size() <= kRequestIdBytesMax && std::ranges::all_of(id, [](char c) { return c > ' ' && c < 0x7f; });
}

// Every byte is looked at whatever the guess, so the time tells nothing about the key.
bool same_secret(std::string_view a, std::string_view b) {
  unsigned difference = a.size() != b.size();
  for (size_t i = 0; i < b.size(); ++i)
    difference |= static_cast<unsigned char>(i < a.size() ? a[i] : 0) ^ static_cast<unsigned char>(b[i]);
  return difference == 0;
}

bool authorized(const net::Request& request, std::string_view key) {
  const auto header = request.headers.get("authorization");
  return key.empty() || (header && header->starts_with("Bearer ") && same_secret(header->substr(7), key));
}

net::Response error_response(int status, std::string_view message, std::string_view param) {
  wire::ApiError error{.status = status, .message = std::string(message), .type = "", .param = std::nullopt};
  if (!param.empty()) error.param = param;
  net::Response response = net::Response::json(status, wire::error_json(error));
  if (status == 429 || status == 503) response.headers.set("Retry-After", "1");
  return response;
}

double ms_between(int64_t from_ns, int64_t to_ns) { return static_cast<double>(to_ns - from_ns) * 1e-6; }

}  // namespace

Worker::Worker(Shared& shared, bool probes_only)
    : shared_(shared), probes_only_(probes_only), prng_(Prng::at(shared.pick_seed, shared.pick_seed.fetch_add(1))) {}

net::Task<> Worker::handle(net::Request& request, net::ResponseWriter& writer) {
  Exchange x(request, writer);
  x.start_ns = shared_.clock.now_ns();
  const auto id = request.headers.get(wire::kRequestId);
  x.id = id && usable_id(*id) ? std::string(*id) : uuid4();
  co_await dispatch(x);
}

net::Task<> Worker::dispatch(Exchange& x) {
  const net::Request& request = x.request;
  const auto row = std::ranges::find(kForwarded, std::string_view(request.path), &Forwarded::path);
  if (probes_only_ && request.path != "/metrics" && request.path != "/health") co_return co_await send_error(x, 404, "Not Found");
  const bool needs_key = request.path.starts_with("/v1/") || request.path.starts_with("/inference/") || row != kForwarded.end();
  if (needs_key && request.method != "OPTIONS" && !authorized(request, shared_.config.api_key)) {
    shared_.metrics.rejected("unauthorized");
    co_return co_await send(x, net::Response::json(401, R"({"error":"Unauthorized"})"));
  }
  if (row == kForwarded.end()) co_return co_await serve_get(x);
  if (request.method != "POST") {
    net::Response response = error_response(405, "Method Not Allowed", "");
    response.headers.set("Allow", "POST");
    co_return co_await send(x, std::move(response));
  }
  co_await admit(x, row->api, row->disaggregated);
}

// What the gateway answers by itself.
net::Task<> Worker::serve_get(Exchange& x) {
  const std::string_view path = x.request.path;
  const bool known =
      path == "/health" || path == "/ping" || path == "/metrics" || path == "/v1/models" || path.starts_with("/v1/models/");
  if (!known) co_return co_await send_error(x, 404, "Not Found");
  if (x.request.method != "GET" && x.request.method != "HEAD") {
    net::Response response = error_response(405, "Method Not Allowed", "");
    response.headers.set("Allow", "GET");
    co_return co_await send(x, std::move(response));
  }
  if (path == "/metrics") {
    net::Response response = net::Response::text(200, shared_.metrics.text(shared_.pool));
    response.headers.set("Content-Type", Metrics::kContentType);
    co_return co_await send(x, std::move(response));
  }
  if (path != "/health" && path != "/ping") co_return co_await models(x);
  // Ready = a request sent now would find a worker that answers it.
  const auto view = shared_.pool.view();
  bool ready = false;
  for (size_t i = 0; i < view->states.size(); ++i) {
    const bool decodes = view->endpoints[i].role != route::Role::kPrefill || shared_.route.prefill_may_decode;
    ready |= decodes && view->states[i]->healthy;
  }
  if (shared_.draining) co_return co_await send_error(x, 503, "shutting down");
  if (!ready) co_return co_await send_error(x, 503, "no ready decode worker");
  co_await send(x, net::Response::text(200, ""));
}

net::Task<> Worker::models(Exchange& x) {
  const auto view = shared_.pool.view();
  constexpr std::string_view kPrefix = "/v1/models/";
  if (x.request.path.starts_with(kPrefix)) {
    const std::string_view id = std::string_view(x.request.path).substr(kPrefix.size());
    const auto card = std::ranges::find(view->models, id, &ModelCard::id);
    if (card == view->models.end()) co_return co_await send_error(x, 404, cat("The model `", id, "` does not exist."), "model");
    co_return co_await send(x, net::Response::json(200, card->json));
  }
  JsonWriter w;
  w.object().field("object", "list").key("data").array();
  for (const ModelCard& card : view->models) w.raw(card.json);
  w.end().end();
  co_await send(x, net::Response::json(200, w.take()));
}

net::Task<> Worker::admit(Exchange& x, Api api, bool disaggregated) {
  struct Slot {  // released however the request ends
    Shared& shared;
    int before;
    explicit Slot(Shared& s) : shared(s), before(s.in_flight.fetch_add(1)) { s.metrics.running(1); }
    ~Slot() { shared.in_flight -= 1, shared.metrics.running(-1); }
  } slot(shared_);
  if (slot.before >= shared_.config.concurrent_requests_max) {
    shared_.metrics.rejected("limit");
    co_return co_await send_error(x, 429,
                                  cat("more than ", shared_.config.concurrent_requests_max, " concurrent requests; retry later"));
  }
  auto view = read_request(x.request.body, api, shared_.hash_seed, shared_.route.block_tokens);
  if (!view) {
    shared_.metrics.rejected("bad_request");
    co_return co_await send_error(x, 400, view.error().message);
  }
  x.view = *std::move(view);
  x.pool = shared_.pool.view();
  x.remote_prefill_allowed = disaggregated;
  if (x.view.model.empty() || x.pool->knows_model(x.view.model))
    x.model = x.view.model.empty() ? "-" : x.view.model;
  else
    x.model = "unknown";
  if (x.view.cut) log_warn("kv_transfer_params of a client cut out", "id={} peer={}", x.id, x.request.peer);
  co_await forward(x, x.view.cut ? std::string_view(x.view.cleaned) : std::string_view(x.request.body));
  finish(x);
}

Result<Worker::Attempt> Worker::choose(Exchange& x) {
  const int64_t begin = shared_.clock.now_ns();
  loads_.clear();
  for (const auto& state : x.pool->states) loads_.push_back(state->load(begin));
  route::RouteRequest request;
  request.model = x.view.model;
  request.prompt_tokens = x.view.prompt_tokens;
  request.chain = x.view.chain;
  request.excluded = x.excluded;
  const route::PrefixMatch match = shared_.pool.match(x.view.chain);
  route::RouteConfig local;  // only made when this request must not be handed over
  const route::RouteConfig* config = &shared_.route;
  if (!x.remote_prefill_allowed) {
    local = shared_.route;
    local.decider = route::DeciderKind::kNever;
    config = &local;
  }
  auto decision = route::pick({x.pool->endpoints, loads_}, request, match, *config, prng_);
  if (!decision) return std::unexpected(decision.error());
  Attempt attempt{.decision = *decision, .decode = {}, .prefill = {}};
  const auto& d = attempt.decision;
  const int64_t prompt = x.view.prompt_tokens;
  const bool remote = d.prefill >= 0;
  attempt.decode = InFlight(x.pool->states[d.decode], remote ? 0 : prompt - d.decode_cached_tokens);
  shared_.pool.record(x.view.chain, x.pool->endpoints[d.decode].slot);
  if (remote) {
    attempt.prefill = InFlight(x.pool->states[d.prefill], prompt - d.prefill_cached_tokens);
    shared_.pool.record(x.view.chain, x.pool->endpoints[d.prefill].slot);
  }
  x.decode = x.pool->endpoints[d.decode].address;
  x.prefill = remote ? x.pool->endpoints[d.prefill].address : "";
  shared_.metrics.decided(x.model, *x.pool, d, static_cast<double>(shared_.clock.now_ns() - begin) * 1e-9);
  return attempt;
}

net::Task<> Worker::forward(Exchange& x, std::string_view body) {
  while (x.attempts < shared_.config.attempts_max) {
    auto attempt = choose(x);
    if (!attempt && attempt.error().code == Code::kNotFound) {
      shared_.metrics.undecided();
      co_return co_await send_error(x, 404, attempt.error().message, "model");
    }
    if (!attempt && x.remote_prefill_allowed && x.remote_prefill_blamed) {
      // Every decode worker failed while another prefilled for it; perhaps it was the prefill side. Once more, without hand-over.
      x.remote_prefill_allowed = false;
      x.excluded.reset();
      continue;
    }
    if (!attempt) {
      shared_.metrics.undecided();
      break;
    }
    ++x.attempts;
    if (co_await attempt_once(x, *attempt, body) == Tried::kDone) co_return;
  }
  if (x.last_failure) co_return co_await send(x, *std::move(x.last_failure));
  co_await send_error(x, 503,
                      x.attempts == 0 ? "no ready worker serves this model; retry later" : "no worker could answer; retry later");
}

net::Call Worker::make_call(const Exchange& x, const Attempt& attempt, std::string_view body) {
  const route::Endpoint& decode = x.pool->endpoints[attempt.decision.decode];
  net::Call call;
  call.host = decode.host;
  call.port = decode.port;
  call.method = x.request.method;
  call.target = x.request.target;
  call.headers = end_to_end(x.request.headers);
  for (std::string_view name : {"host", "expect", "content-length"}) call.headers.remove(name);  // about the way to us
  for (std::string_view name : wire::kRoutingHeaders) call.headers.remove(name);
  call.headers.set(wire::kRequestId, x.id);
  std::string prefillers;
  const auto ranked = attempt.decision.prefill_ranked.all();
  for (size_t i = 0; i < ranked.size() && i < static_cast<size_t>(shared_.config.prefill_candidates); ++i) {
    prefillers += cat(prefillers.empty() ? "" : ",", x.pool->endpoints[ranked[i]].address);
  }
  if (!prefillers.empty()) call.headers.set(wire::kPrefillerHostPort, prefillers);
  call.body = body;
  call.connect_timeout = net::Millis(shared_.config.connect_timeout_ms);
  call.first_byte_timeout = net::Millis(shared_.config.first_byte_timeout_ms);
  call.idle_timeout = net::Millis(shared_.config.idle_timeout_ms);
  call.body_bytes_max = SIZE_MAX;
  call.cancel = &x.writer.cancel();
  return call;
}

// 503 is the decode side's "not ready", 502 may be the prefill side's failure shining through (--on-prefill-failure error): then
// the next try uses another prefill worker where there is one. Either way forward() may end with a try without hand-over.
void Worker::give_up_on(Exchange& x, const Attempt& attempt, std::string_view reason) {
  x.excluded.set(attempt.decision.decode);
  if (attempt.decision.prefill >= 0 && (reason == "502" || reason == "503")) {
    x.remote_prefill_blamed = true;
    if (reason == "502") x.excluded.set(attempt.decision.prefill);
  }
  x.note = reason;
  shared_.metrics.retried(reason);
  log_warn("worker failed before the first byte", "id={} endpoint={} reason={} attempt={}", x.id, x.decode, reason, x.attempts);
}

net::Task<Worker::Tried> Worker::attempt_once(Exchange& x, Attempt& attempt, std::string_view body) {
  auto opened = co_await client_.open(make_call(x, attempt, body));
  if (x.writer.cancel().cancelled()) {
    x.status = 499;
    co_return Tried::kDone;
  }
  if (!opened) {
    // Refused or closed: it is gone until the Prober says otherwise.
    if (opened.error().code == Code::kUnavailable) x.pool->states[attempt.decision.decode]->healthy = false;
    give_up_on(x, attempt, code_name(opened.error().code));
    co_return Tried::kNext;
  }
  net::ResponseStream& upstream = **opened;
  if (upstream.status() != 502 && upstream.status() != 503) {
    co_await relay(x, attempt, upstream);
    co_return Tried::kDone;
  }
  net::Response failure;
  failure.status = upstream.status();
  failure.headers = end_to_end(upstream.headers());
  failure.headers.remove("content-length");
  for (;;) {
    auto bytes = co_await upstream.read();
    if (!bytes || bytes->empty() || failure.body.size() + bytes->size() > kFailureBodyBytesMax) break;
    failure.body += *bytes;
  }
  if (!failure.headers.get("retry-after")) failure.headers.set("Retry-After", "1");
  x.last_failure = std::move(failure);
  give_up_on(x, attempt, upstream.status() == 502 ? "502" : "503");
  co_return Tried::kNext;
}

// From here on the client sees this worker's answer, byte for byte and piece for piece.
net::Task<> Worker::relay(Exchange& x, Attempt& attempt, net::ResponseStream& upstream) {
  net::Headers headers = end_to_end(upstream.headers());
  headers.set(wire::kRequestId, x.id);
  // The sidecar says when the named prefill worker failed it and the decode worker read the prompt itself.
  if (!x.prefill.empty() && headers.get(wire::kTtft).value_or("").find("prefill_failed") != std::string_view::npos) {
    x.pool->states[attempt.decision.prefill]->healthy = false;  // until the Prober has looked again
    shared_.metrics.retried("prefill_failed");
    x.prefill.clear();
  }
  headers.set(wire::kWorker, x.prefill.empty() ? cat("decode=", x.decode) : cat("decode=", x.decode, ",prefill=", x.prefill));
  const bool sse = headers.get("content-type").value_or("").starts_with("text/event-stream");
  x.status = upstream.status();
  x.note.clear();
  if (!co_await x.writer.begin(x.status, std::move(headers))) {
    x.note = "client left";
    co_return;
  }
  for (;;) {
    auto bytes = co_await upstream.read();
    if (!bytes) co_return co_await broken_stream(x, bytes.error(), sse);
    if (x.bytes_out == 0) {
      attempt.prefill.release();
      attempt.decode.release_tokens();
      x.first_byte_ms = ms_between(x.start_ns, shared_.clock.now_ns());
      shared_.metrics.first_byte(x.model, x.first_byte_ms * 1e-3);
    }
    if (bytes->empty()) break;
    x.bytes_out += bytes->size();
    if (!co_await x.writer.write(*bytes)) {
      x.note = "client left";
      co_return;
    }
  }
  if (!co_await x.writer.finish()) x.note = "client left";
}

// The worker died in the middle. An event stream ends with an error event, as vLLM ends its own; any other body is cut off, which
// HTTP shows to the client because its length or last chunk is missing.
net::Task<> Worker::broken_stream(Exchange& x, const Error& error, bool sse) {
  if (x.writer.cancel().cancelled()) {
    x.note = "client left";
    co_return;
  }
  x.note = "worker lost";
  shared_.metrics.retried("lost_mid_stream");
  log_warn("worker lost in the middle of an answer", "id={} endpoint={} error=\"{}\"", x.id, x.decode, error.message);
  if (!sse) co_return;
  // Blank lines first: the last event may be half written.
  const std::string event =
      cat("\n\ndata: ", wire::error_json(502, "the worker was lost in the middle of the answer"), "\n\ndata: [DONE]\n\n");
  if (co_await x.writer.write(event)) (void)co_await x.writer.finish();
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

void Worker::finish(Exchange& x) {
  const double ms = ms_between(x.start_ns, shared_.clock.now_ns());
  const int status = x.writer.cancel().cancelled() && x.note == "client left" ? 499 : x.status;
  shared_.metrics.finished(x.model, status, ms * 1e-3, x.request.body.size(), x.bytes_out, x.view.prompt_tokens);
  log_info("request",
           "id={} peer={} path={} model={} status={} decode={} prefill={} attempts={} tokens_in={} bytes_out={} "
           "first_byte_ms={:.1f} ms={:.1f}{}{}",
           x.id, x.request.peer, x.request.path, x.model, status, x.decode.empty() ? "-" : x.decode,
           x.prefill.empty() ? "-" : x.prefill, x.attempts, x.view.prompt_tokens, x.bytes_out, x.first_byte_ms, ms,
           x.note.empty() ? "" : " note=", x.note.empty() ? "" : json_string(x.note));
}

}  // namespace baton::gateway
