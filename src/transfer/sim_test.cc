// The transfer protocol on virtual time, under everything that can go wrong (testing/sim.h): a million steps from fresh seeds in
// a plain build, fewer under sanitizers. BATON_SIM_SEED=n runs one seed again, BATON_SIM_TRACE=1 prints what happens in it,
// BATON_SIM_STEPS=n sets the steps of the whole run, or of that one seed.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/log.h"
#include "transfer/testing/sim.h"

namespace baton::transfer {
namespace {

using testing::Sim;

#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr int64_t kSteps = 60'000;
#else
constexpr int64_t kSteps = 1'000'000;
#endif
constexpr int kStepsPerSeed = 2'000;

uint64_t setting(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(Simulation, InvariantsHoldWhateverHappens) {
  log_setup("sim", LogLevel::kOff);
  bool trace = setting("BATON_SIM_TRACE", 0) != 0;
  bool one = std::getenv("BATON_SIM_SEED") != nullptr;
  auto steps = static_cast<int64_t>(setting("BATON_SIM_STEPS", one ? kStepsPerSeed : kSteps));
  auto seeds = one ? int64_t{1} : steps / kStepsPerSeed;
  auto first = setting("BATON_SIM_SEED", secure_random_u64());
  Sim::Counts all;
  for (int64_t i = 0; i < seeds; ++i) {
    auto seed = first + static_cast<uint64_t>(i);
    Sim sim(seed, trace);
    sim.run(one ? static_cast<int>(steps) : kStepsPerSeed);
    ASSERT_EQ(sim.failure(), "") << "replay with BATON_SIM_SEED=" << seed << "\n" << sim.story();
    all += sim.counts;
  }
  std::printf("simulation: %s\n", all.text().c_str());
  if (one) return;
  EXPECT_GT(all.complete, 0u);
  EXPECT_GT(all.sure, 0u);
  EXPECT_GT(all.partial, 0u);
  EXPECT_GT(all.failed, 0u);
  EXPECT_GT(all.refused, 0u);
  EXPECT_GT(all.expired, 0u);
  EXPECT_GT(all.released, 0u);
  EXPECT_GT(all.faults, 0u);
  EXPECT_GT(all.pushed, 0u);
  EXPECT_GT(all.push_sure, 0u);
  EXPECT_GT(all.dead, 0u);
  EXPECT_GT(all.gone, 0u);
}

// The same seed is the same story: else a failure could not be found again.
TEST(Simulation, ASeedIsAStory) {
  log_setup("sim", LogLevel::kOff);
  auto seed = secure_random_u64();
  std::string stories[2];
  for (auto& story : stories) {
    Sim sim(seed, false);
    sim.run(1000);
    story = sim.story();
  }
  EXPECT_EQ(stories[0], stories[1]) << "seed " << seed;
}

}  // namespace
}  // namespace baton::transfer
