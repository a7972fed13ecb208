// What a hop costs: client and server of this folder over loopback, each on its own thread. CPU time counts both threads
// (MeasureProcessCPUTime), because on a full machine that is what a request costs.
#include <benchmark/benchmark.h>

#include "base/result.h"
#include "net/codec.h"
#include "net/http.h"
#include "net/sse.h"

namespace {

using namespace baton;
using namespace baton::net;

constexpr std::string_view kHead =
    "POST /v1/chat/completions HTTP/1.1\r\nHost: 10.0.0.1:8000\r\nContent-Type: application/json\r\nAuthorization: Bearer abc\r\n"
    "User-Agent: OpenAI/Python 1.99\r\nAccept: application/json\r\nContent-Length: 0\r\n\r\n";

void decode_request(benchmark::State& state) {
  RequestDecoder decoder(64 << 10, 1 << 20);
  for (auto _ : state) {
    BATON_CHECK(decoder.feed(kHead).has_value() && decoder.done());
    benchmark::DoNotOptimize(decoder.take());
  }
}
BENCHMARK(decode_request);

void sse_events(benchmark::State& state) {
  std::string text;
  for (int i = 0; i < 100; ++i)
    text += cat("data: {\"id\":\"chatcmpl-", i, "\",\"choices\":[{\"delta\":{\"content\":\" word\"}}]}\n\n");
  for (auto _ : state) {
    SseParser parser;
    std::vector<SseEvent> events;
    BATON_CHECK(parser.feed(text, events).has_value() && events.size() == 100);
  }
  state.SetItemsProcessed(state.iterations() * 100);
}
BENCHMARK(sse_events);

Call call_to(const Server& server) {
  Call call;
  call.host = "127.0.0.1", call.port = server.port(), call.method = "POST", call.target = "/v1/completions";
  call.headers = {{"content-type", "application/json"}, {"authorization", "Bearer abc"}};
  call.body = R"({"model":"m","prompt":"hello","max_tokens":1})";
  return call;
}

void request(benchmark::State& state) {
  Server server({}, [] {
    return Handler(
        [](Request& r, ResponseWriter& w) -> Task<> { (void)co_await w.send(Response::json(200, std::move(r.body))); });
  });
  BATON_CHECK(server.start().has_value());
  run_task([&]() -> Task<> {
    Client client;
    for (auto _ : state) BATON_CHECK((co_await client.fetch(call_to(server))).has_value());
  });
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(request)->MeasureProcessCPUTime()->UseRealTime();

void streamed_chunks(benchmark::State& state) {
  constexpr int kChunks = 1000;
  Server server({}, [] {
    return Handler([](Request&, ResponseWriter& w) -> Task<> {
      (void)co_await w.begin(200, {{"content-type", "text/event-stream"}});
      for (int i = 0; i < kChunks; ++i) {
        (void)co_await w.write("data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"delta\":{\"content\":\" word\"}}]}\n\n");
        co_await sleep_for(Millis(0));  // as an engine does: one token, then the loop
      }
      (void)co_await w.finish();
    });
  });
  BATON_CHECK(server.start().has_value());
  run_task([&]() -> Task<> {
    Client client;
    for (auto _ : state) {
      auto stream = co_await client.open(call_to(server));
      BATON_CHECK(stream.has_value());
      for (;;) {
        auto bytes = co_await (*stream)->read();
        BATON_CHECK(bytes.has_value());
        if (bytes->empty()) break;
      }
    }
  });
  state.SetItemsProcessed(state.iterations() * kChunks);
}
BENCHMARK(streamed_chunks)->MeasureProcessCPUTime()->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
