// One decision: match the prompt's hash chain, score, pick, record. Reference: llm-d's picker needs 690 to 3,590 us (P50, its own
// studies; facts sheet "performance" 2.1); our aim is 20 us for 100 endpoints, four scorers and a prompt of 8k tokens.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "base/prng.h"
#include "route/config.h"
#include "route/decide.h"

namespace {

using namespace baton;
using namespace baton::route;

struct World {
  std::vector<Endpoint> endpoints;
  std::vector<Load> loads;
  PrefixIndex index;
  std::vector<std::vector<uint64_t>> prompts;

  World(int n, size_t tokens) {
    Prng prng(1);
    for (int i = 0; i < n; ++i) {
      endpoints.push_back(
          {.host = "10.0.0." + std::to_string(i), .port = 8000, .role = i % 2 == 0 ? Role::kPrefill : Role::kDecode, .slot = i});
      loads.push_back({.age_ms = 10,
                       .waiting = static_cast<int32_t>(prng.below(5)),
                       .running = static_cast<int32_t>(prng.below(50)),
                       .kv_usage = static_cast<float>(prng.uniform())});
    }
    for (int p = 0; p < 64; ++p) {
      ChainHasher hasher(1, "m", 64);
      std::string text(tokens * 4, 'x');
      for (char& c : text) c = static_cast<char>('a' + prng.below(26));
      hasher.feed(text);
      prompts.push_back(hasher.chain());
      index.record(prompts.back(), static_cast<int>(prng.below(n)));
    }
  }
};

// Match, decide, record, by the plan of no file: four scorers, decode and prefill stage.
struct Picker {
  World& world;
  std::shared_ptr<const Plan> plan = default_plan();
  Prng prng{2};
  PrefixMatch match{};
  std::vector<size_t> in_flight{};
  size_t sent = 0;

  void pick(std::span<const uint64_t> chain) {
    world.index.match(chain, match);
    Inquiry inquiry;
    inquiry.match = &match;
    inquiry.blocks_total = chain.size();
    inquiry.prompt_tokens = static_cast<int64_t>(chain.size()) * 16;
    const auto verdict = decide({world.endpoints, world.loads}, inquiry, *plan, prng);
    for (const auto* stage : {&verdict->primary, &verdict->prefill}) {
      const auto chosen = static_cast<size_t>(stage->ranked.index[0]);
      world.index.record(chain, world.endpoints[chosen].slot);
      if (!in_flight.empty()) start(chosen);
    }
  }
  // What was sent last is in flight, so that load moves about as in a pool that works.
  void start(size_t chosen) {
    size_t& oldest = in_flight[sent++ % in_flight.size()];
    if (oldest != SIZE_MAX) --world.loads[oldest].inflight_requests;
    ++world.loads[oldest = chosen].inflight_requests;
  }
};

void BM_Plan(benchmark::State& state) {
  World world(static_cast<int>(state.range(0)), static_cast<size_t>(state.range(1)));
  Picker picker{.world = world};
  size_t i = 0;
  for (auto _ : state) picker.pick(world.prompts[i++ % world.prompts.size()]);
}
BENCHMARK(BM_Plan)->Args({2, 128})->Args({100, 8192})->Args({1000, 8192})->Args({1000, 32768})->Unit(benchmark::kMicrosecond);

// One thread, 5,000 a second, each at its time: 100 endpoints that hold all they may, prompts of 8k tokens. Argument: 0 = known
// prompts, 1 = conversations whose turns add 32 blocks, 2 = prompts nobody saw before. Time counts from the start of a pick.
void BM_Paced(benchmark::State& state) {
  using Clock = std::chrono::steady_clock;
  constexpr size_t kBlocks = 512, kTurn = 32;
  World world(100, 8192);
  Picker picker{.world = world};
  picker.in_flight.resize(2000, SIZE_MAX);
  uint64_t next = 0;
  std::vector<std::vector<uint64_t>> talks(1000);
  std::vector<uint64_t> chain;
  const auto fresh = [&](std::vector<uint64_t>& blocks, size_t n) {
    for (size_t i = 0; i < n; ++i) blocks.push_back(mix64(++next));
  };
  const auto prompt = [&](int64_t kind) -> std::span<const uint64_t> {
    if (kind == 0) return world.prompts[++next % world.prompts.size()];
    std::vector<uint64_t>& to = kind == 1 ? talks[++next % talks.size()] : chain;
    if (kind == 2 || to.size() >= kBlocks) to.clear();
    fresh(to, kind == 2 ? kBlocks : kTurn);
    return to;
  };
  for (int i = 0; i < 10'000; ++i) picker.pick(prompt(2));
  for (int i = 0; i < 20'000; ++i) picker.pick(prompt(state.range(0)));
  std::vector<double> us;
  auto due = Clock::now();
  for (auto _ : state) {
    const auto blocks = prompt(state.range(0));
    due += std::chrono::microseconds(200);
    while (Clock::now() < due) continue;
    const auto begin = Clock::now();
    picker.pick(blocks);
    us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
  std::sort(us.begin(), us.end());
  state.counters["p50_us"] = us[us.size() / 2];
  state.counters["p99_us"] = us[us.size() * 99 / 100];
  state.counters["busy"] = std::accumulate(us.begin(), us.end(), 0.0) / 200 / static_cast<double>(us.size());
}
BENCHMARK(BM_Paced)->DenseRange(0, 2)->Iterations(15'000)->Unit(benchmark::kMicrosecond);

// decide() alone. Arguments: endpoints, and 0 = default plan, 1 = baton-pair-handler. 5,000 a second leave 200 us each; the tail
// is printed as p50_us and p99_us.
void BM_DecideAlone(benchmark::State& state) {
  World world(static_cast<int>(state.range(0)), 8192);
  auto plan = default_plan();
  if (state.range(1) == 1) {
    plan = load_config(
               "plugins: [{type: prefill-filter}, {type: decode-filter}, {type: baton-pair-handler}]\n"
               "schedulingProfiles:\n- {name: prefill, plugins: [{pluginRef: prefill-filter}]}\n"
               "- {name: decode, plugins: [{pluginRef: decode-filter}]}\n")
               .plan;
  }
  Prng prng(2);
  PrefixMatch match;
  world.index.match(world.prompts[0], match);
  Inquiry inquiry;
  inquiry.match = &match;
  inquiry.blocks_total = world.prompts[0].size();
  inquiry.prompt_tokens = 8192;
  std::vector<double> us;
  us.reserve(1 << 20);
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    benchmark::DoNotOptimize(decide({world.endpoints, world.loads}, inquiry, *plan, prng));
    if (us.size() < us.capacity())
      us.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(us.begin(), us.end());
  state.counters["p50_us"] = us[us.size() / 2];
  state.counters["p99_us"] = us[us.size() * 99 / 100];
}
BENCHMARK(BM_DecideAlone)->Args({100, 0})->Args({1000, 0})->Args({100, 1})->Args({1000, 1})->Unit(benchmark::kMicrosecond);

void BM_Hash(benchmark::State& state) {
  const std::string text(static_cast<size_t>(state.range(0)), 'x');
  for (auto _ : state) {
    ChainHasher hasher(1, "m", 64);
    hasher.feed(text);
    benchmark::DoNotOptimize(hasher.chain().data());
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Hash)->Arg(1 << 10)->Arg(128 << 10);

}  // namespace
