#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace baton::model {
namespace {

TEST(Rope, ScalingsFollowTheirFormulas) {
  ModelConfig c;
  c.head_dim = 64;
  c.rope_theta = 500000;
  const Rope plain = make_rope(c, LayerRope::kGlobal, c.context);
  ASSERT_EQ(plain.frequencies.size(), 32u);
  EXPECT_EQ(plain.frequencies[0], 1);
  EXPECT_NEAR(plain.frequencies[16], std::pow(500000, -0.5), 1e-9);
  c.rope_scaling = RopeScaling::kLinear;
  c.rope_factor = 4;
  for (size_t i = 0; i < 32; ++i)
    EXPECT_FLOAT_EQ(make_rope(c, LayerRope::kGlobal, c.context).frequencies[i], plain.frequencies[i] / 4);
  c.rope_scaling = RopeScaling::kLlama3;
  c.rope_factor = 8;
  const Rope llama3 = make_rope(c, LayerRope::kGlobal, c.context);
  EXPECT_EQ(llama3.frequencies[0], plain.frequencies[0]);              // short wavelength: kept
  EXPECT_FLOAT_EQ(llama3.frequencies[31], plain.frequencies[31] / 8);  // long: divided
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_LE(llama3.frequencies[i], plain.frequencies[i]);
    EXPECT_GE(llama3.frequencies[i], plain.frequencies[i] / 8.0001f);
  }
  c.rope_scaling = RopeScaling::kYarn;
  c.rope_original_context = 4096;
  const Rope yarn = make_rope(c, LayerRope::kGlobal, c.context);
  EXPECT_EQ(yarn.frequencies[0], 1);
  EXPECT_FLOAT_EQ(yarn.frequencies[31], plain.frequencies[31] / 8);
  EXPECT_NEAR(yarn.magnitude, 0.1 * std::log(8.0) + 1, 1e-6);
  c.yarn_truncate = false;
  EXPECT_EQ(make_rope(c, LayerRope::kGlobal, c.context).frequencies[0], 1);
  EXPECT_NE(make_rope(c, LayerRope::kGlobal, c.context).frequencies[12], yarn.frequencies[12]);
  c.rope_scaling = RopeScaling::kNone;
  c.rope_local_theta = 100;
  EXPECT_FLOAT_EQ(make_rope(c, LayerRope::kLocal, c.context).frequencies[16], 0.1f);
  const Rope none = make_rope(c, LayerRope::kNone, c.context);
  EXPECT_TRUE(none.frequencies.empty());
  EXPECT_EQ(none.still, 32);
  c.rope_divisors.assign(32, 2);
  EXPECT_FLOAT_EQ(make_rope(c, LayerRope::kGlobal, c.context).frequencies[5], plain.frequencies[5] / 2);
  c.rope_scaling = RopeScaling::kLongRope;
  c.rope_dims = 32;
  c.rope_original_context = 4096;
  c.rope_short.assign(16, 1);
  c.rope_long.assign(16, 3);
  const Rope within = make_rope(c, LayerRope::kGlobal, 4096), beyond = make_rope(c, LayerRope::kGlobal, 4097);
  EXPECT_EQ(std::tie(within.still, beyond.still), std::make_tuple(16, 16));
  EXPECT_FLOAT_EQ(within.frequencies[8], std::pow(500000.f, -0.5f));
  EXPECT_FLOAT_EQ(beyond.frequencies[8], within.frequencies[8] / 3);
  EXPECT_FLOAT_EQ(beyond.magnitude, static_cast<float>(std::sqrt(1 + std::log(8.0) / std::log(4096.0))));
  std::vector<float> cosine(32), sine(32);
  rope_row(beyond, 9, cosine.data(), sine.data());
  EXPECT_EQ(std::tie(cosine[16], sine[31]), std::make_tuple(1.f, 0.f));
  rope_row(plain, 7, cosine.data(), sine.data());
  for (size_t i = 0; i < 32; ++i) EXPECT_NEAR(cosine[i] * cosine[i] + sine[i] * sine[i], 1, 1e-6);
  EXPECT_FLOAT_EQ(cosine[0], std::cos(7.f));
}

}  // namespace
}  // namespace baton::model
