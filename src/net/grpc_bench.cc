// What the gRPC server costs, protocol alone, over loopback. CPU of the server is its own thread's (measured on it), so the
// client's share does not count: cpu_us = CPU per call or message. Memory per open stream: growth of the heap, divided.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <ctime>
#include <future>

#include "net/grpc.h"
#include "net/grpc_test_client.h"

namespace {

using namespace baton;
using namespace baton::net;

double thread_cpu_us() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}

// Answers each message with a small one, or with itself.
class Answer : public GrpcHandler {
 public:
  Answer(GrpcCall& call, bool echo) : call_(call), echo_(echo) {}
  void on_message(std::string_view m) override { call_.write(echo_ ? m : m.substr(0, 100)); }
  void on_half_close() override { call_.finish(Code::kOk); }
  void on_closed() override {}

 private:
  GrpcCall& call_;
  bool echo_;
};

struct Bench {
  explicit Bench(bool echo) {
    auto factory = [this, echo]() -> GrpcHandlerFactory {
      return [this, echo](GrpcCall& call) -> std::unique_ptr<GrpcHandler> {
        if (call.path() == "/cpu") {
          cpu_us = thread_cpu_us();
          call.finish(Code::kOk);
          return nullptr;
        }
        return std::make_unique<Answer>(call, echo);
      };
    };
    server = std::make_unique<GrpcServer>(GrpcServerOptions{}, factory);
    BATON_CHECK(server->start().has_value());
    client = std::make_unique<GrpcTestClient>(server->port());
  }
  double server_cpu_us() {
    client->corked = false;
    BATON_CHECK(client->open("/cpu")->wait_end() == Code::kOk);
    return cpu_us;
  }
  std::unique_ptr<GrpcServer> server;
  std::unique_ptr<GrpcTestClient> client;
  std::atomic<double> cpu_us{0};
};

void report(benchmark::State& state, double cpu_us, double items) {
  state.counters["cpu_us"] = cpu_us / items;
  state.counters["per_core_s"] = 1e6 * items / cpu_us;
}

// A call as ext_proc makes one for a small request: headers, body, answers to both, end; arg(0) of them at once.
void small_calls(benchmark::State& state) {
  Bench bench(false);
  std::string headers(600, 'h'), body(1400, 'b');
  double before = bench.server_cpu_us();
  for (auto _ : state) {
    std::vector<std::unique_ptr<GrpcTestClient::Call>> calls;
    bench.client->corked = true;
    for (int i = 0; i < state.range(0); ++i) {
      auto& call = calls.emplace_back(bench.client->open("/envoy.service.ext_proc.v3.ExternalProcessor/Process"));
      call->send(headers);
      call->send(body);
    }
    for (auto& c : calls) c->receive(), c->receive();
    for (auto& c : calls) c->half_close();
    for (auto& c : calls) BATON_CHECK(c->wait_end() == Code::kOk);
  }
  report(state, bench.server_cpu_us() - before, static_cast<double>(state.iterations() * state.range(0)));
}
BENCHMARK(small_calls)->Arg(1)->Arg(16)->Arg(64)->UseRealTime();

// Streamed messages of 300 bytes on arg(0) open calls, each answered.
void streamed_messages(benchmark::State& state) {
  Bench bench(true);
  std::vector<std::unique_ptr<GrpcTestClient::Call>> calls;
  for (int i = 0; i < state.range(0); ++i) calls.push_back(bench.client->open("/stream"));
  std::string message(300, 'm');
  double before = bench.server_cpu_us();
  bench.client->corked = true;
  for (auto _ : state) {
    for (auto& c : calls) c->send(message);
    for (auto& c : calls) c->receive();
  }
  report(state, bench.server_cpu_us() - before, static_cast<double>(state.iterations() * state.range(0)));
}
BENCHMARK(streamed_messages)->Arg(1)->Arg(16)->Arg(256)->UseRealTime();

// 450 KB in 62,000 byte messages, all echoed.
void large_bodies(benchmark::State& state) {
  Bench bench(true);
  std::string piece(62'000, 'p');
  double before = bench.server_cpu_us();
  for (auto _ : state) {
    bench.client->corked = true;
    auto call = bench.client->open("/large");
    for (int i = 0; i < 7; ++i) call->send(piece);
    for (int i = 0; i < 7; ++i) BATON_CHECK(call->receive().has_value());
    call->half_close();
    BATON_CHECK(call->wait_end() == Code::kOk);
  }
  double cpu = bench.server_cpu_us() - before;
  report(state, cpu, static_cast<double>(state.iterations()));
  state.counters["MB_per_core_s"] = static_cast<double>(state.iterations()) * 7 * 0.062 / cpu * 1e6;
}
BENCHMARK(large_bodies)->UseRealTime();

// 32,000 calls open at once; each has had a message and its answer.
void open_streams(benchmark::State& state) {
  for (auto _ : state) {
    Bench bench(false);
    std::vector<std::unique_ptr<GrpcTestClient::Call>> calls;
    std::string message(1400, 'm');
    size_t before = mallinfo2().uordblks;
    bench.client->corked = true;
    for (int i = 0; i < state.range(0); ++i) {
      calls.push_back(bench.client->open("/envoy.service.ext_proc.v3.ExternalProcessor/Process"));
      calls.back()->send(message);
      if (i % 64 == 63) bench.client->push();
    }
    for (auto& c : calls) BATON_CHECK(c->receive().has_value());
    state.counters["bytes_both_sides"] = static_cast<double>(mallinfo2().uordblks - before) / static_cast<double>(state.range(0));
  }
}
BENCHMARK(open_streams)->Arg(32'000)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
