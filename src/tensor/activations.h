#pragma once
// Activations: the rows that enter a linear layer, in the forms its weights want. Each form is made once, by Ops::prepare, and read by
// every thread. A row depends on its own values alone, so results cannot depend on the batch.
//   i8:   q[rows][cols] with one Block32 per 32 inputs: x = d * q, q = round(x / d) in -127..127, d = max|x| / 127
//   bf16: x rounded to nearest even      f32: x
// cols is padded to a multiple of 32 with zeros. The view owns nothing.
#include <cstdint>

namespace baton::tensor {

struct Block32 {
  float d;           // scale
  float ds;          // d * (sum of q): what a minimum multiplies
  int32_t nsum;      // -(sum of q): removes the bias of unsigned weights
  int32_t nsum_low;  // the same over the first 16
};

enum ActForm : unsigned { kI8 = 1, kBf16Form = 2, kF32Form = 4 };

struct Activations {
  int64_t cols = 0;          // padded
  int8_t* q = nullptr;       // [rows][cols]
  Block32* block = nullptr;  // [rows][cols / 32]
  uint16_t* bf16 = nullptr;  // [rows][cols]
  float* f32 = nullptr;      // [rows][cols]
};

}  // namespace baton::tensor
