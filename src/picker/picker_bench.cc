// What the picker costs: one request's whole life, a decision with a long warm prompt, the metrics scanner, and scraping a
// hundred engines at 20 Hz (CPU of the probing thread alone, as a fraction of a core).
#include <benchmark/benchmark.h>
#include <time.h>

#include <thread>

#include "picker/fake_engine.h"
#include "picker/flight.h"
#include "route/config.h"

namespace baton::picker {
namespace {

struct Bench {
  explicit Bench(int endpoints, std::shared_ptr<const route::Plan> plan = route::default_plan()) {
    PickerOptions options;
    options.replies_need_health = false;
    options.seed = 1;
    core = std::make_unique<Core>(options, std::move(plan), metrics, clock);
    auto cluster = std::make_shared<discovery::ClusterState>();
    cluster->synced = true;
    for (int i = 0; i < endpoints; ++i) {
      discovery::Member m;
      m.host = cat("10.0.", i / 250, ".", i % 250 + 1);
      m.port = 8000;
      cluster->members.push_back(std::move(m));
    }
    core->set_cluster(cluster);
    for (const auto& state : core->pool.view()->states) state->scraped_ns = clock.now_ns(), state->waiting = state->slot % 7;
  }
  void request(std::string_view body) {
    const HeaderField headers[] = {{"host", "x"},
                                   {"user-agent", "bench/1.0"},
                                   {"content-type", "application/json"},
                                   {"x-llm-d-inference-fairness-id", "tenant-1"},
                                   {"x-request-id", "5471a768-14e5-4de7"}};
    Head head;
    head.method = "POST";
    head.path = "/v1/completions";
    head.headers = headers;
    head.request_id = "5471a768-14e5-4de7-b2f3-38fe9aa62298";
    FlightImpl flight(*core, head);
    benchmark::DoNotOptimize(flight.feed(body));
    flight.decide({}, [](auto choice) { benchmark::DoNotOptimize(choice); });
    flight.answer_head(200, "application/json");
    flight.answer_bytes(kAnswer, true);
    flight.finish(200);
  }
  static constexpr std::string_view kAnswer =
      R"({"id":"cmpl-1","object":"text_completion","model":"m","choices":[{"text":"fine, thanks","index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":200,"completion_tokens":100,"total_tokens":300}})";
  Metrics metrics;
  SteadyClock clock;
  std::unique_ptr<Core> core;
};

std::string body_of(size_t prompt_bytes) {
  return R"({"model":"m","max_tokens":100,"prompt":")" + std::string(prompt_bytes, 'x') + R"("})";
}

void BM_Request(benchmark::State& state) {
  Bench bench(static_cast<int>(state.range(0)));
  const std::string body = body_of(static_cast<size_t>(state.range(1)));
  for (auto _ : state) bench.request(body);
  state.SetBytesProcessed(static_cast<int64_t>(body.size()) * state.iterations());
}
// endpoints, prompt bytes: 200 tokens; 8k tokens; 100k tokens
BENCHMARK(BM_Request)->Args({10, 800})->Args({100, 800})->Args({100, 32'768})->Args({100, 450'000})->Args({1'000, 800});

void BM_RequestControlled(benchmark::State& state) {
  auto plan = std::make_shared<route::Plan>(*route::default_plan());
  plan->flow_control.enabled = true;
  Bench bench(100, plan);
  const std::string body = body_of(800);
  for (auto _ : state) {
    for (const auto& s : bench.core->pool.view()->states) s->scraped_ns = bench.clock.now_ns();
    bench.request(body);
  }
}
BENCHMARK(BM_RequestControlled);

// What vLLM writes, about: a few gauges between hundreds of histogram lines.
std::string vllm_text() {
  std::string out;
  for (int family = 0; family < 30; ++family) {
    const std::string name = cat("vllm:some_request_latency_family_", family, "_seconds");
    out += cat("# HELP ", name, " Histogram of something in seconds.\n# TYPE ", name, " histogram\n");
    for (int bucket = 0; bucket < 20; ++bucket)
      out += cat(name, "_bucket{engine=\"0\",le=\"", bucket, ".0\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"} 123456.0\n");
    if (family == 10) {
      out +=
          "vllm:num_requests_waiting{engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"} 3.0\n"
          "vllm:num_requests_running{engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"} 17.0\n"
          "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"} 0.37\n";
    }
  }
  return out;
}

void BM_Scan(benchmark::State& state) {
  const auto scanner = MetricsScanner::make("vllm");
  const std::string text = vllm_text();
  for (auto _ : state) benchmark::DoNotOptimize(scanner->scan(text));
  state.SetBytesProcessed(static_cast<int64_t>(text.size()) * state.iterations());
  state.counters["text_bytes"] = static_cast<double>(text.size());
}
BENCHMARK(BM_Scan);

double thread_seconds(Core& core) {
  std::atomic<int64_t> ns{-1};
  core.prober.spawn([&ns]() -> net::Task<> {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    ns = int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
    co_return;
  });
  while (ns < 0) std::this_thread::yield();
  return static_cast<double>(ns) * 1e-9;
}

// 100 busy engines, 50 ms: counters core_fraction (the target is 0.15) and scrapes a second. range(0): engines filter families.
void BM_Scrape100(benchmark::State& state) {
  constexpr int kEngines = 100;
  std::vector<std::unique_ptr<FakeEngine>> engines;
  for (int i = 0; i < kEngines; ++i) {
    engines.push_back(std::make_unique<FakeEngine>());
    engines.back()->running = 3;
    engines.back()->knows_filter = state.range(0) != 0;
    if (state.range(0) == 0) engines.back()->extra = vllm_text();
  }
  Metrics metrics;
  SteadyClock clock;
  PickerOptions options;
  options.scrape_interval_ms = 50;
  Core core(options, route::default_plan(), metrics, clock);
  if (!core.start()) std::abort();
  auto cluster = std::make_shared<discovery::ClusterState>();
  for (const auto& engine : engines) cluster->members.push_back(engine->member("decode"));
  core.set_cluster(cluster);
  const auto scrapes = [&] {
    int sum = 0;
    for (const auto& engine : engines) sum += engine->scrapes;
    return sum;
  };
  while (scrapes() < 5 * kEngines) std::this_thread::yield();
  double cpu = 0, wall = 0;
  int count = 0;
  for (auto _ : state) {
    const double cpu0 = thread_seconds(core), wall0 = clock.now_s();
    const int first = scrapes();
    timespec two{2, 0};
    nanosleep(&two, nullptr);
    cpu += thread_seconds(core) - cpu0;
    wall += clock.now_s() - wall0;
    count += scrapes() - first;
  }
  state.counters["core_fraction"] = cpu / wall;
  state.counters["scrapes_per_s"] = count / wall;
  core.stop();
}
BENCHMARK(BM_Scrape100)->Arg(1)->Arg(0)->Iterations(1)->Unit(benchmark::kSecond);

}  // namespace
}  // namespace baton::picker
