// CPU time the sidecar costs a request and a streamed chunk: the whole flow against an engine and a prefiller that do nothing,
// less the same client talking to that engine directly. Everything runs in this process, so process CPU time is the sum of all
// four parties.
#include <benchmark/benchmark.h>

#include "base/log.h"
#include "net/http.h"
#include "sidecar/sidecar.h"

namespace {

using namespace baton;
using namespace baton::net;

constexpr int kChunks = 200;

std::unique_ptr<Server> worker() {
  auto server = std::make_unique<Server>(ServerOptions{}, [] {
    return Handler([](Request& r, ResponseWriter& w) -> Task<> {
      bool prefill = r.body.find("\"do_remote_decode\":true") != std::string::npos;
      if (r.path == "/health") co_return (void) co_await w.send({.status = 200, .headers = {}, .body = {}});
      if (prefill) {
        constexpr const char* kReply = R"({"usage":{"prompt_tokens":9},"kv_transfer_params":{"remote_block_ids":[1,2,3,4]}})";
        co_return (void) co_await w.send(Response::json(200, kReply));
      }
      if (r.body.find("\"stream\":true") == std::string::npos) {
        co_return (void) co_await w.send(Response::json(200, R"({"choices":[{"text":"x"}],"usage":{"prompt_tokens":9}})"));
      }
      (void)co_await w.begin(200, {{"content-type", "text/event-stream"}});
      for (int i = 0; i < kChunks; ++i) {
        (void)co_await w.write("data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"delta\":{\"content\":\" word\"}}]}\n\n");
        co_await sleep_for(Millis(0));
      }
      (void)co_await w.finish();
    });
  });
  BATON_CHECK(server->start().has_value());
  return server;
}

// state.range(0): 0 = straight to the engine, 1 = through the sidecar without a prefiller, 2 = with one
void run(benchmark::State& state, bool stream) {
  log_setup("bench", LogLevel::kOff);
  auto engine = worker(), prefiller = worker();
  sidecar::SidecarConfig config;
  config.port = 0, config.host = "127.0.0.1", config.model_server_port = engine->port();
  config.secure_proxy = false;
  sidecar::Sidecar sidecar(config);
  BATON_CHECK(sidecar.start().has_value());
  std::string body =
      cat(R"({"model":"m","prompt":")", std::string(4000, 'p'), R"(","max_tokens":8)", stream ? R"(,"stream":true})" : "}");
  Call call;
  call.host = "127.0.0.1", call.method = "POST", call.target = "/v1/completions", call.body = body;
  call.port = state.range(0) == 0 ? engine->port() : sidecar.port();
  if (state.range(0) == 2) call.headers.set("x-prefiller-host-port", cat("127.0.0.1:", prefiller->port()));
  run_task([&]() -> Task<> {
    Client client;
    for (auto _ : state) BATON_CHECK((co_await client.fetch(call))->status == 200);
  });
  state.SetItemsProcessed(state.iterations() * (stream ? kChunks : 1));
}
void request(benchmark::State& state) { run(state, false); }
void chunk(benchmark::State& state) { run(state, true); }
BENCHMARK(request)->DenseRange(0, 2)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(chunk)->DenseRange(0, 1)->MeasureProcessCPUTime()->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
