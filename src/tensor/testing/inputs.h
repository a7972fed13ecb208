#pragma once
// Random rows of activations in every form.
#include "base/prng.h"
#include "tensor/testing/backends.h"

namespace baton::tensor::testing {

// Activations of random rows, prepared by one backend.
struct Inputs {
  Inputs(const Ops& ops, int64_t rows, int64_t cols, Prng& prng)
      : padded((cols + 31) / 32 * 32),
        x(static_cast<size_t>(rows * cols)),
        q8(static_cast<size_t>((rows + 3) / 4 * padded / 32)),
        bf16(static_cast<size_t>(rows * row_stride(padded))),
        rounded(bf16.size),
        f32(bf16.size) {
    for (float& v : x) v = static_cast<float>(prng.uniform() - 0.5) * (prng.chance(0.02) ? 20 : 1);
    view = {.cols = padded, .q8 = q8.values, .bf16 = bf16.values, .rounded = rounded.values, .f32 = f32.values};
    for (int64_t r = 0; r < rows; ++r) ops.prepare(x.data() + r * cols, 0, cols, kI8 | kBf16Form | kF32Form, view, r);
  }
  // What the kernels multiply: the values after rounding to the form.
  std::vector<double> seen(unsigned form, int64_t rows, int64_t cols) const {
    std::vector<double> out;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < cols; ++i)
        out.push_back(form == kI8
                          ? static_cast<double>(view.group(r)[i / 32].block[r % 4].d) * view.group(r)[i / 32].q[r % 4][i % 32]
                      : form == kBf16Form ? static_cast<double>(bf16_to_f32(f32_to_bf16(x[static_cast<size_t>(r * cols + i)])))
                                          : static_cast<double>(view.f32[r * view.stride() + i]));
    return out;
  }
  int64_t padded;
  std::vector<float> x;
  Aligned<Quantised> q8;
  Aligned<uint16_t> bf16;
  Aligned<float> rounded;
  Aligned<float> f32;
  Activations view;
};

}  // namespace baton::tensor::testing
