#include <gtest/gtest.h>

#include <cmath>

#include "tensor/panels.h"

namespace baton::tensor {
namespace {

TEST(Floats, HalvesRoundTripAndRoundToEven) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = f16_to_f32(static_cast<uint16_t>(h));
    if (std::isnan(f))
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(f))));
    else
      ASSERT_EQ(f32_to_f16(f), h) << h;
    if (h < 0x7bff) {  // half way to the next: to the even one
      const float middle = (f + f16_to_f32(static_cast<uint16_t>(h + 1))) / 2;
      ASSERT_EQ(f32_to_f16(middle), h + h % 2) << h;
    }
  }
  EXPECT_EQ(f32_to_f16(65519.f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.f), 0x7c00);
  EXPECT_EQ(f32_to_f16(1e-9f), 0);
  EXPECT_EQ(f32_to_bf16(1.00390625f), 0x3f80);  // a tie, to even
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(NAN))));
}

TEST(Floats, E4m3FollowsItsDefinition) {
  EXPECT_EQ(e4m3_to_f32(0x7e), 448);
  EXPECT_EQ(e4m3_to_f32(0x01), 0x1p-9f);
  EXPECT_EQ(e4m3_to_f32(0x88), -0x1p-6f);
  EXPECT_TRUE(std::isnan(e4m3_to_f32(0x7f)) && std::isnan(e4m3_to_f32(0xff)));
}

}  // namespace
}  // namespace baton::tensor
