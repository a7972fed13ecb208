// The roofline against what was measured on one H100 with Llama-3.1-8B, and how it follows its inputs.
#include "cost/roofline.h"

#include <gtest/gtest.h>

namespace baton::cost {
namespace {

constexpr DeviceRate kH100{989e12, 3.35e12, 450e9};
constexpr ModelWork kLlama8b{6.979e9, 0.525e9, 15.01e9, 32, 4096, 4096, 8, 131'072};

TEST(Roofline, IsTheMeasuredH100) {
  const WorkerCost cost = roofline(kLlama8b, kH100, 1);
  EXPECT_NEAR(ttft_us(cost, {}, 1'000, 0), 28'800, 300);
  // Mean TPOT of 4, 8 and 16 streams at a context of 1,500.
  for (const auto& [streams, us] : {std::pair{4, 5'950.0}, {8, 6'350.0}, {16, 7'150.0}})
    EXPECT_NEAR(tpot_us(cost, {.queued_tokens = 0, .running = streams, .mean_context = 1'500}, 0), us, 0.02 * us) << streams;
}

TEST(Roofline, MoreDevicesAreFasterButNotForNothing) {
  const WorkerCost one = roofline(kLlama8b, kH100, 1), four = roofline(kLlama8b, kH100, 4);
  const double speed = ttft_us(one, {}, 8'000, 0) / ttft_us(four, {}, 8'000, 0);
  EXPECT_GT(speed, 2);
  EXPECT_LT(speed, 4);
  EXPECT_GT(four.decode.fixed_us, one.decode.fixed_us / 4);
}

TEST(Roofline, DevicesBeyondTheKvHeadsHoldCopies) {
  ModelWork two = kLlama8b;
  two.kv_heads = 2;
  EXPECT_DOUBLE_EQ(roofline(two, kH100, 2).decode.per_ctx_us, roofline(two, kH100, 8).decode.per_ctx_us);
}

}  // namespace
}  // namespace baton::cost
