// Events through codec and index, events a second of one core. Aim: 200,000.
#include <benchmark/benchmark.h>

#include "base/prng.h"
#include "route/kv_event_codec.h"
#include "route/kv_event_index.h"

namespace {

using namespace baton;
using namespace baton::route;

// One block an event, half of the events removals of what is old, 64 events a message; `who` keeps the prompts apart.
std::vector<std::string> messages_of(uint64_t who, int n) {
  std::vector<std::string> out;
  for (int m = 0; m < n; ++m) {
    KvEventBatch batch;
    for (uint64_t e = 0; e < 64; ++e) {
      const uint64_t id = who << 32 | static_cast<uint64_t>(m) << 8 | (e & ~1ull);
      if (e % 2 == 1 && m > 0) {
        batch.events.emplace_back(BlockRemoved{.hashes = {mix64(id - 256)}});
        continue;
      }
      BlockStored stored;
      stored.hashes = {mix64(id)};
      for (uint64_t t = 0; t < 16; ++t) stored.tokens.push_back(static_cast<uint32_t>(Prng::at(id, t) % 128'000));
      batch.events.emplace_back(std::move(stored));
    }
    out.push_back(encode_kv_events(batch));
  }
  return out;
}

void BM_KvEvents(benchmark::State& state) {
  const auto messages = messages_of(1, 2000);
  KvEventIndex index({});
  size_t i = 0;
  for (auto _ : state) {
    const auto batch = decode_kv_events(messages[i++ % messages.size()]);
    index.apply(static_cast<int>(i / messages.size() % 100), "m", *batch);
  }
  state.counters["events/s"] = benchmark::Counter(static_cast<double>(64 * i), benchmark::Counter::kIsRate);
}
BENCHMARK(BM_KvEvents)->Unit(benchmark::kMicrosecond);

void BM_KvMatch(benchmark::State& state) {
  KvEventIndex index({});
  std::vector<uint32_t> prompt;
  for (uint64_t t = 0; t < static_cast<uint64_t>(state.range(0)) * 16; ++t) prompt.push_back(static_cast<uint32_t>(mix64(t) % 128'000));
  for (int slot = 0; slot < 8; ++slot) {
    BlockStored stored;
    for (uint64_t b = 0; b < prompt.size() / 16; ++b) stored.hashes.push_back(mix64(b));
    stored.tokens = prompt;
    index.apply(slot, "m", {.events = {stored}});
  }
  const KvPrompt keys = index.keys("m", prompt);
  KvMatch match;
  for (auto _ : state) benchmark::DoNotOptimize(index.match(keys, match));
}
BENCHMARK(BM_KvMatch)->Arg(512)->Arg(2048)->Unit(benchmark::kMicrosecond);

}  // namespace
