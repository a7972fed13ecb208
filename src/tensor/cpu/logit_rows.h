#pragma once
// Rows of logits as sampling reads them, a vocabulary of a model long, written once over lanes.h's vectors. Sums are kept in f32
// within a block and in f64 beyond. Included only by the .cc files of this folder.
#include "tensor/cpu/lanes.h"

namespace baton::tensor {
namespace {

inline constexpr int64_t kSumBlock = 256;

// kLanes values of x from i on; behind its end, `rest`.
inline Vf load_or(const float* x, int64_t i, int64_t n, float rest) {
  if (i + kLanes <= n) return load(x + i);
  float last[kLanes];
  for (int k = 0; k < kLanes; ++k) last[k] = i + k < n ? x[i + k] : rest;
  return load(last);
}

template <bool kKeep>
inline double weigh_blocks(const float* x, int64_t n, float top, float scale, float* out) {
  double total = 0;
  for (int64_t first = 0; first < n; first += kSumBlock) {
    const int64_t end = min_i(n, first + kSumBlock);
    Vf block{};
    for (int64_t i = first; i < end; i += kLanes) {
      const Vf w = exp_negative((load_or(x, i, end, -__builtin_inff()) - top) * scale);
      block += w;
      if (!kKeep) continue;
      if (i + kLanes <= end)
        store(out + i, w);
      else
        store_some(out + i, w, end - i);
    }
    total += static_cast<double>(sum(block));
  }
  return total;
}
inline double weigh_row(const float* x, int64_t n, float top, float scale, float* out) {
  return out ? weigh_blocks<true>(x, n, top, scale, out) : weigh_blocks<false>(x, n, top, scale, out);
}

inline Mass mass_row(const float* w, int64_t n, float least) {
  Mass out;
  for (int64_t first = 0; first < n; first += kSumBlock) {
    const int64_t end = min_i(n, first + kSumBlock);
    Vf block{};
    Vi count{};
    for (int64_t i = first; i < end; i += kLanes) {
      const Vf v = load_or(w, i, end, -1);
      const Vi enough = v >= splat(least);
      block += enough ? v : Vf{};
      count -= enough;
    }
    out.sum += static_cast<double>(sum(block));
    out.count += sum(count);
  }
  return out;
}

}  // namespace
}  // namespace baton::tensor
