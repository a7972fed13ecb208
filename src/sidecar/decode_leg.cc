// Exchange's decode leg: the engine's answer on its way to the client.
#include "base/log.h"
#include "sidecar/exchange.h"
#include "sidecar/limits.h"
#include "wire/headers.h"

namespace baton::sidecar {
namespace {

constexpr int64_t kPaceNs = std::chrono::nanoseconds(kStreamPace).count();

bool is_type(const net::Headers& headers, std::string_view type) {
  auto value = headers.get("content-type");
  return value && value->size() >= type.size() && net::same_header_name(value->substr(0, type.size()), type);
}

}  // namespace

net::Call Exchange::engine_call(const DecodeAsk& ask) {
  const HostPort& engine = shared_.engines[rank_].at;
  net::Call call;
  call.host = engine.host, call.port = engine.port, call.tls = shared_.tls.decoder;
  if (call.tls && engine.host == "127.0.0.1") call.server_name = "localhost";  // the name in an engine's own certificate
  call.method = request_.method, call.target = request_.target;
  call.headers = headers_for(ask.headers);
  call.body = ask.body;
  call.connect_timeout = kConnectTimeout;
  call.cancel = call_cancel(ask);
  return call;
}

net::Task<Decoded> Exchange::decode(DecodeAsk ask) {
  if (api_ == Api::kChat && config().decode_chunk_size > 0 && !ask.judge) {
    auto root = parse_body(ask.body);
    auto chunks = root ? ChunkedAnswer::plan(ask.body, *root, config().decode_chunk_size) : std::nullopt;
    if (chunks) {
      Span span = trace_.leg("chunked_decode", ask.headers);
      span.set("llm_d.pd_proxy.chunked_decode.chunk_size", config().decode_chunk_size);
      co_return co_await decode_in_chunks(std::move(*chunks), ask);
    }
  }
  Span span = trace_.leg("decode", ask.headers);
  int64_t start = clock_.now_ns();
  auto stream = co_await client().open(engine_call(ask));
  if (!stream) co_return co_await engine_failed(std::move(stream).error(), ask);
  Decoded done = co_await pass_on(**stream, ask);
  if (api_ && done == Decoded::kAnswered) shared_.metrics.seconds("decode").observe(ms_since(start) * 1e-3);
  co_return done;
}

// Nobody falls back to anything any more.
void Exchange::forget_bodies() {
  kept_ = std::string();
  request_.body = std::string();
  root_.reset();
}

Rewrite Exchange::rewrite_of(const DecodeAsk& ask) const {
  return {.api = *api_,
          .cached_tokens = config().rewrite_cached_tokens ? ask.cached_tokens : std::nullopt,
          .hide_kv_params = !config().expose_kv_params};
}

void Exchange::add_ttft(net::Headers& headers) const {
  if (ttft_.empty()) return;
  auto engine = headers.get(wire::kTtft);
  headers.set(wire::kTtft, engine ? cat(ttft_, ',', *engine) : ttft_);
}

net::Task<Decoded> Exchange::engine_failed(Error error, const DecodeAsk& ask) {
  if (error.code == Code::kCancelled) co_return cancelled() ? Decoded::kAnswered : Decoded::kWithheld;
  note(cat("engine: ", error.message));
  bool dead = error.code == Code::kUnavailable || error.code == Code::kDataLoss;
  if (dead) shared_.engines[rank_].ready = false;  // until the poller sees it well again
  // A dead engine is no use to anybody: no waiting for the prefill leg.
  if (!dead && ask.may_answer && !co_await ask.may_answer()) co_return Decoded::kWithheld;
  int status = dead ? 503 : 502;
  (void)co_await answer(
      status, error_body(status, cat(dead ? "the decode engine is not ready: " : "the decode engine failed: ", error.message)));
  co_return Decoded::kAnswered;
}

net::Task<Decoded> Exchange::pass_on(net::ResponseStream& stream, const DecodeAsk& ask) {
  net::Headers headers = stream.headers();
  if (ask.on_head) ask.on_head(headers);
  bool events = is_type(headers, "text/event-stream"), json = is_type(headers, "application/json");
  add_ttft(headers);
  bool rewrite = ask.rewrite && (events || json) && request_.method != "HEAD";
  if (rewrite) headers.remove("content-length");
  const Rewrite what = rewrite ? rewrite_of(ask) : Rewrite();
  StreamRewriter lines(what);
  std::string held;  // judged, or a JSON answer to rewrite; emptied into the stream if it grows too long for that
  bool begun = false, judged = !ask.judge;
  if (!api_) {
    status_ = stream.status();
    if (!co_await writer_.begin(status_, headers)) co_return Decoded::kAnswered;
    begun = true;
  }
  int64_t last_read_ns = 0;
  for (int quick = 0;; quick = clock_.now_ns() - last_read_ns < kPaceNs ? quick + 1 : 0) {
    if (events && quick > kQuickReadsUnpaced) co_await net::sleep_for(kStreamPace, call_cancel(ask));
    last_read_ns = clock_.now_ns();
    auto bytes = co_await stream.read();
    // After the first byte the client must see a cut stream, not an end: the handler returns without finish().
    if (!bytes && begun) {
      note(cat("cut: ", bytes.error().message));
      co_return Decoded::kAnswered;
    }
    if (!bytes) co_return co_await engine_failed(std::move(bytes).error(), ask);
    bool end = bytes->empty();
    std::string out = std::move(*bytes);
    if (rewrite && events) out = end ? lines.finish() : lines.feed(std::move(out));
    if (!begun && (!judged || (rewrite && json))) {
      held += out;
      if (!judged) {
        auto send = ask.judge(held, end || held.size() > kJudgedBytesMax);
        if (send == false) co_return Decoded::kWithheld;
        judged = send.has_value();
      }
      if (!judged || (rewrite && json && !end && held.size() <= kRewriteBytesMax)) continue;
      out = rewrite && json && end ? rewrite_json(std::move(held), what) : std::move(held);
    }
    if (!begun) {
      if (ask.may_answer && !co_await ask.may_answer()) co_return Decoded::kWithheld;
      first_byte_ms_ = ms_since(request_.arrived_ns);
      forget_bodies();
      status_ = stream.status();
      if (rewrite && json && end) {
        (void)co_await writer_.send({.status = status_, .headers = std::move(headers), .body = std::move(out)});
        co_return Decoded::kAnswered;
      }
      if (!co_await writer_.begin(status_, headers)) co_return Decoded::kAnswered;
      begun = true;
    }
    if (!out.empty() && !co_await writer_.write(out)) co_return Decoded::kAnswered;
    if (end) break;
  }
  (void)co_await writer_.finish();
  co_return Decoded::kAnswered;
}

}  // namespace baton::sidecar
