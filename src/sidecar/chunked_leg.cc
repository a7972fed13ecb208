// Exchange's decode leg in several calls of the engine.
#include "base/log.h"
#include "sidecar/chunked.h"
#include "sidecar/exchange.h"
#include "sidecar/limits.h"
#include "sidecar/rewrite.h"

namespace baton::sidecar {

net::Task<Decoded> Exchange::decode_in_chunks(ChunkedAnswer chunks, const DecodeAsk& ask) {
  net::Headers headers;
  while (chunks.more()) {
    std::string body = chunks.next_body();
    net::Call call = engine_call(ask);
    call.body = body;
    call.body_bytes_max = kChunkAnswerBytesMax;
    auto response = co_await client().fetch(call);
    if (!response && writer_.started()) {  // the client must see a cut stream, not an end
      note(cat("cut: ", response.error().message));
      co_return Decoded::kAnswered;
    }
    if (!response) co_return co_await engine_failed(std::move(response).error(), ask);
    bool good = response->status == 200;
    if (auto taken = good ? chunks.take(response->body) : Result<>(); !taken) {
      good = false;
      response = net::Response::json(502, error_body(502, taken.error().message));
    }
    if (!writer_.started() && ask.may_answer && !co_await ask.may_answer()) co_return Decoded::kWithheld;
    if (!good) {
      note(cat("decode ", response->status));
      status_ = response->status;
      if (!writer_.started()) (void)co_await writer_.send(std::move(*response));
      co_return Decoded::kAnswered;
    }
    if (chunks.stream()) {
      if (!writer_.started()) {
        first_byte_ms_ = ms_since(request_.arrived_ns);
        headers = {{"content-type", "text/event-stream; charset=utf-8"}, {"cache-control", "no-cache"}};
        add_ttft(headers);
        status_ = 200;
        if (!co_await writer_.begin(200, headers)) co_return Decoded::kAnswered;
      }
      std::string event = chunks.event();
      if (!co_await writer_.write(event)) co_return Decoded::kAnswered;
    } else {
      headers = std::move(response->headers);
    }
  }
  Rewrite what = rewrite_of(ask);
  if (chunks.stream()) {
    StreamRewriter lines(what);
    std::string events = lines.feed(chunks.last_events());
    if (co_await writer_.write(events)) (void)co_await writer_.finish();
    co_return Decoded::kAnswered;
  }
  first_byte_ms_ = ms_since(request_.arrived_ns), status_ = 200;
  headers.remove("content-length");
  add_ttft(headers);
  (void)co_await writer_.send({.status = 200, .headers = std::move(headers), .body = rewrite_json(chunks.whole(), what)});
  co_return Decoded::kAnswered;
}

}  // namespace baton::sidecar
