#include "net/pace.h"

#include <gtest/gtest.h>

namespace baton::net {
namespace {

TEST(Pace, WakesBehindAMultipleOfThePeriod) {
  using Clock = std::chrono::steady_clock;
  for (const auto phase : {Millis(0), Millis(2)}) {
    const auto beat = [phase] { return (Clock::now().time_since_epoch() - phase) / Millis(5); };
    run_task([&]() -> Task<> {
      for (int i = 0; i < 3; ++i) {
        const auto before = beat();
        co_await sleep_until_beat(Millis(5), phase);
        EXPECT_GT(beat(), before);
      }
    });
  }
}

TEST(Pace, EndsWithItsThread) {
  IoThread thread;
  thread.spawn([]() -> Task<> { co_await sleep_until_beat(Millis(3'600'000)); });
  thread.stop();
}

}  // namespace
}  // namespace baton::net
