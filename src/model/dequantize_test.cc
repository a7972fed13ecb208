#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/json.h"
#include "model/config.h"

namespace baton::model {
namespace {

// f16 values that are easy to write: 1, 2, -0.5.
constexpr uint8_t kOne[] = {0x00, 0x3c}, kTwo[] = {0x00, 0x40}, kMinusHalf[] = {0x00, 0xb8};

std::vector<float> run(Dtype d, const std::vector<uint8_t>& bytes) {
  std::vector<float> out(bytes.size() / dtype_block_bytes(d) * static_cast<size_t>(dtype_block(d)));
  dequantize(d, std::as_bytes(std::span(bytes)), out);
  return out;
}

std::vector<uint8_t> block(Dtype d) { return std::vector<uint8_t>(dtype_block_bytes(d)); }
void put(std::vector<uint8_t>& b, size_t at, std::span<const uint8_t> bytes) { std::ranges::copy(bytes, b.begin() + at); }

TEST(Dequantize, Half) {
  // 0, -0, smallest subnormal, largest subnormal, smallest normal, 1 + 2^-10, -65504, inf, nan
  const auto v = run(Dtype::kF16, {0, 0, 0, 0x80, 1, 0, 0xff, 3, 0, 4, 1, 0x3c, 0xff, 0xfb, 0, 0x7c, 1, 0x7e});
  EXPECT_EQ(v[0], 0.0f);
  EXPECT_TRUE(std::signbit(v[1]));
  EXPECT_EQ(v[2], std::ldexp(1.0f, -24));
  EXPECT_EQ(v[3], 1023 * std::ldexp(1.0f, -24));
  EXPECT_EQ(v[4], std::ldexp(1.0f, -14));
  EXPECT_EQ(v[5], 1 + std::ldexp(1.0f, -10));
  EXPECT_EQ(v[6], -65504.0f);
  EXPECT_TRUE(std::isinf(v[7]) && v[7] > 0);
  EXPECT_TRUE(std::isnan(v[8]));
}

TEST(Dequantize, Bfloat) {
  const auto v = run(Dtype::kBf16, {0x80, 0x3f, 0x00, 0xc0, 0x49, 0x40});
  EXPECT_EQ(v, (std::vector<float>{1.0f, -2.0f, 3.140625f}));
}

TEST(Dequantize, Q8_0) {
  auto b = block(Dtype::kQ8_0);
  put(b, 0, kMinusHalf);
  b[2] = 127;
  b[3] = 0x80;
  b[33] = 3;
  const auto v = run(Dtype::kQ8_0, b);
  EXPECT_EQ(v[0], -63.5f);
  EXPECT_EQ(v[1], 64.0f);
  EXPECT_EQ(v[31], -1.5f);
}

TEST(Dequantize, FourBitNibbleOrder) {
  auto b = block(Dtype::kQ4_0);
  put(b, 0, kTwo);
  b[2] = 0x90;   // element 0: 0 - 8; element 16: 9 - 8
  b[17] = 0x0f;  // element 15: 15 - 8; element 31: 0 - 8
  auto v = run(Dtype::kQ4_0, b);
  EXPECT_EQ(v[0], -16.0f);
  EXPECT_EQ(v[16], 2.0f);
  EXPECT_EQ(v[15], 14.0f);
  EXPECT_EQ(v[31], -16.0f);

  b = block(Dtype::kQ4_1);
  put(b, 0, kTwo);
  put(b, 2, kMinusHalf);
  b[4] = 0x93;
  v = run(Dtype::kQ4_1, b);
  EXPECT_EQ(v[0], 5.5f);
  EXPECT_EQ(v[16], 17.5f);
  EXPECT_EQ(v[1], -0.5f);
}

TEST(Dequantize, FifthBit) {
  auto b = block(Dtype::kQ5_0);
  put(b, 0, kOne);
  b[2] = 0x01;  // element 0
  b[4] = 0x02;  // element 17
  b[6] = 0x05;  // elements 0 and 16
  auto v = run(Dtype::kQ5_0, b);
  EXPECT_EQ(v[0], 5.0f);
  EXPECT_EQ(v[16], -16.0f);
  EXPECT_EQ(v[17], 0.0f);

  b = block(Dtype::kQ5_1);
  put(b, 0, kTwo);
  put(b, 2, kOne);
  b[7] = 0x80;   // element 31
  b[23] = 0x70;  // elements 15 and 31
  v = run(Dtype::kQ5_1, b);
  EXPECT_EQ(v[31], 2 * 23 + 1);
  EXPECT_EQ(v[15], 1.0f);
}

TEST(Dequantize, KScalesAndMinima) {
  auto b = block(Dtype::kQ4_K);
  put(b, 0, kOne);
  put(b, 2, kTwo);
  b[4 + 1] = 0xc0 | 5;    // scale 1 = 5; scale 5 gets 3 << 4
  b[4 + 5] = 0x80 | 7;    // minimum 1 = 7; minimum 5 gets 2 << 4
  b[4 + 9] = 0x21;        // scale 5 low nibble 1, minimum 5 low nibble 2
  b[16 + 0] = 0xe0;       // sub-block 1, element 0: 14
  b[16 + 64 + 3] = 0x40;  // sub-block 5, element 3: 4
  const auto v = run(Dtype::kQ4_K, b);
  EXPECT_EQ(v[32], 5 * 14 - 2 * 7);
  EXPECT_EQ(v[33], -2 * 7);
  EXPECT_EQ(v[5 * 32 + 3], (0x31) * 4 - 2 * 0x22);
  EXPECT_EQ(v[0], 0.0f);

  b = block(Dtype::kQ5_K);
  put(b, 0, kOne);
  b[4 + 3] = 1;           // scale 3 = 1
  b[16 + 9] = 1 << 3;     // fifth bit of sub-block 3, element 9
  b[48 + 32 + 9] = 0x20;  // its low four bits: 2
  EXPECT_EQ(run(Dtype::kQ5_K, b)[3 * 32 + 9], 18.0f);
}

TEST(Dequantize, Q6_K) {
  auto b = block(Dtype::kQ6_K);
  put(b, 208, kTwo);
  b[192 + 8 + 3] = 0xff;         // second half, run 1, elements 16-31: scale -1
  b[64 + 32 + 20] = 0x09;        // second half, run 1, element 20: low bits 9
  b[128 + 32 + 20] = 0x03 << 2;  // high bits 3
  const auto v = run(Dtype::kQ6_K, b);
  EXPECT_EQ(v[128 + 32 + 20], 2 * -1 * (9 + 48 - 32));
  EXPECT_EQ(v[128 + 32 + 21], 2 * -1 * -32);
  EXPECT_EQ(v[0], 0.0f);
}

uint8_t hex_byte(std::string_view text, size_t i) {
  return static_cast<uint8_t>(std::stoi(std::string(text.substr(2 * i, 2)), nullptr, 16));
}

TEST(Dequantize, AgreesWithTheGgufPackage) {
  std::ifstream in(BATON_SOURCE_DIR "/tests/golden/dequantize.json");
  std::stringstream text;
  text << in.rdbuf();
  const auto golden = parse_json(text.str());
  ASSERT_TRUE(golden) << golden.error().message;
  int types = 0;
  for (const Json& c : golden->find("cases")->items) {
    for (int d = 0; d <= static_cast<int>(Dtype::kMxfp4); d++) {
      const auto dtype = static_cast<Dtype>(d);
      if (dtype_name(dtype) != c.find("type")->text) continue;
      types++;
      const std::string& hex = c.find("bytes")->text;
      std::vector<uint8_t> bytes;
      for (size_t i = 0; i < hex.size() / 2; i++) bytes.push_back(hex_byte(hex, i));
      const auto ours = run(dtype, bytes);
      const auto& theirs = c.find("values")->items;
      ASSERT_EQ(ours.size(), theirs.size());
      for (size_t i = 0; i < ours.size(); i++) {
        const auto expected = static_cast<float>(theirs[i].as_double().value());
        ASSERT_NEAR(ours[i], expected, 4e-7f * std::abs(expected) + 1e-4f * (dtype_block(dtype) > 1))
            << dtype_name(dtype) << " element " << i;
      }
    }
  }
  EXPECT_EQ(types, 12);
}

}  // namespace
}  // namespace baton::model
