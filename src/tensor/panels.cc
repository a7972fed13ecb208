#include "tensor/panels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/result.h"

namespace baton::tensor {
namespace {

struct FormatRow {
  int block;
  size_t block_bytes;
  PanelKind kind;
  int bias_log2;
};
constexpr FormatRow kFormatTable[kFormats] = {
    {1, 4, PanelKind::kF32, 0},         // F32
    {1, 2, PanelKind::kF16, 0},         // F16
    {1, 2, PanelKind::kBf16, 0},        // BF16
    {32, 34, PanelKind::kU8, 7},        // Q8_0
    {32, 18, PanelKind::kU4, 3},        // Q4_0
    {32, 20, PanelKind::kU4Min, 0},     // Q4_1
    {32, 22, PanelKind::kU8, 4},        // Q5_0
    {32, 24, PanelKind::kU8Min, 0},     // Q5_1
    {256, 144, PanelKind::kU4Min, 0},   // Q4_K
    {256, 176, PanelKind::kU8Min, 0},   // Q5_K
    {256, 210, PanelKind::kU8Half, 5},  // Q6_K
    {32, 17, PanelKind::kU8, 4},        // MXFP4, whose numbers are whole halves from -12 to 12
    {32, 32, PanelKind::kE4m3, 0},      // E4M3
    {32, 32, PanelKind::kU8, 7},        // I8
    {32, 16, PanelKind::kU4, 3},        // INT4
    {32, 32, PanelKind::kU8, 7},        // INT8
    {32, 16, PanelKind::kU4, 3},        // GPTQ4
    {32, 32, PanelKind::kU8, 7},        // GPTQ8
    {32, 16, PanelKind::kU4, 3},        // AWQ4
    {32, 16, PanelKind::kU8, 4}         // MXFP4 in pairs, likewise in halves
};
const FormatRow& row_of_table(Format f) { return kFormatTable[static_cast<int>(f)]; }

// 32 consecutive weights as unsigned integers: w[j] = d[j / 16] * (q[j] - bias) or d * q[j] + m. Scales as the f32 the format
// defines.
struct Block {
  uint8_t q[32];
  float d[2];
  float m;
};

uint16_t load16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}
float load_half(const uint8_t* p) { return f16_to_f32(load16(p)); }

void nibbles(const uint8_t* qs, uint8_t* q) {
  for (int j = 0; j < 16; ++j) {
    q[j] = qs[j] & 15;
    q[j + 16] = qs[j] >> 4;
  }
}

void fifth_bits(const uint8_t* qh, uint8_t* q) {
  uint32_t bits;
  std::memcpy(&bits, qh, 4);
  for (int j = 0; j < 32; ++j) q[j] = static_cast<uint8_t>(q[j] | ((bits >> j & 1) << 4));
}

// Q4_K and Q5_K: the 6-bit (scale, minimum) pair of sub-block j, from the 12 packed bytes.
void k_scale(const uint8_t* b, int j, int& sc, int& mn) {
  if (j < 4) {
    sc = b[j] & 63;
    mn = b[j + 4] & 63;
  } else {
    sc = (b[j + 4] & 15) | (b[j - 4] >> 6 << 4);
    mn = (b[j + 4] >> 4) | (b[j] >> 6 << 4);
  }
}

void decode_k(Format f, const uint8_t* p, int sub, Block& out) {
  int sc, mn;
  k_scale(p + 4, sub, sc, mn);
  out.d[0] = out.d[1] = load_half(p) * static_cast<float>(sc);
  out.m = -load_half(p + 2) * static_cast<float>(mn);
  const uint8_t* qs = p + (f == Format::kQ5_K ? 48 : 16) + sub / 2 * 32;
  for (int l = 0; l < 32; ++l) {
    out.q[l] = sub % 2 ? qs[l] >> 4 : qs[l] & 15;
    if (f == Format::kQ5_K) out.q[l] = static_cast<uint8_t>(out.q[l] | ((p[16 + l] >> sub & 1) << 4));
  }
}

void decode_q6_k(const uint8_t* p, int sub, Block& out) {
  const int half = sub / 4, field = sub % 4;  // 32 elements: field 0..3 of a half of 128
  const uint8_t* ql = p + half * 64 + field % 2 * 32;
  const uint8_t* qh = p + 128 + half * 32;
  const auto* scales = reinterpret_cast<const int8_t*>(p + 192) + half * 8 + field * 2;
  const float d = load_half(p + 208);
  out.d[0] = d * static_cast<float>(scales[0]);
  out.d[1] = d * static_cast<float>(scales[1]);
  out.m = 0;
  for (int l = 0; l < 32; ++l) {
    const int low = field < 2 ? ql[l] & 15 : ql[l] >> 4;
    out.q[l] = static_cast<uint8_t>(low | ((qh[l] >> (2 * field) & 3) << 4));
  }
}

// E2M1 in halves.
constexpr int8_t kHalves[] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// The scale, a power of two, halved because the numbers are counted in halves. Below 2^-24 an f16 scale is 0: such weights are
// too.
void decode_mxfp4(const uint8_t* p, Block& out) {
  out.d[0] = out.d[1] = std::ldexp(1.f, p[0] - 128);
  out.m = 0;
  nibbles(p + 1, out.q);
  for (uint8_t& q : out.q) q = static_cast<uint8_t>(16 + kHalves[q]);
}

// 32 numbers of kMxfp4Pairs.
void half_pairs(const std::byte* p, uint8_t* q) {
  for (int j = 0; j < 16; ++j) {
    const auto pair = std::to_integer<uint8_t>(p[j]);
    q[2 * j] = static_cast<uint8_t>(16 + kHalves[pair & 15]);
    q[2 * j + 1] = static_cast<uint8_t>(16 + kHalves[pair >> 4]);
  }
}

uint32_t load32(const std::byte* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}
uint32_t word(const std::byte* p, int64_t i) { return load32(p + static_cast<size_t>(i) * 4); }

// Value of row r, input c of a packed format, unsigned.
uint8_t packed_value(const Matrix& m, int64_t r, int64_t c) {
  switch (m.format) {
    case Format::kInt4:
      return word(m.data, r * (m.cols / 8) + c / 8) >> (c % 8 * 4) & 15;
    case Format::kGptq4:
      return word(m.data, c / 8 * m.rows + r) >> (c % 8 * 4) & 15;
    case Format::kGptq8:
      return word(m.data, c / 4 * m.rows + r) >> (c % 4 * 8) & 255;
    case Format::kAwq4:
      return word(m.data, c * (m.rows / 8) + r / 8) >> (kAwqPlace[r % 8] * 4) & 15;
    case Format::kMxfp4Pairs: {
      const auto pair = std::to_integer<uint8_t>(m.data[m.element(r, c) / 2]);
      return static_cast<uint8_t>(16 + kHalves[c % 2 ? pair >> 4 : pair & 15]);
    }
    default:
      return std::to_integer<uint8_t>(m.data[r * m.cols + c]);
  }
}

// Inputs 32 * b ... of row r, whose scales differ from one to the next, rounded to 8 bits under one scale.
void round_block(const Matrix& m, int64_t r, int64_t b, Block& out) {
  float w[32], top = 0;
  for (int j = 0; j < 32; ++j) {
    const int64_t c = b * 32 + j;
    w[j] = m.scales.scale(r, c) * static_cast<float>(packed_value(m, r, c) - m.scales.zero(m.format, r, c));
    top = std::max(top, std::abs(w[j]));
  }
  out.d[0] = out.d[1] = f16_to_f32(f32_to_f16(top / 127));
  out.m = 0;
  for (int j = 0; j < 32; ++j) {
    const float q = out.d[0] > 0 ? std::clamp(std::nearbyint(w[j] / out.d[0]), -127.f, 127.f) : 0.f;
    out.q[j] = static_cast<uint8_t>(static_cast<int>(q) + 128);
  }
}

// Inputs 32 * b ... of row r of a format with scales apart, but E4M3.
void decode_apart(const Matrix& m, int64_t r, int64_t b, Block& out) {
  if (m.scales.order) return round_block(m, r, b, out);
  if (m.format == Format::kMxfp4Pairs)
    half_pairs(m.data + m.element(r, b * 32) / 2, out.q);
  else
    for (int j = 0; j < 32; ++j) out.q[j] = packed_value(m, r, b * 32 + j);
  if (m.format == Format::kI8)
    for (uint8_t& q : out.q) q ^= 0x80;
  out.d[0] = out.d[1] = m.scales.scale(r, b * 32);
  out.m = m.scales.zeros ? -out.d[0] * static_cast<float>(m.scales.zero(m.format, r, b * 32)) : 0;
}

// Weights 32 * b ... of a row of a quantised format.
void decode_block(Format f, const std::byte* row, int64_t b, Block& out) {
  const auto* base = reinterpret_cast<const uint8_t*>(row);
  const FormatRow& t = row_of_table(f);
  if (t.block == 256) {
    const uint8_t* p = base + static_cast<size_t>(b / 8) * t.block_bytes;
    return f == Format::kQ6_K ? decode_q6_k(p, static_cast<int>(b % 8), out) : decode_k(f, p, static_cast<int>(b % 8), out);
  }
  const uint8_t* p = base + static_cast<size_t>(b) * t.block_bytes;
  if (f == Format::kMxfp4) return decode_mxfp4(p, out);
  out.d[0] = out.d[1] = load_half(p);
  const bool has_min = f == Format::kQ4_1 || f == Format::kQ5_1;
  out.m = has_min ? load_half(p + 2) : 0;
  p += has_min ? 4 : 2;
  if (f == Format::kQ8_0) {
    for (int j = 0; j < 32; ++j) out.q[j] = static_cast<uint8_t>(p[j] ^ 0x80);
    return;
  }
  const bool five = f == Format::kQ5_0 || f == Format::kQ5_1;
  nibbles(p + (five ? 4 : 0), out.q);
  if (five) fifth_bits(p, out.q);
}

void store16(std::byte* p, uint16_t v) { std::memcpy(p, &v, 2); }

// Lane `lane` of one record of a quantised kind.
void put_block(const Block& b, PanelKind kind, int lane, std::byte* rec) {
  const bool four = kind == PanelKind::kU4 || kind == PanelKind::kU4Min;
  auto* q = reinterpret_cast<uint8_t*>(rec);
  for (int quad = 0; quad < 8; ++quad) {
    for (int i = 0; i < 4; ++i) {
      const uint8_t v = b.q[quad * 4 + i];
      if (!four)
        q[quad * 64 + lane * 4 + i] = v;
      else if (quad < 4)
        q[quad * 64 + lane * 4 + i] = v;
      else
        q[(quad - 4) * 64 + lane * 4 + i] = static_cast<uint8_t>(q[(quad - 4) * 64 + lane * 4 + i] | v << 4);
    }
  }
  if (kind == PanelKind::kU8Row) return;
  std::byte* scales = rec + (four ? 256 : 512) + lane * 2;
  store16(scales, f32_to_f16(b.d[0]));
  if (kind == PanelKind::kU8Half) store16(scales + 32, f32_to_f16(b.d[1]));
  if (kind == PanelKind::kU4Min || kind == PanelKind::kU8Min) store16(scales + 32, f32_to_f16(b.m));
}

// Lane `lane` of one record of a float kind: inputs [32 * b, 32 * b + 32) of the row, zero beyond its end.
void put_floats(const Matrix& m, int64_t row, int64_t b, int lane, std::byte* rec) {
  const size_t size = format_block_bytes(m.format);
  const int64_t n = std::min<int64_t>(kRecordInputs, m.cols - b * kRecordInputs);
  const std::byte* from = m.data + static_cast<size_t>(m.element(row, b * kRecordInputs)) * size;
  const size_t step = static_cast<size_t>(m.element(0, 1)) * size;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t slot = m.format == Format::kBf16 ? (i / 2 * kPanelRows + lane) * 2 + i % 2 : i * kPanelRows + lane;
    std::memcpy(rec + static_cast<size_t>(slot) * size, from + static_cast<size_t>(i) * step, size);
  }
}

// Lane `lane` of one record of FP8: inputs [32 * b, 32 * b + 32) of row r. A NaN makes `scale` one, and so every output of the
// row.
void put_e4m3(const Matrix& m, int64_t r, int64_t b, int lane, std::byte* rec, float& scale) {
  for (int i = 0; i < 32; ++i) {
    const std::byte v = m.data[r * m.cols + b * 32 + i];
    rec[i * kPanelRows + lane] = v;
    if ((v & std::byte{0x7f}) == std::byte{0x7f}) scale = std::numeric_limits<float>::quiet_NaN();
  }
}

// Record b of a panel, lane by lane. row_scale: of the kinds that keep one a row.
void put_record(const Matrix& m, int64_t row, int64_t b, PanelKind kind, int lane, std::byte* rec, float& row_scale) {
  if (kind == PanelKind::kE4m3) return put_e4m3(m, row, b, lane, rec, row_scale);
  if (kind == PanelKind::kE4m3Block) {
    float scale = m.scales.scale(row, b * 32) * kE4m3Scale;
    put_e4m3(m, row, b, lane, rec, scale);
    std::memcpy(rec + 512 + lane * 4, &scale, 4);
    return;
  }
  if (format_block(m.format) == 1) return put_floats(m, row, b, lane, rec);
  Block block;
  if (scales_apart(m.format))
    decode_apart(m, row, b, block);
  else
    decode_block(m.format, m.row(row), b, block);
  put_block(block, kind, lane, rec);
}

PanelKind kind_for(const Matrix& m) {
  if (m.format == Format::kE4m3) return m.scales.by_row() ? PanelKind::kE4m3 : PanelKind::kE4m3Block;
  if (m.format == Format::kI8 && m.scales.by_row()) return PanelKind::kU8Row;
  if (m.scales.order) return PanelKind::kU8;
  const PanelKind kind = row_of_table(m.format).kind;
  if (!m.scales.zeros) return kind;
  return kind == PanelKind::kU4 ? PanelKind::kU4Min : PanelKind::kU8Min;
}

}  // namespace

int64_t Scales::group(int64_t c) const { return order ? static_cast<int32_t>(word(order, c)) : c / cols_per; }

float Scales::scale(int64_t r, int64_t c) const {
  const auto at = static_cast<size_t>((first_row + r) / rows_per * row_step + group(c) * col_step);
  const auto* p = reinterpret_cast<const uint8_t*>(data);
  if (format == Format::kF16) return load_half(p + at * 2);
  if (format == Format::kBf16) return bf16_to_f32(load16(p + at * 2));
  if (format == Format::kMxfp4) return std::ldexp(1.f, p[at] - 128);
  float v;
  std::memcpy(&v, p + at * 4, 4);
  return v;
}

int Scales::zero(Format values, int64_t r, int64_t c) const {
  if (!zeros) return values == Format::kMxfp4Pairs ? 16 : format_block_bytes(values) == 16 ? 8 : values == Format::kE4m3 || values == Format::kI8 ? 0 : 128;
  const int per_word = format_block_bytes(values) == 16 ? 8 : 4, bits = 32 / per_word;
  r += first_row;
  const auto within = static_cast<int>(r % per_word);
  const int place = values == Format::kAwq4 ? kAwqPlace[within] : within;
  const uint32_t v = word(zeros, r / per_word * zero_row_step + group(c) * zero_col_step) >> (place * bits);
  return static_cast<int>(v & ((1u << bits) - 1)) + zero_add;
}

int format_block(Format f) { return row_of_table(f).block; }
size_t format_block_bytes(Format f) { return row_of_table(f).block_bytes; }

size_t Matrix::file_bytes() const {
  if (rows == 0 || cols == 0) return 0;
  if (row_step == 0 && col_step == 0) return static_cast<size_t>(rows) * row_bytes();
  const auto elements = static_cast<size_t>(element(rows - 1, cols - 1) + 1);
  return format == Format::kMxfp4Pairs ? elements / 2 : elements * format_block_bytes(format);
}

Panels panels_for(const Matrix& m) {
  BATON_CHECK(m.cols % format_block(m.format) == 0);
  const int bias_log2 = m.scales.order ? 7 : m.scales.zeros ? 0 : row_of_table(m.format).bias_log2;
  return {.kind = kind_for(m), .bias_log2 = bias_log2, .rows = m.rows, .cols = m.cols, .data = nullptr};
}

void pack_panels(const Matrix& m, std::span<const int32_t> row_of, const Panels& shape, int64_t begin, int64_t end,
                 std::byte* dst, int64_t first_record) {
  const size_t bytes = record_bytes(shape.kind);
  std::memset(dst, 0, static_cast<size_t>(end - begin) * shape.panel_bytes());  // padding rows and inputs weigh nothing
  for (int64_t p = begin; p < end; ++p) {
    std::byte* panel = dst + static_cast<size_t>(p - begin) * shape.panel_bytes();
    const auto lanes = static_cast<int>(std::min<int64_t>(kPanelRows, shape.rows - p * kPanelRows));
    int64_t row[kPanelRows];
    float scale[kPanelRows] = {};
    for (int lane = 0; lane < lanes; ++lane) {
      const int64_t n = p * kPanelRows + lane;
      row[lane] = row_of.empty() ? n : row_of[static_cast<size_t>(n)];
      if (trailer_bytes(shape.kind) > 0)
        scale[lane] = m.scales.scale(row[lane], 0) * (shape.kind == PanelKind::kE4m3 ? kE4m3Scale : 1);
    }
    // Records outside, rows inside: formats that pack along the rows have the rows of a panel side by side.
    for (int64_t b = 0; b < shape.records(); ++b)
      for (int lane = 0; lane < lanes; ++lane)
        put_record(m, row[lane], first_record + b, shape.kind, lane, panel + static_cast<size_t>(b) * bytes, scale[lane]);
    std::memcpy(panel + static_cast<size_t>(shape.records()) * bytes, scale, trailer_bytes(shape.kind));
  }
}

void decode_row(const Matrix& m, int64_t r, float* out) {
  if (scales_apart(m.format)) {
    for (int64_t c = 0; c < m.cols; ++c) {
      const uint8_t q = packed_value(m, r, c);
      const float value = m.format == Format::kE4m3 ? e4m3_to_f32(q)
                          : m.format == Format::kI8 ? static_cast<float>(static_cast<int8_t>(q))
                                                    : static_cast<float>(q - m.scales.zero(m.format, r, c));
      out[c] = m.scales.scale(r, c) * value;
    }
    return;
  }
  const size_t size = format_block_bytes(m.format);
  if (format_block(m.format) == 1) {
    for (int64_t i = 0; i < m.cols; ++i) {
      const auto* p = reinterpret_cast<const uint8_t*>(m.data) + static_cast<size_t>(m.element(r, i)) * size;
      if (m.format == Format::kF32)
        std::memcpy(out + i, p, 4);
      else
        out[i] = m.format == Format::kF16 ? load_half(p) : bf16_to_f32(load16(p));
    }
    return;
  }
  const int bias_log2 = row_of_table(m.format).bias_log2;
  const float bias = bias_log2 == 0 ? 0.f : static_cast<float>(1 << bias_log2);
  for (int64_t b = 0; b < m.cols / 32; ++b) {
    Block block;
    decode_block(m.format, m.row(r), b, block);
    for (int j = 0; j < 32; ++j) out[b * 32 + j] = block.d[j / 16] * (static_cast<float>(block.q[j]) - bias) + block.m;
  }
}

float e4m3_to_f32(uint8_t b) {
  const int exponent = b >> 3 & 15, mantissa = b & 7;
  if ((b & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude = exponent == 0 ? static_cast<float>(mantissa) * 0x1p-9f
                                        : std::bit_cast<float>(static_cast<uint32_t>(exponent + 120) << 23 | mantissa << 20);
  return b & 0x80 ? -magnitude : magnitude;
}

float f16_to_f32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | mantissa << 13);
  if (exponent == 0) {
    const float f = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -f : f;
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t f32_to_f16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to 2^16 or beyond
  if (magnitude < 0x38800000) {  // subnormal: steps of 2^-24; the addition rounds to even
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | (rounded - 0x38000000) >> 13);
}

uint16_t f32_to_bf16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace baton::tensor
