#pragma once
// Panels: a weight matrix W[rows][cols] repacked once at load into the order the kernels stream it.
//
//   matrix: [panel 0: rows 0..15][panel 1: rows 16..31]...       rows padded with zero rows to a multiple of 16
//   panel:  [record: inputs 0..31][record: inputs 32..63]...     one linear stream per panel
//   record: 16 rows x 32 inputs: the values, then f16 scales d[16] and, for the kinds that have them, f16 minima m[16]
//     u8:   [k-quad 0..7][row 0..15][4 inputs]    w = d * (q - 2^bias) or d * q + m; operand of vpdpbusd
//     u4:   as u8 with k-quad i in the low nibble and k-quad i + 4 in the high nibble of byte [i][row][4]
//     bf16: [k-pair 0..15][row][2]; operand of vdpbf16ps        f16, f32: [input 0..31][row]
//
// Signed formats are stored biased to unsigned; the bias leaves through the activation sums (activations.h). K-quants' products
// of scales are rounded to f16 (relative 2^-11, an eighth of what 8-bit activations cost). F16 and F32 weights stay exact and
// meet f32 activations; BF16 weights meet bf16 ones. Source: facts/engine.md 4.3, 5.3.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace baton::tensor {

// Formats of weights in files; blocks as GGUF defines them.
enum class Format : uint8_t { kF32, kF16, kBf16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ5_K, kQ6_K, kMxfp4 };
inline constexpr int kFormats = 12;
int format_block(Format f);           // elements a block: 1, 32 or 256
size_t format_block_bytes(Format f);  // bytes a block

enum class PanelKind : uint8_t {
  kU4,
  kU4Min,
  kU8,
  kU8Min,
  kU8Half,
  kBf16,
  kF16,
  kF32
};  // kU8Half: d_lo[16], d_hi[16], one per 16 inputs
PanelKind panel_kind(Format f);
int panel_bias_log2(Format f);  // w = d * (q - 2^bias_log2); 0 where the kind has minima or no scales

inline constexpr int kPanelRows = 16;
inline constexpr int kRecordInputs = 32;
constexpr size_t record_bytes(PanelKind k) {
  constexpr size_t kBytes[] = {256 + 32, 256 + 64, 512 + 32, 512 + 64, 512 + 64, 1024, 1024, 2048};
  return kBytes[static_cast<int>(k)];
}

struct Panels {
  PanelKind kind = PanelKind::kF32;
  int bias_log2 = 0;
  int64_t rows = 0, cols = 0;
  const std::byte* data = nullptr;

  int64_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  int64_t records() const { return (cols + kRecordInputs - 1) / kRecordInputs; }  // a panel
  size_t panel_bytes() const { return static_cast<size_t>(records()) * record_bytes(kind); }
  size_t bytes() const { return static_cast<size_t>(panels()) * panel_bytes(); }
  const std::byte* panel(int64_t p) const { return data + static_cast<size_t>(p) * panel_bytes(); }
};

// A row-major matrix as it lies in a file. cols is a multiple of format_block(format).
struct Matrix {
  Format format = Format::kF32;
  int64_t rows = 0, cols = 0;
  const std::byte* data = nullptr;
  size_t row_bytes() const { return static_cast<size_t>(cols / format_block(format)) * format_block_bytes(format); }
  const std::byte* row(int64_t r) const { return data + static_cast<size_t>(r) * row_bytes(); }
};

// Shape and kind of the panels that `m` packs into; data is still null.
Panels panels_for(const Matrix& m);

// Writes panels [begin, end) of `shape` at dst (the address of panel `begin`). Packed row n is row row_of[n] of the file, or n if
// row_of is empty. Any thread; ranges are independent.
void pack_panels(const Matrix& m, std::span<const int32_t> row_of, const Panels& shape, int64_t begin, int64_t end,
                 std::byte* dst);

// out[0, m.cols) = row r in f32.
void decode_row(const Matrix& m, int64_t r, float* out);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);  // round to nearest even
inline float bf16_to_f32(uint16_t h) { return __builtin_bit_cast(float, static_cast<uint32_t>(h) << 16); }
uint16_t f32_to_bf16(float f);  // round to nearest even; NaN stays NaN

}  // namespace baton::tensor
