#pragma once
// Attention over token-major tiles (K and V [token][dim]), written once over lanes.h's vectors: what the plain backend does.
// Included only by the .cc files of this folder.
#include "tensor/cpu/attend.h"

namespace baton::tensor {
namespace {

// K and V as [token][dim]; f32 arithmetic on bf16 values.
struct TokenMajor {
  static constexpr bool kByToken = true;
  static void to_factors(float*, int64_t) {}

  static void scores(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, int64_t, const float* q, float* s,
                     uint16_t*) {
    for (int64_t t = t0; t < t1; ++t) {
      const uint16_t* k = bf16_of(kv.k_tile(t)) + t % kv.block_tokens * kv.head_dim;
      for (int r = 0; r < rows.rows; ++r) {
        Vf acc{};
        for (int i = 0; i < kv.head_dim; i += kLanes) acc = fma(load(q + r * kQueryStride + i), from_bf16(k + i), acc);
        s[r * kScoreStride + t - t0] = sum(acc);
      }
    }
    for (int r = 0; r < rows.rows; ++r)
      for (int64_t t = t1; (t - t0) % 16 != 0; ++t) s[r * kScoreStride + t - t0] = 0;
  }

  static void weigh(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, const float* s, float* o, uint16_t*) {
    __builtin_memset(o, 0, static_cast<size_t>(rows.rows) * kv.head_dim * 4);
    for (int64_t t = t0; t < t1; ++t) {
      const uint16_t* v = bf16_of(kv.v_tile(t)) + t % kv.block_tokens * kv.head_dim;
      for (int r = 0; r < rows.rows; ++r) {
        const Vf p = splat(s[r * kScoreStride + t - t0]);
        float* to = o + r * kv.head_dim;
        for (int i = 0; i < kv.head_dim; i += kLanes) store(to + i, fma(p, from_bf16(v + i), load(to + i)));
      }
    }
  }

  // Where an element of K or V lies in its tile; at: the token in the block.
  static int64_t key_place(const KvView& kv, int64_t at, int64_t d) { return at * kv.head_dim + d; }
  static int64_t value_place(const KvView& kv, int64_t at, int64_t d) { return at * kv.head_dim + d; }
  static void store_k(const KvView& kv, int64_t token, int dim, const float* x, int n) {
    uint16_t* k = bf16_of(kv.k_tile(token));
    for (int i = 0; i < n; ++i) k[key_place(kv, token % kv.block_tokens, dim + i)] = to_bf16(x[i]);
  }
  static void store_v(const KvView& kv, int64_t token, int dim, const float* x, int n) {
    uint16_t* v = bf16_of(kv.v_tile(token));
    for (int i = 0; i < n; ++i) v[value_place(kv, token % kv.block_tokens, dim + i)] = to_bf16(x[i]);
  }
};

}  // namespace
}  // namespace baton::tensor
