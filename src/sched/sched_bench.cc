// What the step thread pays for scheduling: plan() + commit(). Goal: tens of microseconds a step with 256 running sequences.
#include <benchmark/benchmark.h>

#include "base/prng.h"
#include "sched/scheduler.h"

namespace baton::sched {
namespace {

std::vector<int32_t> prompt(uint64_t seed, int32_t n) {
  std::vector<int32_t> out(static_cast<size_t>(n));
  for (int32_t i = 0; i < n; ++i)
    out[static_cast<size_t>(i)] = static_cast<int32_t>(Prng::at(seed, static_cast<uint64_t>(i)) % 49152);
  return out;
}

void step(Scheduler& scheduler, std::vector<int32_t>& sampled) {
  StepPlan plan = scheduler.plan();
  sampled.assign(plan.seqs.size(), 7);
  size_t samples = 0;
  for (const ScheduledSeq& seq : plan.seqs) samples += seq.samples;
  scheduler.commit(plan, {sampled.data(), samples});
}

constexpr SchedulerConfig kBig{.max_num_batched_tokens = 8192, .max_num_seqs = 1024, .max_model_len = 1 << 20};

// A full batch of decodes in the middle of their answers; blocks fill, are hashed and taken as they do in life.
void BM_DecodeStep(benchmark::State& state) {
  auto seqs = state.range(0);
  Scheduler scheduler(kBig, kv::BlockPool(1 << 20, true), kv::root_hash("0"));
  for (int64_t i = 0; i < seqs; ++i) {
    benchmark::DoNotOptimize(scheduler.add({.id = static_cast<RequestId>(i),
                                            .prompt = prompt(static_cast<uint64_t>(i), 100 + static_cast<int32_t>(i % 16)),
                                            .max_tokens = 1 << 19,
                                            .cache_salt = {}}));
  }
  std::vector<int32_t> sampled;
  while (scheduler.num_waiting() > 0) step(scheduler, sampled);
  for (auto _ : state) step(scheduler, sampled);
  state.SetItemsProcessed(state.iterations() * seqs);
}
BENCHMARK(BM_DecodeStep)->Arg(1)->Arg(16)->Arg(256)->Arg(1024)->Unit(benchmark::kMicrosecond);

// A prompt comes in, is computed in one step and ends: hashing, lookup, allocation and eviction.
void BM_AdmitPrompt(benchmark::State& state) {
  bool hit = state.range(1) != 0;
  Scheduler scheduler(kBig, kv::BlockPool(4096, true), kv::root_hash("0"));
  std::vector<int32_t> sampled;
  RequestId id = 0;
  for (auto _ : state) {
    state.PauseTiming();
    NewRequest request{
        .id = ++id, .prompt = prompt(hit ? 1 : id, static_cast<int32_t>(state.range(0))), .max_tokens = 1, .cache_salt = {}};
    state.ResumeTiming();
    benchmark::DoNotOptimize(scheduler.add(std::move(request)));
    step(scheduler, sampled);
    scheduler.finish(id);
  }
}
BENCHMARK(BM_AdmitPrompt)->Args({1500, 0})->Args({1500, 1})->Unit(benchmark::kMicrosecond);

// The queue's head does not fit: what asking again costs in every step.
void BM_BlockedHead(benchmark::State& state) {
  Scheduler scheduler(kBig, kv::BlockPool(300, true), kv::root_hash("0"));
  std::vector<int32_t> sampled;
  benchmark::DoNotOptimize(
      scheduler.add({.id = 1, .prompt = prompt(1, 2800), .max_tokens = 1, .cache_salt = {}, .retain_on_finish = true}));
  step(scheduler, sampled);
  scheduler.finish(1);
  auto longer = prompt(1, 2800);  // hits all that is here and then lacks room
  longer.resize(2800 + 1500, 1);
  benchmark::DoNotOptimize(scheduler.add({.id = 2, .prompt = std::move(longer), .max_tokens = 8, .cache_salt = {}}));
  for (auto _ : state) benchmark::DoNotOptimize(scheduler.has_work());
}
BENCHMARK(BM_BlockedHead)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace baton::sched
