// 10 million blocks over 100 endpoints: memory a block, and time a look-up. Reference: the exact radix index of Dynamo at this size
// (facts sheet "performance" 2.2); our aim for the whole decision is 20 us.
#include <benchmark/benchmark.h>

#include "base/prng.h"
#include "route/prefix_index.h"

namespace {

using namespace baton;
using namespace baton::route;

constexpr size_t kChain = 2048, kChains = 4883, kEndpoints = 100;  // 10 M blocks

std::vector<uint64_t> chain_of(uint64_t who, size_t n) {
  std::vector<uint64_t> chain;
  for (uint64_t i = 0; i < n; ++i) chain.push_back(Prng::at(who, i));
  return chain;
}

PrefixIndex& large() {
  static PrefixIndex index(10u << 20, 1u << 17);
  if (index.size() == 0) {
    for (uint64_t who = 0; who < kChains; ++who) index.record(chain_of(who, kChain), static_cast<int>(who % kEndpoints));
  }
  return index;
}

void BM_Match(benchmark::State& state) {
  PrefixIndex& index = large();
  const auto n = static_cast<size_t>(state.range(0));
  std::vector<std::vector<uint64_t>> chains;
  for (uint64_t i = 0; i < 1024; ++i) chains.push_back(chain_of(i * 4 % kChains, n));
  PrefixMatch match;
  size_t i = 0, found = 0;
  for (auto _ : state) found += index.match(chains[i++ % chains.size()], match);
  if (found != n * i) state.SkipWithError("lost blocks");
  state.counters["ns_per_block"] = benchmark::Counter(static_cast<double>(n * i), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["bytes_per_block"] = static_cast<double>(index.bytes()) / static_cast<double>(index.size());
  state.counters["blocks"] = static_cast<double>(index.size());
}
BENCHMARK(BM_Match)->Arg(1)->Arg(512)->Arg(2048)->Unit(benchmark::kMicrosecond);

// A prefix that every endpoint holds: the widest entries.
void BM_MatchShared(benchmark::State& state) {
  PrefixIndex index;
  const auto chain = chain_of(1, static_cast<size_t>(state.range(0)));
  for (int slot = 0; slot < 100; ++slot) index.record(chain, slot);
  PrefixMatch match;
  for (auto _ : state) benchmark::DoNotOptimize(index.match(chain, match));
}
BENCHMARK(BM_MatchShared)->Arg(512)->Arg(2048)->Unit(benchmark::kMicrosecond);

// arg 0: known chains once more; 1: new ones, the endpoint full.
void BM_Record(benchmark::State& state) {
  PrefixIndex index(1u << 20, 31'250);
  std::vector<std::vector<uint64_t>> chains;
  for (uint64_t i = 0; i < (state.range(0) == 0 ? 32u : 4096u); ++i) chains.push_back(chain_of(i, 512));
  for (const auto& chain : chains) index.record(chain, 1);
  size_t i = 0;
  for (auto _ : state) index.record(chains[i++ % chains.size()], 1);
  state.counters["ns_per_block"] = benchmark::Counter(static_cast<double>(512 * i), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_Record)->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

}  // namespace
