#pragma once
// Activations: the rows that enter a linear layer, in the forms its weights want. Each form is made once, by Ops::prepare, and
// read by every thread. A row depends on its own values alone, so results cannot depend on the batch.
//   i8:   for each 32 inputs x = d * q, q = round(x / d), d = max|x| / 127:  q8[row / 4][input / 32].q[row % 4][input % 32]
//         (four rows lie together, so that a kernel reaches the rows of a tile at constant offsets)
//   bf16: x rounded to nearest even, [rows][stride]; a backend without bf16 products keeps the same values as f32, in `rounded`
//   f32:  x, [rows][stride]
// cols is padded to a multiple of 32 with zeros, and rows of floats to an odd number of 64 bytes of bf16, so that the rows of a
// tile lie in different sets of the cache even where cols is a power of two; the last group of four rows may be partly unset. The
// view owns nothing.
#include <cstddef>
#include <cstdint>

namespace baton::tensor {

inline constexpr int kGroupOfRows = 4;

struct Block32 {
  float d;           // scale
  float ds;          // d * (sum of q): what a minimum multiplies
  int32_t nsum;      // -(sum of q): removes the bias of unsigned weights
  int32_t nsum_low;  // the same over the first 16
};

constexpr int64_t row_stride(int64_t cols) { return (cols / 32 | 1) * 32; }  // of floats; cols: padded

struct Quantised {  // 4 rows x 32 inputs: three cache lines
  int8_t q[kGroupOfRows][32];
  Block32 block[kGroupOfRows];
};
static_assert(sizeof(Quantised) == 192);

enum ActForm : unsigned { kI8 = 1, kBf16Form = 2, kF32Form = 4 };

// n chunks of `bytes` each, the i-th at chunks[i] + offset.
struct Stretch {
  const std::byte* const* chunks = nullptr;
  size_t n = 0, bytes = 0, offset = 0;
};
// What a thread reads in one phase: stretches in their order, each `offset` bytes further on.
struct Passage {
  const Stretch* stretches = nullptr;
  size_t n = 0, offset = 0;
  size_t begin = 0, bytes = 0;  // bytes of the passages before it, and its own
};

// What a thread reads from now on, in its order, and how much of it memory was asked for. Kernels ask while they compute, up to
// `limit`, into later phases: memory then works while the thread multiplies, rounds, joins and waits. Results do not depend on
// it.
struct Ahead {
  const Passage* passages = nullptr;
  size_t n = 0;                                            // passages
  size_t passage = 0, stretch = 0, chunk = 0, within = 0;  // what is asked for next
  size_t asked = 0, limit = 0;                             // bytes of all passages
};

struct Activations {
  int64_t cols = 0;          // padded
  Quantised* q8 = nullptr;   // [rows / 4][cols / 32]
  uint16_t* bf16 = nullptr;  // [rows][stride]
  float* rounded = nullptr;  // [rows][stride]
  float* f32 = nullptr;      // [rows][stride]
  Ahead* ahead = nullptr;    // of the thread that multiplies them; null: nothing

  int64_t stride() const { return row_stride(cols); }
  Quantised* group(int64_t row) const { return q8 + row / kGroupOfRows * (cols / 32); }  // the row's first block
  // Rows from `row` on; the i8 form only where it begins a group. Nothing is asked for ahead.
  Activations from(int64_t row) const {
    const int64_t at = row * stride();
    return {.cols = cols,
            .q8 = row % kGroupOfRows == 0 ? group(row) : nullptr,
            .bf16 = bf16 + at,
            .rounded = rounded + at,
            .f32 = f32 + at};
  }
};

}  // namespace baton::tensor
