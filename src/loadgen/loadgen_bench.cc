// How fast the load generator is when the server costs as little as it can: the most requests and events a second that its own
// numbers can be trusted for. Client and server share the machine. Reference: Python's asyncio client reaches about 1,000 req/s
// and 100,000 events/s (facts sheet "performance" 6.2).
#include <benchmark/benchmark.h>

#include "loadgen/bench.h"
#include "loadgen/fake_server.h"

namespace {

using namespace baton::loadgen;

void BM_ClosedLoop(benchmark::State& state) {
  FakeServer server;
  server.token_ms = 0;
  server.can_tokenize = false;
  BenchConfig config;
  config.port = server.port();
  config.num_prompts = static_cast<int>(state.range(0));
  config.random_input_len = 32;
  config.random_output_len = static_cast<int>(state.range(1));
  config.max_concurrency = 64;
  double requests = 0, tokens = 0;
  for (auto _ : state) {
    const auto report = run_bench(config);
    if (!report || report->failed > 0) return state.SkipWithError("requests failed");
    requests += report->completed;
    tokens += static_cast<double>(report->output_tokens);
  }
  state.counters["req/s"] = benchmark::Counter(requests, benchmark::Counter::kIsRate);
  state.counters["events/s"] = benchmark::Counter(tokens, benchmark::Counter::kIsRate);
}
BENCHMARK(BM_ClosedLoop)
    ->ArgNames({"requests", "tokens"})
    ->Args({10'000, 1})
    ->Args({1'000, 200})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
