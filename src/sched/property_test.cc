// Random lives of a scheduler. A failure prints its seed; the run is a function of it.
#include <gtest/gtest.h>

#include "sched/test_world.h"

namespace baton::sched {
namespace {

Setup random_setup(Prng& prng) {
  Setup s;
  constexpr int32_t kBlockTokens[] = {1, 2, 4, 16};
  s.config.block_tokens = kBlockTokens[prng.below(4)];
  s.config.max_num_batched_tokens = static_cast<int32_t>(prng.chance(0.3) ? prng.between(1, 8) : prng.between(8, 100));
  s.config.max_num_seqs = static_cast<int32_t>(prng.chance(0.2) ? 1 : prng.between(1, 12));
  s.config.max_model_len = static_cast<int32_t>(prng.chance(0.2) ? prng.between(4, 40) : 200);
  s.config.long_prefill_token_threshold = static_cast<int32_t>(prng.chance(0.3) ? prng.between(1, 10) : 0);
  s.config.chunked_prefill = prng.chance(0.8);
  s.config.priority_policy = prng.chance(0.4);
  s.usable_blocks =
      static_cast<int32_t>((prng.chance(0.7) ? prng.between(20, 160) : prng.between(160, 600)) / s.config.block_tokens) + 1;
  s.output_max = static_cast<int32_t>(prng.between(2, 40));
  s.caching = prng.chance(0.8);
  s.plans_ahead = prng.chance(0.5) ? 0 : 1 + prng.below(3);
  s.abort_rate = prng.chance(0.5) ? 0.04 : 0;
  s.remote_rate = prng.chance(0.5) ? prng.uniform() : 0;
  s.retain_rate = prng.chance(0.4) ? prng.uniform() : 0;
  s.fetch_failure_rate = prng.chance(0.5) ? 0.4 : 0;
  s.pin_rate = prng.chance(0.3) ? prng.uniform() : 0;
  s.draft_rate = prng.chance(0.5) ? prng.uniform() : 0;
  s.draft_skill = prng.uniform();
  s.adapters = static_cast<int32_t>(prng.chance(0.3) ? prng.between(1, 4) : 0);
  s.config.max_loras = static_cast<int32_t>(prng.between(1, 3));
  return s;
}

TEST(SchedulerProperty, RandomLives) {
  uint64_t finished = 0, exhausted = 0, preempted = 0, hits = 0, drafted = 0, accepted = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Prng prng(seed);
    World world(random_setup(prng), prng.next());
    world.live(300, 60);
    if (!HasFatalFailure()) world.drain();
    if (HasFailure()) return;
    for (auto& [id, c] : world.clients()) finished += c.ended, exhausted += c.exhausted;
    preempted += world.scheduler().preemptions();
    hits += world.scheduler().prefix_hits();
    drafted += world.drafted();
    accepted += world.accepted();
  }
  // The runs must have been through what they are meant to test.
  EXPECT_GT(finished, 10'000u);
  EXPECT_GT(exhausted, 20u);
  EXPECT_GT(preempted, 1'000u);
  EXPECT_GT(hits, 10'000u);
  EXPECT_GT(drafted, 10'000u);
  EXPECT_GT(accepted, 1'000u);
}

}  // namespace
}  // namespace baton::sched
