// The block formats of GGUF, element by element as their definition reads (facts sheet engine.md 4.3; ggml's docs), and those of
// quantised Hugging Face checkpoints (4.7). Clear before fast: this file judges the kernels and loads what is not worth a kernel.
#include <bit>
#include <cmath>
#include <cstring>

#include "model/config.h"

namespace baton::model {
namespace {

struct DtypeInfo {
  std::string_view name;
  int block;
  size_t bytes;
};

constexpr DtypeInfo kDtypes[] = {{"F32", 1, 4},      {"F16", 1, 2},     {"BF16", 1, 2},    {"Q8_0", 32, 34},   {"Q4_0", 32, 18},
                                 {"Q4_1", 32, 20},   {"Q5_0", 32, 22},  {"Q5_1", 32, 24},  {"Q4_K", 256, 144}, {"Q5_K", 256, 176},
                                 {"Q6_K", 256, 210}, {"MXFP4", 32, 17}, {"E4M3", 32, 32},  {"I8", 32, 32},     {"INT4", 32, 16},
                                 {"INT8", 32, 32},   {"GPTQ4", 32, 16}, {"GPTQ8", 32, 32}, {"AWQ4", 32, 16},
                                 {"MXFP4 in pairs", 32, 16}};

const DtypeInfo& info(Dtype d) { return kDtypes[static_cast<size_t>(d)]; }

template <class T>
T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
int u8(const std::byte* p) { return std::to_integer<int>(*p); }
int i8(const std::byte* p) { return static_cast<int8_t>(std::to_integer<uint8_t>(*p)); }

// IEEE half to float, subnormals, infinities and NaN payloads included.
float half(const std::byte* p) {
  const uint32_t h = load<uint16_t>(p);
  const uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t biased = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | (biased << 23) | (fraction << 13));
}

float bfloat(const std::byte* p) { return std::bit_cast<float>(static_cast<uint32_t>(load<uint16_t>(p)) << 16); }

// Nibble j of a 16-byte run: element j is the low nibble of byte j, element j + 16 the high one.
int nibble(const std::byte* qs, int j) { return j < 16 ? u8(qs + j) & 15 : u8(qs + j - 16) >> 4; }

void q8_0(const std::byte* b, float* y) {
  const float d = half(b);
  for (int j = 0; j < 32; j++) y[j] = d * static_cast<float>(i8(b + 2 + j));
}

void q4_0(const std::byte* b, float* y) {
  const float d = half(b);
  for (int j = 0; j < 32; j++) y[j] = d * static_cast<float>(nibble(b + 2, j) - 8);
}

void q4_1(const std::byte* b, float* y) {
  const float d = half(b), m = half(b + 2);
  for (int j = 0; j < 32; j++) y[j] = d * static_cast<float>(nibble(b + 4, j)) + m;
}

void q5_0(const std::byte* b, float* y) {
  const float d = half(b);
  const uint32_t high = load<uint32_t>(b + 2);
  for (int j = 0; j < 32; j++) y[j] = d * static_cast<float>((nibble(b + 6, j) | static_cast<int>((high >> j) & 1) << 4) - 16);
}

void q5_1(const std::byte* b, float* y) {
  const float d = half(b), m = half(b + 2);
  const uint32_t high = load<uint32_t>(b + 4);
  for (int j = 0; j < 32; j++) y[j] = d * static_cast<float>(nibble(b + 8, j) | static_cast<int>((high >> j) & 1) << 4) + m;
}

// Scale and minimum of sub-block j in the 12 packed bytes of Q4_K and Q5_K: eight pairs of 6 bits.
//   bytes 0-3: low 6 bits = scale j      | top 2 bits = scale j+4, bits 4-5
//   bytes 4-7: low 6 bits = minimum j    | top 2 bits = minimum j+4, bits 4-5
//   bytes 8-11: low nibble = scale j+4, bits 0-3; high nibble = minimum j+4, bits 0-3
struct ScaleMin {
  int scale, min;
};
ScaleMin scale_min(const std::byte* s, int j) {
  if (j < 4) return {u8(s + j) & 63, u8(s + j + 4) & 63};
  return {(u8(s + j + 4) & 15) | (u8(s + j - 4) >> 6) << 4, (u8(s + j + 4) >> 4) | (u8(s + j) >> 6) << 4};
}

// Q4_K: d, dmin, scales[12], qs[128].  Q5_K: d, dmin, scales[12], qh[32], qs[128]; bit j of qh[l] is the fifth bit of sub-block
// j.
void q45_k(const std::byte* b, float* y, bool five) {
  const float d = half(b), dmin = half(b + 2);
  const std::byte* qh = b + 16;
  const std::byte* qs = five ? b + 48 : b + 16;
  for (int j = 0; j < 8; j++) {
    const auto [scale, min] = scale_min(b + 4, j);
    const float step = d * static_cast<float>(scale), low = dmin * static_cast<float>(min);
    for (int l = 0; l < 32; l++) {
      int q = (u8(qs + j / 2 * 32 + l) >> (j % 2 * 4)) & 15;
      if (five) q |= ((u8(qh + l) >> j) & 1) << 4;
      y[j * 32 + l] = step * static_cast<float>(q) - low;
    }
  }
}

// Q6_K: ql[128], qh[64], i8 scales[16], d. Each half of 128 elements is four runs of 32; run r takes nibble r/2 of ql[l + 32
// (r%2)] and bits 2r, 2r+1 of qh[l]; a scale covers 16 elements.
void q6_k(const std::byte* b, float* y) {
  const float d = half(b + 208);
  for (int h = 0; h < 2; h++) {
    const std::byte *ql = b + 64 * h, *qh = b + 128 + 32 * h, *scales = b + 192 + 8 * h;
    for (int r = 0; r < 4; r++) {
      for (int l = 0; l < 32; l++) {
        const int low = (u8(ql + l + r % 2 * 32) >> (r / 2 * 4)) & 15;
        const int high = (u8(qh + l) >> (2 * r)) & 3;
        const float step = d * static_cast<float>(i8(scales + 2 * r + l / 16));
        y[h * 128 + r * 32 + l] = step * static_cast<float>((low | high << 4) - 32);
      }
    }
  }
}

// MXFP4: a power of two, 2^(byte - 127), and 32 numbers of sign, two bits of exponent and one of mantissa (OCP MX 1.0, E2M1).
void mxfp4(const std::byte* b, float* y) {
  static constexpr float kValues[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  const float d = std::ldexp(1.0f, u8(b) - 127);
  for (int j = 0; j < 32; j++) {
    const int q = nibble(b + 1, j);
    y[j] = q < 8 ? d * kValues[q] : -d * kValues[q - 8];
  }
}

void dequantize_block(Dtype d, const std::byte* b, float* y) {
  switch (d) {
    case Dtype::kF32:
      *y = load<float>(b);
      return;
    case Dtype::kF16:
      *y = half(b);
      return;
    case Dtype::kBf16:
      *y = bfloat(b);
      return;
    case Dtype::kQ8_0:
      return q8_0(b, y);
    case Dtype::kQ4_0:
      return q4_0(b, y);
    case Dtype::kQ4_1:
      return q4_1(b, y);
    case Dtype::kQ5_0:
      return q5_0(b, y);
    case Dtype::kQ5_1:
      return q5_1(b, y);
    case Dtype::kQ4_K:
      return q45_k(b, y, false);
    case Dtype::kQ5_K:
      return q45_k(b, y, true);
    case Dtype::kQ6_K:
      return q6_k(b, y);
    case Dtype::kMxfp4:
      return mxfp4(b, y);
    default:
      BATON_CHECK(false);  // scales apart: no block stands for itself
  }
}

// 1 sign, 4 exponent (bias 7), 3 fraction bits; no infinities.
float e4m3(int b) {
  const int exponent = b >> 3 & 15, fraction = b & 7;
  if (exponent == 15 && fraction == 7) return std::nanf("");
  const float magnitude =
      exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9) : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  return b & 0x80 ? -magnitude : magnitude;
}

// Bits [at * bits, (at + 1) * bits) of word `index`.
int field(const std::byte* words, int64_t index, int64_t at, int bits) {
  return static_cast<int>(load<uint32_t>(words + index * 4) >> (at * bits) & ((1u << bits) - 1));
}

// q of w = scale * (q - zero) for row r, input c.
int stored(const TensorRef& t, int64_t r, int64_t c) {
  switch (t.dtype) {
    case Dtype::kI8:
      return i8(t.bytes.data() + r * t.cols + c);
    case Dtype::kInt4:
      return field(t.bytes.data(), r * (t.cols / 8) + c / 8, c % 8, 4);
    case Dtype::kInt8:
      return field(t.bytes.data(), r * (t.cols / 4) + c / 4, c % 4, 8);
    case Dtype::kGptq4:
      return field(t.bytes.data(), c / 8 * t.rows + r, c % 8, 4);
    case Dtype::kGptq8:
      return field(t.bytes.data(), c / 4 * t.rows + r, c % 4, 8);
    case Dtype::kMxfp4Pairs: {  // sign, two bits of exponent (bias 1), one of fraction; in halves, 0 at 16
      const int pair = u8(t.bytes.data() + t.matrix().element(r, c) / 2), four = c % 2 == 0 ? pair & 15 : pair >> 4;
      const int exponent = four >> 1 & 3, halves = exponent == 0 ? four & 1 : (2 + (four & 1)) << (exponent - 1);
      return four & 8 ? 16 - halves : 16 + halves;
    }
    default: {  // AWQ: rows 0 2 4 6 1 3 5 7 from the lowest bits on
      constexpr int kRows[8] = {0, 2, 4, 6, 1, 3, 5, 7};
      int64_t at = 0;
      while (kRows[at] != r % 8) ++at;
      return field(t.bytes.data(), c * (t.rows / 8) + r / 8, at, 4);
    }
  }
}

}  // namespace

std::string_view dtype_name(Dtype d) { return info(d).name; }
int dtype_block(Dtype d) { return info(d).block; }
size_t dtype_block_bytes(Dtype d) { return info(d).bytes; }

void dequantize(Dtype d, std::span<const std::byte> in, std::span<float> out) {
  const size_t block = static_cast<size_t>(dtype_block(d)), bytes = dtype_block_bytes(d);
  BATON_CHECK(out.size() % block == 0 && in.size() == out.size() / block * bytes);
  for (size_t i = 0; i < out.size() / block; i++) dequantize_block(d, in.data() + i * bytes, out.data() + i * block);
}

void dequantize(const TensorRef& t, std::span<float> out) {
  BATON_CHECK(out.size() == static_cast<size_t>(t.rows * t.cols));
  if (t.dtype < Dtype::kE4m3) {
    if (t.row_step == 0 && t.col_step == 0) return dequantize(t.dtype, t.bytes, out);
    for (int64_t r = 0; r < t.rows; r++)
      for (int64_t c = 0; c < t.cols; c++)
        dequantize_block(t.dtype, t.bytes.data() + static_cast<size_t>(t.matrix().element(r, c)) * dtype_block_bytes(t.dtype),
                         &out[static_cast<size_t>(r * t.cols + c)]);
    return;
  }
  for (int64_t r = 0; r < t.rows; r++) {
    for (int64_t c = 0; c < t.cols; c++) {
      float q;
      if (t.dtype == Dtype::kE4m3)
        q = e4m3(u8(t.bytes.data() + r * t.cols + c));
      else
        q = static_cast<float>(stored(t, r, c) - t.scales.zero(static_cast<tensor::Format>(t.dtype), r, c));
      out[static_cast<size_t>(r * t.cols + c)] = t.scales.scale(r, c) * q;
    }
  }
}

}  // namespace baton::model
