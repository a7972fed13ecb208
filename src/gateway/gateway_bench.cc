// What the gateway costs: the same requests sent to a worker directly and through the gateway, CPU time of the whole process
// (client, gateway and worker), so the difference of two rows is the gateway. Reference: 14 ms CPU a request and 57 us a relayed
// chunk for llm-d's picker with Envoy (facts sheet "performance" 2.4); our aim is 0.4 ms and 2 us.
#include <benchmark/benchmark.h>

#include "base/log.h"
#include "gateway/fake_worker.h"
#include "gateway/gateway.h"

namespace {

using namespace baton;
using namespace baton::gateway;

// args: through the gateway?, chunks of the answer, bytes of the prompt
void BM_Requests(benchmark::State& state) {
  log_setup("bench", LogLevel::kWarn);
  const auto chunks = state.range(1);
  FakeWorker worker([chunks](net::Request&, net::ResponseWriter& writer) -> net::Task<> {
    (void)co_await writer.begin(200, {{"Content-Type", "text/event-stream"}});
    const std::string chunk = "data: {\"choices\":[{\"index\":0,\"text\":\" word\"}]}\n\n";
    for (int64_t i = 0; i < chunks; ++i) {
      (void)co_await writer.write(chunk);
      co_await net::sleep_for(net::Millis(0));  // one piece, one packet: as an engine's steps make them
    }
    (void)co_await writer.finish();
  });
  GatewayConfig config;
  config.host = "127.0.0.1";
  config.http_port = 0;
  Gateway gateway(config);
  if (!gateway.start()) return state.SkipWithError("gateway does not start");
  gateway.set_members({worker.member("decode")});
  while (gateway.ready_endpoints() == 0) std::this_thread::yield();
  const std::string body =
      R"({"model":"m","stream":true,"prompt":")" + std::string(static_cast<size_t>(state.range(2)), 'x') + "\"}";
  const int port = state.range(0) != 0 ? gateway.port() : worker.port();
  int64_t pieces = 0;
  net::run_task([&]() -> net::Task<> {
    net::Client client;
    for (auto _ : state) {
      net::Call call;
      call.host = "127.0.0.1", call.port = port, call.method = "POST", call.target = "/v1/completions";
      call.body = body;
      auto stream = co_await client.open(std::move(call));
      for (;;) {
        auto bytes = co_await (*stream)->read();
        if (!bytes || bytes->empty()) break;
        ++pieces;
      }
    }
  });
  state.counters["pieces"] = benchmark::Counter(static_cast<double>(pieces), benchmark::Counter::kAvgIterations);
  gateway.stop();
}
BENCHMARK(BM_Requests)
    ->ArgNames({"gateway", "chunks", "prompt"})
    ->Args({0, 1, 1024})
    ->Args({1, 1, 1024})
    ->Args({0, 100, 1024})
    ->Args({1, 100, 1024})
    ->Args({0, 1, 450'000})
    ->Args({1, 1, 450'000})
    ->MeasureProcessCPUTime()
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
