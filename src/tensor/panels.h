#pragma once
// Panels: a weight matrix W[rows][cols] repacked once at load into the order the kernels stream it.
//
//   matrix: [panel 0: rows 0..15][panel 1: rows 16..31]...       rows padded with zero rows to a multiple of 16
//   panel:  [record: inputs 0..31][record: inputs 32..63]...     one linear stream per panel
//   record: 16 rows x 32 inputs: the values, then f16 scales d[16] and, for the kinds that have them, f16 minima m[16]
//     u8:   [k-quad 0..7][row 0..15][4 inputs]    w = d * (q - 2^bias) or d * q + m; operand of vpdpbusd
//     u4:   as u8 with k-quad i in the low nibble and k-quad i + 4 in the high nibble of byte [i][row][4]
//     bf16: [k-pair 0..15][row][2]; operand of vdpbf16ps        f16, f32, e4m3: [input 0..31][row]
//   The kinds with one scale a row (8-bit checkpoints) keep it once, after the last record of the panel: f32 [row]. E4M3 with
//   scales of blocks has f32 d[16] in every record.
//
// Signed formats are stored biased to unsigned; the bias leaves through the activation sums (activations.h). K-quants' products
// of scales and the minima of GPTQ's and AWQ's zero points are rounded to f16 (relative 2^-11, an eighth of what 8-bit
// activations cost). F16, F32 and FP8 weights stay exact: the first two meet f32 activations, FP8 and BF16 ones bf16. INT8
// weights with a scale a row are exact too, and meet 8-bit activations of 32 inputs (the checkpoint asks for 8 bits a whole row).
// Source: facts/engine.md 4.3, 4.7, 5.3.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace baton::tensor {

// Formats of weights in files; blocks as GGUF defines them. The last eight are those of Hugging Face checkpoints: values and
// scales (struct Scales) lie in tensors of their own. 32-bit words, lowest bits first, R rows and C inputs:
//   kE4m3  FP8, byte [R][C]                                      kI8     signed byte [R][C]
//   kInt4  offset by 8, word [R][C/8], 8 inputs a word            kInt8   offset by 128, byte [R][C] (words [R][C/4])
//   kGptq4 word [C/8][R], 8 inputs a word                         kGptq8  word [C/4][R], 4 inputs a word
//   kAwq4  word [C][R/8], 8 rows a word in the order 0 2 4 6 1 3 5 7
//   kMxfp4Pairs FP4 (E2M1), byte [R][C/2], the lower input in the low half; read as whole halves from -12 to 12, offset by 16
enum class Format : uint8_t {
  kF32,
  kF16,
  kBf16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kMxfp4,
  kE4m3,
  kI8,
  kInt4,
  kInt8,
  kGptq4,
  kGptq8,
  kAwq4,
  kMxfp4Pairs
};
inline constexpr int kFormats = 20;
int format_block(Format f);           // elements a block: 1, 32 or 256
size_t format_block_bytes(Format f);  // bytes a block; of formats with scales apart: of 32 values
inline bool scales_apart(Format f) { return f >= Format::kE4m3; }

// Scales (and zero points) of a matrix whose format keeps them apart: w = scale * (q - zero). The scale of row r and input c is
// element (r / rows_per) * row_step + (c / cols_per) * col_step of `data`; cols_per is a multiple of 32 or the whole row. Zero
// points stand in 32-bit words as the values do, one for each scale; without them zero is the middle (8, 16, 128; 0 for E4M3 and I8).
// GPTQ in activation order gives each input a group of its own, in no order: `order`; group g then has the place of inputs
// [g * cols_per, ...). Such a matrix is rounded again, to 8 bits in blocks of 32 (kU8): 0.4 % of a block's largest weight.
struct Scales {
  Format format = Format::kF32;  // kF32, kF16 or kBf16; kMxfp4: its power of two in a byte, halved as kMxfp4Pairs counts halves
  const std::byte* data = nullptr;
  int64_t rows_per = 1, cols_per = 1, row_step = 0, col_step = 0;
  const std::byte* zeros = nullptr;  // word (r / zeros a word) * zero_row_step + (c / cols_per) * zero_col_step
  int64_t zero_row_step = 0, zero_col_step = 0;
  int zero_add = 0;                  // GPTQ stores the zero point less one
  const std::byte* order = nullptr;  // int32 group of each input
  int64_t first_row = 0;             // of the tensor that the scales belong to: the matrix may be some of its rows

  bool by_row() const { return col_step == 0 && zeros == nullptr && order == nullptr; }  // one scale for a whole row
  float scale(int64_t r, int64_t c) const;
  int zero(Format values, int64_t r, int64_t c) const;
  int64_t group(int64_t c) const;
};
// Where row r stands in a word of eight 4-bit numbers, in AWQ's order.
inline constexpr int kAwqPlace[8] = {0, 4, 1, 5, 2, 6, 3, 7};

enum class PanelKind : uint8_t {
  kU4,
  kU4Min,
  kU8,
  kU8Min,
  kU8Half,
  kBf16,
  kF16,
  kF32,
  kU8Row,     // as kU8 with one f32 scale a row
  kE4m3,      // likewise
  kE4m3Block  // f32 d[16] a record
};  // kU8Half: d_lo[16], d_hi[16], one per 16 inputs

inline constexpr int kPanelRows = 16;
inline constexpr int kRecordInputs = 32;
constexpr size_t record_bytes(PanelKind k) {
  constexpr size_t kBytes[] = {256 + 32, 256 + 64, 512 + 32, 512 + 64, 512 + 64, 1024, 1024, 2048, 512, 512, 512 + 64};
  return kBytes[static_cast<int>(k)];
}
// Bytes after a panel's records: the rows' scales.
constexpr size_t trailer_bytes(PanelKind k) { return k == PanelKind::kU8Row || k == PanelKind::kE4m3 ? 64 : 0; }

// E4M3's bits, moved, are a half's of 2^-8 times the value, subnormals included: kernels expand so, and scales carry the 2^8.
inline constexpr float kE4m3Scale = 256;

struct Panels {
  PanelKind kind = PanelKind::kF32;
  int bias_log2 = 0;  // w = d * (q - 2^bias_log2); 0 where the kind has minima or no scales
  int64_t rows = 0, cols = 0;
  const std::byte* data = nullptr;

  int64_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  int64_t records() const { return (cols + kRecordInputs - 1) / kRecordInputs; }  // a panel
  size_t panel_bytes() const { return static_cast<size_t>(records()) * record_bytes(kind) + trailer_bytes(kind); }
  size_t bytes() const { return static_cast<size_t>(panels()) * panel_bytes(); }
  const std::byte* panel(int64_t p) const { return data + static_cast<size_t>(p) * panel_bytes(); }
  const float* row_scales(int64_t p) const {  // of the kinds with a trailer; 4-byte aligned with data
    return reinterpret_cast<const float*>(panel(p) + static_cast<size_t>(records()) * record_bytes(kind));
  }
};

// A matrix as it lies in a file, row-major unless the format says otherwise. cols is a multiple of format_block(format).
struct Matrix {
  Format format = Format::kF32;
  int64_t rows = 0, cols = 0;
  const std::byte* data = nullptr;
  Scales scales = {};  // of formats that keep them apart
  // Elements from a row, and from an input, to the next where they do not lie side by side: of F32, F16 and BF16, and rows of
  // kMxfp4Pairs. 0: side by side.
  int64_t row_step = 0, col_step = 0;
  int64_t element(int64_t r, int64_t c) const { return r * (row_step ? row_step : cols) + c * (col_step ? col_step : 1); }
  size_t file_bytes() const;  // from the first element to the end of the last
  size_t row_bytes() const { return static_cast<size_t>(cols / format_block(format)) * format_block_bytes(format); }
  const std::byte* row(int64_t r) const { return data + static_cast<size_t>(r) * row_bytes(); }
};

// Shape and kind of the panels that `m` packs into; data is still null.
Panels panels_for(const Matrix& m);

// Writes panels [begin, end) of `shape` at dst (the address of panel `begin`). Packed row n is row row_of[n] of the file, or n if
// row_of is empty. Any thread; ranges are independent. Panels of a part of the matrix: shape has fewer rows, which row_of names,
// or fewer inputs, a multiple of kRecordInputs, from record `first_record` of the file's rows on.
void pack_panels(const Matrix& m, std::span<const int32_t> row_of, const Panels& shape, int64_t begin, int64_t end,
                 std::byte* dst, int64_t first_record = 0);

// out[0, m.cols) = row r in f32.
void decode_row(const Matrix& m, int64_t r, float* out);

float e4m3_to_f32(uint8_t b);  // OCP FP8, finite: 0x7f and 0xff are NaN
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);  // round to nearest even
inline float bf16_to_f32(uint16_t h) { return __builtin_bit_cast(float, static_cast<uint32_t>(h) << 16); }
uint16_t f32_to_bf16(float f);  // round to nearest even; NaN stays NaN

}  // namespace baton::tensor
