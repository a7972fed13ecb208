#include "engine/draft_policy.h"

#include <gtest/gtest.h>

#include "base/prng.h"

namespace baton::engine {
namespace {

TEST(StepCost, PriceIsTheRowsShareOfTheStep) {
  StepCost cost;
  EXPECT_EQ(cost.price(1), kPriceMin);
  for (int i = 0; i < 10; ++i) cost.observe(4, 0.01);
  EXPECT_EQ(cost.price(4), kPriceMin) << "one number of rows says nothing of another";
  for (int i = 0; i < 400; ++i) {
    const int32_t rows = 1 + i % 8;
    cost.observe(rows, 0.002 + 0.0005 * rows);
  }
  EXPECT_NEAR(cost.price(1), 0.2, 0.01);
  EXPECT_NEAR(cost.price(4), 0.5, 0.01);
  EXPECT_NEAR(cost.price(64), 0.941, 0.01);
  for (int i = 0; i < 400; ++i) cost.observe(1 + i % 8, 0.002);  // another machine
  EXPECT_EQ(cost.price(8), kPriceMin);
}

TEST(StepCost, NoiseAndNonsenseStayInBounds) {
  Prng prng(3);
  StepCost cost;
  for (int i = 0; i < 10'000; ++i) {
    cost.observe(static_cast<int32_t>(prng.between(1, 300)), prng.chance(0.3) ? 0 : prng.uniform());
    const double price = cost.price(static_cast<int32_t>(prng.between(1, 300)));
    ASSERT_GE(price, kPriceMin);
    ASSERT_LE(price, 1);
  }
}

// Drafts of a text whose next token is guessed right with probability p.
struct Life {
  int64_t tokens = 0, drafted = 0, accepted = 0;
};
Life live(double p, double price, int64_t tokens, DraftPace pace = {}) {
  Prng prng(5);
  Life life;
  while (life.tokens < tokens) {
    const int32_t n = pace.length(price, 8);
    int32_t right = 0;
    while (right < n && prng.chance(p)) ++right;
    if (n > 0) pace.learn(n, right);
    life.tokens += 1 + right;
    life.drafted += n;
    life.accepted += right;
  }
  return life;
}

TEST(DraftPace, WrongDraftsCostLittle) {
  const Life life = live(0, kPriceMin, 10'000);
  EXPECT_LE(life.drafted, 10'000 / kProbeTokens + 20);
  EXPECT_GT(life.drafted, 10'000 / kProbeTokens - 20) << "it never tries again";
}

TEST(DraftPace, RightDraftsAreLong) {
  const Life life = live(0.97, kPriceMin, 10'000);
  EXPECT_GT(static_cast<double>(life.accepted), 0.8 * 10'000);
}

TEST(DraftPace, DraftsOnlyWhatIsWorthItsPrice) {
  EXPECT_GT(live(0.6, 0.2, 10'000).drafted, 2'000);
  EXPECT_LT(live(0.6, 0.9, 10'000).drafted, 400);
  EXPECT_EQ(DraftPace().length(0.3, 8), 1);  // 0.5 is above it, 0.25 is not
  EXPECT_EQ(DraftPace().length(0.3, 0), 0);
}

TEST(DraftPace, ComesBackWhenTheTextIsEasyAgain) {
  DraftPace pace;
  for (int i = 0; i < 30; ++i) pace.learn(1, 0);
  EXPECT_EQ(pace.length(kPriceMin, 8), 0);
  EXPECT_GT(live(0.95, kPriceMin, 3'000, pace).accepted, 1'000);
}

}  // namespace
}  // namespace baton::engine
