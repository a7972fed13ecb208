// The latency model: what it says of queues and streams, and that fit() finds the figures that made the samples.
#include "cost/cost.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/prng.h"

namespace baton::cost {
namespace {

constexpr WorkerCost kWorker{{2'000, 60, 0.4}, {6'000, 100, 4}, 131'072};

TEST(Cost, TtftGrowsWithQueueAndPromptAndFallsWithWhatIsCached) {
  const WorkerLoad idle, busy{.queued_tokens = 10'000, .running = 4, .mean_context = 500};
  EXPECT_LT(ttft_us(kWorker, idle, 1'000, 0), ttft_us(kWorker, idle, 2'000, 0));
  EXPECT_LT(ttft_us(kWorker, idle, 2'000, 1'500), ttft_us(kWorker, idle, 2'000, 0));
  EXPECT_LT(ttft_us(kWorker, idle, 2'000, 0), ttft_us(kWorker, busy, 2'000, 0));
  EXPECT_GE(ttft_us(kWorker, idle, 2'000, 2'000), kWorker.prefill.fixed_us) << "the last token is always computed";
  EXPECT_DOUBLE_EQ(ttft_us(kWorker, idle, 1'024, 0), 2'000 + 1'024 * (60 + 0.4 * 512 / 1'024));
}

TEST(Cost, TpotGrowsWithStreamsAndContext) {
  EXPECT_DOUBLE_EQ(tpot_us(kWorker, {.queued_tokens = 0, .running = 9, .mean_context = 1'024}, 1), 6'000 + 10 * 104);
  EXPECT_LT(tpot_us(kWorker, {.queued_tokens = 0, .running = 9, .mean_context = 10}, 1),
            tpot_us(kWorker, {.queued_tokens = 0, .running = 9, .mean_context = 9'000}, 1));
}

std::vector<Sample> samples_of(const LinearCost& truth, Prng& prng, int n, double noise) {
  std::vector<Sample> out;
  for (int i = 0; i < n; ++i) {
    Sample s{.new_tokens = prng.between(1, 8'000), .mean_context = prng.uniform() * 16'000};
    s.us = truth.step_us(s.new_tokens, s.mean_context) * (1 + noise * (prng.uniform() - 0.5));
    out.push_back(s);
  }
  return out;
}

TEST(Fit, FindsTheFiguresThatMadeTheSamples) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Prng prng(seed);
    const LinearCost truth{prng.uniform() * 10'000 + 500, prng.uniform() * 100 + 5, prng.uniform() * 10 + 0.5};
    const LinearCost exact = fit(samples_of(truth, prng, 40, 0), {});
    EXPECT_NEAR(exact.fixed_us, truth.fixed_us, 1e-3 * truth.fixed_us + 1) << "seed " << seed;
    EXPECT_NEAR(exact.per_token_us, truth.per_token_us, 1e-3 * truth.per_token_us) << "seed " << seed;
    EXPECT_NEAR(exact.per_ctx_us, truth.per_ctx_us, 1e-3 * truth.per_ctx_us) << "seed " << seed;
    const LinearCost noisy = fit(samples_of(truth, prng, 2'000, 0.1), {});
    for (int i = 0; i < 10; ++i) {
      const auto tokens = prng.between(1, 8'000);
      const double context = prng.uniform() * 16'000, want = truth.step_us(tokens, context);
      EXPECT_NEAR(noisy.step_us(tokens, context), want, 0.05 * want) << "seed " << seed << " tokens " << tokens;
    }
  }
}

TEST(Fit, IsNeverNegativeWhateverTheSamples) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Prng prng(seed);
    std::vector<Sample> wild;
    for (int i = 0; i < 30; ++i) {
      wild.push_back(
          {.new_tokens = prng.between(-5, 100), .mean_context = prng.uniform() * 1e4 - 10, .us = prng.uniform() * 1e6 - 100});
      if (prng.chance(0.1)) wild.back().us = NAN;
    }
    const LinearCost got = fit(wild, {});
    EXPECT_TRUE(got.fixed_us >= 0 && got.per_token_us >= 0 && got.per_ctx_us >= 0) << "seed " << seed;
    EXPECT_TRUE(std::isfinite(got.step_us(100, 1'000))) << "seed " << seed;
  }
}

TEST(Fit, KeepsThePriorWithoutEvidence) {
  const LinearCost prior{1, 2, 3};
  Prng prng(1);
  EXPECT_EQ(fit({}, prior), prior);
  EXPECT_EQ(fit(samples_of({5, 6, 7}, prng, 7, 0), prior), prior);
}

TEST(Fit, OneSizeOfStepStillPredictsThatSize) {
  const std::vector<Sample> same(20, Sample{.new_tokens = 64, .mean_context = 1'000, .us = 9'000});
  const LinearCost got = fit(same, {1, 2, 3});
  EXPECT_NEAR(got.step_us(64, 1'000), 9'000, 1);
}

}  // namespace
}  // namespace baton::cost
