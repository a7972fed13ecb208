#include "sidecar/exchange.h"

#include <algorithm>

#include "base/log.h"
#include "base/prng.h"
#include "sidecar/limits.h"
#include "sidecar/rewrite.h"
#include "wire/headers.h"

namespace baton::sidecar {
namespace {

constexpr bool client_mistake(int status) { return status >= 400 && status < 500 && status != 408 && status != 429; }

bool is_type(const net::Headers& headers, std::string_view type) {
  auto value = headers.get("content-type");
  return value && value->size() >= type.size() && net::same_header_name(value->substr(0, type.size()), type);
}

}  // namespace

Exchange::Exchange(Shared& shared, net::Client& client, net::Request& request, net::ResponseWriter& writer)
    : shared_(shared), client_(client), request_(request), writer_(writer), id_(uuid4()) {
  log_id_ = request.headers.get(wire::kRequestId).value_or(id_).substr(0, kLoggedIdBytesMax);
}

net::Task<> Exchange::run() {
  auto api = intercepted(request_.method, request_.path);
  intercepted_ = api.has_value();
  auto hosts = api ? prefillers(request_.headers) : std::nullopt;
  if (hosts) {
    co_await disaggregate(*api, std::move(*hosts));
  } else {
    if (api && shared_.config.kv_params_trust == "none") {
      auto body = without_kv_params(std::move(request_.body));
      if (!body) {
        (void)co_await answer(400, error_body(400, body.error().message));
        co_return log_done();
      }
      request_.body = std::move(*body);
    }
    co_await decode(request_.body, false, std::nullopt);
  }
  log_done();
}

net::Task<> Exchange::disaggregate(Api api, std::vector<HostPort> hosts) {
  auto root = parse_body(request_.body);
  if (!root) {
    (void)co_await answer(400, error_body(400, root.error().message));
    co_return;
  }
  if (shared_.config.prefiller_sampling && hosts.size() > 1) {
    std::ranges::rotate(hosts, hosts.begin() + static_cast<int64_t>(secure_random_u64() % hosts.size()));
  }
  int64_t start = clock_.now_ns();
  Prefill done = co_await prefill(prefill_body(api, request_.body, *root), hosts);
  if (cancelled()) co_return;
  prefill_ms_ = ms_since(start);
  shared_.metrics.seconds("prefill").observe(prefill_ms_ * 1e-3);
  ttft_ = fmt::format("{}={:.2f}", done.reply ? "prefill_leg" : "prefill_failed", prefill_ms_);
  if (done.reply) {
    auto cached = shared_.config.rewrite_cached_tokens ? done.reply->cached_tokens : std::nullopt;
    co_return co_await decode(decode_body(request_.body, *root, done.reply->kv_params), true, cached);
  }
  if (client_mistake(done.status) || shared_.config.on_prefill_failure == "error") {
    co_return co_await show_failure(std::move(done));
  }
  shared_.metrics.fallback("local");
  note_ += cat(note_.empty() ? "" : ", ", "local prefill");
  auto body = without_kv_params(std::move(request_.body));  // parsed before, so it parses
  request_.body = std::move(*body);
  co_await decode(request_.body, true, std::nullopt);
}

// One prefiller, or with policy "next" one after the other.
net::Task<Exchange::Prefill> Exchange::prefill(const std::string& body, const std::vector<HostPort>& hosts) {
  Prefill last{.reply = {}, .status = 502, .unreadable = false, .why = "no usable host in x-prefiller-host-port", .response = {}};
  if (hosts.empty()) shared_.metrics.prefill_status(last.status);
  bool first = true;
  for (const HostPort& host : hosts) {
    if (!std::exchange(first, false)) {
      if (shared_.config.on_prefill_failure != "next" || client_mistake(last.status)) break;
      shared_.metrics.fallback("next");
    }
    prefiller_ = host.text();
    last = co_await prefill_with_retries(body, host);
    if (last.reply || cancelled()) co_return last;
  }
  log_warn("prefill failed", "id={} prefiller={} status={} why={}", log_id_, prefiller_, last.status, last.why);
  note_ = cat("prefill ", last.status);
  co_return last;
}

net::Task<Exchange::Prefill> Exchange::prefill_with_retries(const std::string& body, const HostPort& host) {
  for (int retries = 0;; ++retries) {
    Prefill done = co_await prefill_once(body, host);
    if (cancelled()) co_return done;
    shared_.metrics.prefill_status(done.status);
    bool transient = done.status == 502 || done.status == 503 || done.status == 504;
    if (!transient || retries >= shared_.config.prefill_max_retries) co_return done;
    co_await net::sleep_for(net::Millis(shared_.config.prefill_retry_backoff_ms));
  }
}

net::Task<Exchange::Prefill> Exchange::prefill_once(const std::string& body, const HostPort& host) {
  net::Call call;
  call.host = host.host, call.port = host.port;
  call.method = request_.method, call.target = request_.target;
  call.headers = headers_for_engine();
  call.body = body;
  call.connect_timeout = kConnectTimeout;
  call.first_byte_timeout = call.idle_timeout = net::Millis(shared_.config.prefill_timeout_ms);
  call.body_bytes_max = kPrefillResponseBytesMax;
  call.cancel = &writer_.cancel();
  Prefill done;
  auto response = co_await client_.fetch(call);
  if (!response) {
    done.status = response.error().code == Code::kDeadlineExceeded ? 504 : 502;
    done.why = response.error().message;
    co_return done;
  }
  done.status = response->status;
  if (response->status / 100 == 2) {
    auto reply = read_prefill_reply(response->body);
    if (reply) {
      if (reply->kv_params == "null") {
        log_warn("prefill gave no kv_transfer_params, the engine will read the prompt itself", "id={} prefiller={}", log_id_,
                 host.text());
      }
      done.reply = std::move(*reply);
      co_return done;
    }
    done.status = 502;
    done.unreadable = true;
    done.why = reply.error().message;
    co_return done;
  }
  done.why = cat("prefiller answered ", response->status);
  done.response = std::move(*response);
  co_return done;
}

// The client sees what the prefiller said, or that it said nothing.
net::Task<> Exchange::show_failure(Prefill failed) {
  if (!failed.response) {
    int status = failed.unreadable ? 400 : failed.status;  // llm-d's choice, and this is its mode
    (void)co_await answer(status, error_body(status, cat("prefill failed: ", failed.why)));
    co_return;
  }
  status_ = failed.status;
  (void)co_await writer_.send(std::move(*failed.response));
}

net::Headers Exchange::headers_for_engine() const {
  net::Headers headers = request_.headers;
  // Host names this proxy; an Expect was answered here; what we may have to read must come uncompressed.
  for (std::string_view name :
       {std::string_view("host"), std::string_view("expect"), wire::kPrefillerHostPort, wire::kPrefillerUrl,
        wire::kEncoderHostsPorts, wire::kDataParallelHostPort, wire::kKvCacheSourceHostPort}) {
    headers.remove(name);
  }
  if (intercepted_) {
    headers.remove("accept-encoding");
    headers.add(wire::kRequestId, id_);  // added, not set: the client's own comes first
  }
  return headers;
}

net::Task<> Exchange::decode(std::string_view body, bool rewrite, std::optional<int64_t> cached_tokens) {
  int64_t start = clock_.now_ns();
  net::Call call;
  call.host = shared_.config.model_server_host, call.port = shared_.config.model_server_port;
  call.method = request_.method, call.target = request_.target;
  call.headers = headers_for_engine();
  call.body = body;
  call.connect_timeout = kConnectTimeout;
  call.cancel = &writer_.cancel();
  auto stream = co_await client_.open(call);
  if (!stream) co_return co_await engine_failed(std::move(stream).error());
  co_await pass_on(**stream, rewrite, cached_tokens);
  if (intercepted_) shared_.metrics.seconds("decode").observe(ms_since(start) * 1e-3);
}

net::Task<> Exchange::engine_failed(Error error) {
  if (error.code == Code::kCancelled) co_return;
  note_ += cat(note_.empty() ? "" : ", ", "engine: ", error.message);
  bool dead = error.code == Code::kUnavailable || error.code == Code::kDataLoss;
  if (dead) shared_.engine_ready = false;  // until the poller sees it well again
  int status = dead ? 503 : 502;
  (void)co_await answer(
      status, error_body(status, cat(dead ? "the decode engine is not ready: " : "the decode engine failed: ", error.message)));
}

net::Task<> Exchange::pass_on(net::ResponseStream& stream, bool rewrite, std::optional<int64_t> cached_tokens) {
  net::Headers headers = stream.headers();
  bool events = is_type(headers, "text/event-stream"), json = is_type(headers, "application/json");
  if (!ttft_.empty()) {
    auto engine = headers.get(wire::kTtft);
    headers.set(wire::kTtft, engine ? cat(ttft_, ',', *engine) : ttft_);
  }
  rewrite = rewrite && (events || json) && request_.method != "HEAD";
  if (rewrite) headers.remove("content-length");
  StreamRewriter lines(cached_tokens);
  std::string whole;  // a JSON answer to rewrite; emptied into the stream if it grows too long for that
  bool begun = false;
  if (!intercepted_) {
    status_ = stream.status();
    if (!co_await writer_.begin(status_, headers)) co_return;
    begun = true;
  }
  for (;;) {
    auto bytes = co_await stream.read();
    // After the first byte the client must see a cut stream, not an end: the handler returns without finish().
    if (!bytes && begun) co_return (void)(note_ += cat(note_.empty() ? "" : ", ", "cut: ", bytes.error().message));
    if (!bytes) co_return co_await engine_failed(std::move(bytes).error());
    bool end = bytes->empty();
    std::string out = std::move(*bytes);
    if (rewrite && events) out = end ? lines.finish() : lines.feed(std::move(out));
    if (rewrite && json && !begun) {
      whole += out;
      if (!end && whole.size() <= kRewriteBytesMax) continue;
      out = end ? rewrite_json(std::move(whole), cached_tokens) : std::move(whole);
    }
    if (!begun) {
      first_byte_ms_ = ms_since(request_.arrived_ns);
      status_ = stream.status();
      if (rewrite && json && end) {
        (void)co_await writer_.send({.status = status_, .headers = std::move(headers), .body = std::move(out)});
        co_return;
      }
      if (!co_await writer_.begin(status_, headers)) co_return;
      begun = true;
    }
    if (!out.empty() && !co_await writer_.write(out)) co_return;
    if (end) break;
  }
  (void)co_await writer_.finish();
}

net::Task<Result<>> Exchange::answer(int status, std::string body) {
  status_ = status;
  net::Response response = net::Response::json(status, std::move(body));
  if (status == 503) response.headers.set("retry-after", "1");
  if (!ttft_.empty()) response.headers.set(wire::kTtft, ttft_);
  co_return co_await writer_.send(std::move(response));
}

void Exchange::log_done() const {
  if (!intercepted_) return;  // probes, scrapes and model lists are no news
  log_info("request", "id={} path={} status={} prefiller={} prefill_ms={:.2f} first_byte_ms={:.2f} total_ms={:.2f}{}{}", log_id_,
           request_.path, cancelled() ? 499 : status_, prefiller_, prefill_ms_, first_byte_ms_, ms_since(request_.arrived_ns),
           note_.empty() ? "" : " note=", note_);
}

}  // namespace baton::sidecar
