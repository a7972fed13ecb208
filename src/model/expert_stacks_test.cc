// Stacks of experts: the parts are found where the forms put them, and a stack that does not fit the configuration is an error,
// never a view beyond its tensor. What they mean as a model: quantised_test.cc and golden_test.cc.
#include "model/expert_stacks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tensor/panels.h"

namespace baton::model {
namespace {

using ::testing::HasSubstr;
using Tensors = std::map<std::string, TensorRef, std::less<>>;

ModelConfig config() {
  ModelConfig c;
  c.experts = 2, c.hidden = 64, c.ffn = 32;
  return c;
}

struct Stacks {
  // part: "gate_up_proj.blocks"
  Result<bool> take(const std::string& part, const char* dtype, std::vector<int64_t> shape,
                    std::span<const std::byte> bytes = {}) {
    const std::string_view type = dtype;
    const std::optional<Dtype> known = type == "F32"    ? std::optional(Dtype::kF32)
                                       : type == "BF16" ? std::optional(Dtype::kBf16)
                                                        : std::nullopt;
    return stacks.take(
        {.name = part, .dtype_text = dtype, .dtype = known, .shape = std::move(shape), .bytes = bytes.empty() ? room : bytes},
        "layers.1.experts." + part);
  }
  std::string error() {
    Tensors out;
    const auto done = stacks.finish(config(), out);
    return done ? "" : done.error().message;
  }
  ExpertStacks stacks;
  const std::vector<std::byte> zeros = std::vector<std::byte>(1 << 16);
  const std::span<const std::byte> room = zeros;
};

std::vector<float> row(const TensorRef& t, int64_t r) {
  std::vector<float> all(static_cast<size_t>(t.rows * t.cols));
  dequantize(t, all);
  return {all.begin() + r * t.cols, all.begin() + (r + 1) * t.cols};
}

TEST(ExpertStacks, BlocksAreReadInPairsUnderTheirRowsScales) {
  std::vector<std::byte> blocks(2 * 64 * 2 * 16), scales(2 * 64 * 2, std::byte{127});
  const auto block = [&](int expert, int output, int group) { return blocks.data() + ((expert * 64 + output) * 2 + group) * 16; };
  block(1, 6, 1)[3] = std::byte{0x7a};   // gate's row 3, inputs 38 (low: -1) and 39 (high: 6)
  block(1, 7, 0)[15] = std::byte{0x91};  // up's row 3, inputs 30 (0.5) and 31 (-0.5)
  scales[(1 * 64 + 6) * 2 + 1] = std::byte{130};
  scales[(1 * 64 + 7) * 2] = std::byte{120};
  Stacks s;
  ASSERT_TRUE(*s.take("gate_up_proj.blocks", "U8", {2, 64, 2, 16}, blocks));
  ASSERT_TRUE(*s.take("gate_up_proj.scales", "U8", {2, 64, 2}, scales));
  Tensors out;
  ASSERT_TRUE(s.stacks.finish(config(), out));
  ASSERT_EQ(out.size(), 4);
  const auto gate = row(out.at("layers.1.experts.1.gate_proj.weight"), 3),
             up = row(out.at("layers.1.experts.1.up_proj.weight"), 3);
  EXPECT_EQ(gate[38], -8);
  EXPECT_EQ(gate[39], 48);
  EXPECT_EQ(up[30], 0x1p-8f);
  EXPECT_EQ(up[31], -0x1p-8f);
  EXPECT_EQ(std::ranges::count(gate, 0.f) + std::ranges::count(up, 0.f), 124);
  for (const auto& [name, t] : out) EXPECT_LE(t.bytes.data() + t.bytes.size(), blocks.data() + blocks.size()) << name;
}

TEST(ExpertStacks, PlainStacksHaveTheirInputsOutside) {
  std::vector<float> stack(2 * 32 * 64), bias(2 * 64);
  std::iota(stack.begin(), stack.end(), 0.f);
  std::iota(bias.begin(), bias.end(), 0.f);
  Stacks s;
  ASSERT_TRUE(*s.take("down_proj.weight", "F32", {2, 32, 64}, std::as_bytes(std::span(stack))));
  ASSERT_TRUE(*s.take("gate_up_proj.bias", "F32", {2, 64}, std::as_bytes(std::span(bias))));
  Tensors out;
  ASSERT_TRUE(s.stacks.finish(config(), out));
  EXPECT_EQ(row(out.at("layers.1.experts.1.down_proj.weight"), 5)[7], 32 * 64 + 7 * 64 + 5);
  const TensorRef& up = out.at("layers.1.experts.1.up_proj.bias");
  EXPECT_EQ(row(up, 0)[3], 64 + 7);
  std::vector<float> decoded(32);
  tensor::decode_row(up.matrix(), 0, decoded.data());
  EXPECT_EQ(decoded, row(up, 0));
}

TEST(ExpertStacks, WhatDoesNotFitIsAnError) {
  const auto error = [](const std::string& part, const char* dtype, std::vector<int64_t> shape) {
    Stacks s;
    EXPECT_TRUE(s.take(part, dtype, std::move(shape)));
    return s.error();
  };
  EXPECT_EQ(error("down_proj.weight", "BF16", {2, 32, 64}), "");
  EXPECT_THAT(error("down_proj.weight", "BF16", {2, 64, 32}),
              HasSubstr("is 2 x 64 x 32 but the model's configuration asks for 2 x 32 x 64"));
  EXPECT_THAT(error("down_proj.weight", "BF16", {3, 32, 64}), HasSubstr("asks for 2 x 32 x 64"));
  EXPECT_THAT(error("down_proj.weight", "I8", {2, 32, 64}), HasSubstr("is I8"));
  EXPECT_THAT(error("gate_up_proj.bias", "BF16", {2, 32}), HasSubstr("asks for 2 x 64"));
  EXPECT_THAT(error("down_proj.blocks", "U8", {2, 64, 1, 16}), HasSubstr("are not both there"));
  EXPECT_THAT(error("down_proj.scales", "U8", {2, 64, 1}), HasSubstr("are not both there"));
  const auto pair = [](const char* dtype, std::vector<int64_t> blocks, std::vector<int64_t> scales) {
    Stacks s;
    EXPECT_TRUE(s.take("gate_up_proj.blocks", dtype, std::move(blocks)));
    EXPECT_TRUE(s.take("gate_up_proj.scales", "U8", std::move(scales)));
    return s.error();
  };
  EXPECT_EQ(pair("U8", {2, 64, 2, 16}, {2, 64, 2}), "");
  EXPECT_THAT(pair("U8", {2, 64, 2, 16}, {2, 64, 1}), HasSubstr("asks for 2 x 64 x 2"));
  EXPECT_THAT(pair("U8", {2, 64, 4, 8}, {2, 64, 2}), HasSubstr("asks for 2 x 64 x 2 x 16"));
  EXPECT_THAT(pair("F32", {2, 64, 2, 16}, {2, 64, 2}), HasSubstr("is F32; U8 is supported"));
  Stacks twice;
  EXPECT_TRUE(*twice.take("down_proj.weight", "F32", {2, 32, 64}));
  EXPECT_FALSE(twice.take("down_proj.weight", "F32", {2, 32, 64}));
  EXPECT_TRUE(*twice.take("down_proj.blocks", "U8", {2, 64, 1, 16}));
  EXPECT_TRUE(*twice.take("down_proj.scales", "U8", {2, 64, 1}));
  EXPECT_THAT(twice.error(), HasSubstr("occurs twice"));
  EXPECT_FALSE(*twice.take("7.down_proj.weight", "F32", {64, 32})) << "an expert alone";
}

}  // namespace
}  // namespace baton::model
