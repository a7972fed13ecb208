#pragma once
// Attention over pair-ordered tiles (K [dim/2][token][2], V [token/2][dim][2]), written once over lanes.h's vectors: a vector
// holds tokens for scores and dims for values, so nothing is summed across lanes, and there is one f32 accumulator per row. Where
// the machine multiplies bf16 (vdpbf16ps: on Zen 4 twice the work of fma in a cycle, on Intel as much), queries and softmax
// weights are rounded to bf16 as the cache is, the sum of the weights is not; elsewhere the cache's pairs are widened for all
// rows of a tile and queries and weights stay f32. Included only by the .cc files of this folder.
#include "tensor/cpu/asking.h"
#include "tensor/cpu/attend.h"

namespace baton::tensor {
namespace {

// The first and second of kLanes pairs, as f32.
inline Vi load_pairs(const uint16_t* p) {
  Vi v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline Vf first_of(Vi pairs) { return __builtin_bit_cast(Vf, pairs << 16); }
inline Vf second_of(Vi pairs) { return __builtin_bit_cast(Vf, pairs & static_cast<int32_t>(0xffff0000)); }

// A tile of rows passes over the keys and values together, as many as fit the registers as accumulators. Few rows take several
// groups of 16 tokens or dims at once instead: every output is a chain of fma of its own, and eight must run to hide the latency.
struct Pairs {
  static constexpr bool kByToken = false;
  static constexpr int kVectors = 16 / kLanes;             // of a group
  static constexpr int kTileRows = kLanes == 16 ? 24 : 6;  // accumulators of a group: 24 of 32 registers, 12 of 16
  static constexpr int groups(int rows) { return rows * 4 <= kTileRows ? 4 : rows * 2 <= kTileRows ? 2 : 1; }

#if defined(__AVX512BF16__)
  // Queries and weights as multiply() reads them: bf16, side by side where the row's floats lay.
  using Factor = uint16_t;
  static void to_factors(float* row, int64_t n) {
    for (int64_t i = 0; i < n; i += kLanes) store_bf16(reinterpret_cast<uint16_t*>(row) + i, load(row + i));
  }
  static Vf multiply_pairs(Vf acc, Vi pairs, const uint16_t* x) {
    int32_t two;
    __builtin_memcpy(&two, x, sizeof two);
    return __builtin_bit_cast(Vf, _mm512_dpbf16_ps(__builtin_bit_cast(__m512, acc), __builtin_bit_cast(__m512bh, pairs),
                                                   __builtin_bit_cast(__m512bh, _mm512_set1_epi32(two))));
  }

  // acc[i][r] += first * x[r][0] and second * x[r][1], for the 16 pairs at p.
  template <int R>
  static void multiply(const uint16_t* p, const Factor* x, int64_t stride, Vf (&acc)[kVectors][R]) {
    const Vi pairs = load_pairs(p);
#pragma clang loop unroll(full)
    for (int r = 0; r < R; ++r) acc[0][r] = multiply_pairs(acc[0][r], pairs, x + r * stride);
  }
  // acc[i][r] += first * x[r][0]: the second may be anything.
  template <int R>
  static void multiply_first(const uint16_t* p, const Factor* x, int64_t stride, Vf (&acc)[kVectors][R]) {
    const Vi pairs = load_pairs(p) & 0xffff;
    for (int r = 0; r < R; ++r) acc[0][r] = multiply_pairs(acc[0][r], pairs, x + r * stride);
  }
#else
  using Factor = float;
  static void to_factors(float*, int64_t) {}

  // acc[i][r] += first * x[r][0] and then second * x[r][1], for the 16 pairs at p.
  template <int R>
  static void multiply(const uint16_t* p, const Factor* x, int64_t stride, Vf (&acc)[kVectors][R]) {
    Vf half[kVectors];
#pragma clang loop unroll(full)
    for (int i = 0; i < kVectors; ++i) half[i] = first_of(load_pairs(p + i * kLanes * 2));
#pragma clang loop unroll(full)
    for (int r = 0; r < R; ++r)
#pragma clang loop unroll(full)
      for (int i = 0; i < kVectors; ++i) acc[i][r] = fma(half[i], splat(x[r * stride]), acc[i][r]);
    again(p);
#pragma clang loop unroll(full)
    for (int i = 0; i < kVectors; ++i) half[i] = second_of(load_pairs(p + i * kLanes * 2));
#pragma clang loop unroll(full)
    for (int r = 0; r < R; ++r)
#pragma clang loop unroll(full)
      for (int i = 0; i < kVectors; ++i) acc[i][r] = fma(half[i], splat(x[r * stride + 1]), acc[i][r]);
  }
  // With few registers what lies at p is loaded again, not kept.
  static void again(const uint16_t*& p) {
    if constexpr (kLanes == 8) asm volatile("" : "+r"(p));
  }
  // acc[i][r] += first * x[r][0]: the second may be anything.
  template <int R>
  static void multiply_first(const uint16_t* p, const Factor* x, int64_t stride, Vf (&acc)[kVectors][R]) {
    for (int i = 0; i < kVectors; ++i) {
      const Vf first = first_of(load_pairs(p + i * kLanes * 2));
      for (int r = 0; r < R; ++r) acc[i][r] = fma(first, splat(x[r * stride]), acc[i][r]);
    }
  }
#endif
  // From one row's queries or weights to the next's.
  static constexpr int64_t kQueries = kQueryStride * static_cast<int64_t>(sizeof(float) / sizeof(Factor));
  static constexpr int64_t kWeights = kScoreStride * static_cast<int64_t>(sizeof(float) / sizeof(Factor));
  static const Factor* factors_of(const float* row) { return reinterpret_cast<const Factor*>(row); }

  template <int R, int T, bool kFetch = true>
  static void score_groups(const KvView& kv, int64_t t, int64_t last, const Factor* q, float* s, Asking& ask) {
    // One head's tiles are islands of memory that no hardware prefetcher follows: ask for the keys of the tokens after these, and
    // for the values of these.
    const uint16_t *k[T], *next_k[T], *v[T];
    for (int g = 0; g < T; ++g) {
      const int64_t token = t + g * 16, next = token + T * 16 < last ? token + T * 16 : token;
      k[g] = bf16_of(kv.k_tile(token)) + token % kv.block_tokens * 2;
      next_k[g] = bf16_of(kv.k_tile(next)) + next % kv.block_tokens * 2;
      v[g] = bf16_of(kv.v_tile(token)) + token % kv.block_tokens * kv.head_dim;
    }
    Vf acc[T][kVectors][R] = {};
    for (int d = 0; d < kv.head_dim; d += 2) {
      if constexpr (kLanes == 16 && kFetch) ask(T);
#pragma clang loop unroll(full)
      for (int g = 0; g < T; ++g) {
        if constexpr (kFetch) {
          __builtin_prefetch(next_k[g] + d * kv.block_tokens, 0, 2);
          __builtin_prefetch(v[g] + d * 16, 0, 2);
        }
        multiply<R>(k[g] + d * kv.block_tokens, q + d, kQueries, acc[g]);
      }
    }
    for (int g = 0; g < T; ++g)
      for (int i = 0; i < kVectors; ++i)
        for (int r = 0; r < R; ++r) store(s + r * kScoreStride + g * 16 + i * kLanes, acc[g][i][r]);
  }

  // Tokens [t, t1) in steps of T groups as long as the last group holds a token, the rest in smaller ones.
  template <int R, int T = groups(R)>
  static void score_rows(const KvView& kv, int64_t t, int64_t t1, int64_t last, const Factor* q, float* s, Asking& ask) {
    for (; t + (T - 1) * 16 < t1; t += T * 16, s += T * 16) score_groups<R, T>(kv, t, last, q, s, ask);
    if constexpr (T > 1) score_rows<R, T / 2>(kv, t, t1, last, q, s, ask);
  }

  // Dims [d, d + 16 * G).
  template <int R, int G>
  static void weigh_groups(const KvView& kv, int64_t t0, int64_t t1, int d, const Factor* p, float* o, Asking& ask) {
    Vf acc[G][kVectors][R] = {};
    for (int64_t t = t0; t < t1;) {
      const int64_t in_block = t % kv.block_tokens;
      const int64_t stop = min_i(t1, t + kv.block_tokens - in_block);
      const uint16_t* v = bf16_of(kv.v_tile(t)) + in_block * kv.head_dim + d * 2;
      const Factor* weight = p + t - t0;
      for (; t + 1 < stop; t += 2, v += 2 * kv.head_dim, weight += 2) {
        if constexpr (kLanes == 16) ask(G);
#pragma clang loop unroll(full)
        for (int g = 0; g < G; ++g) {
          multiply<R>(v + g * 32, weight, kWeights, acc[g]);
        }
      }
      if (t < stop)  // the last token's pair has another slot, which may not be written yet
        for (int g = 0; g < G; ++g) multiply_first<R>(v + g * 32, weight, kWeights, acc[g]);
      t = stop;
    }
    for (int g = 0; g < G; ++g)
      for (int i = 0; i < kVectors; ++i)
        for (int r = 0; r < R; ++r) store(o + r * kv.head_dim + d + g * 16 + i * kLanes, acc[g][i][r]);
  }

  template <int R, int G = groups(R)>
  static void weigh_rows(const KvView& kv, int64_t t0, int64_t t1, const Factor* p, float* o, Asking& ask, int d = 0) {
    for (; d + 16 * G <= kv.head_dim; d += 16 * G) weigh_groups<R, G>(kv, t0, t1, d, p, o, ask);
    if constexpr (G > 1) weigh_rows<R, G / 2>(kv, t0, t1, p, o, ask, d);
  }

  // f<rows>(first row) for tiles that together are `rows` rows, a number known only now.
  template <int R = kTileRows, class F>
  static void with_rows(int rows, F f, int first = 0) {
    for (; rows >= R; rows -= R, first += R) f.template operator()<R>(first);
    if constexpr (R > 1)
      if (rows > 0) with_rows<R - 1>(rows, f, first);
  }

  // With more rows than a tile, keys and values go from L2 to L1 once: group after group, all rows meet each.
  static void scores(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, int64_t last, const float* queries,
                     float* s, uint16_t*) {
    const Factor* q = factors_of(queries);
    Asking ask(rows.ahead);
    if constexpr (kTileRows < kAttendRowsMax) {
      for (int64_t t = t0; rows.rows > kTileRows && t < t1; t += 16, s += 16) {
        score_groups<kTileRows, 1>(kv, t, last, q, s, ask);
        with_rows(rows.rows - kTileRows, [&]<int R>(int r) {
          score_groups<R, 1, false>(kv, t, last, q + (kTileRows + r) * kQueries, s + (kTileRows + r) * kScoreStride, ask);
        });
      }
    }
    if (rows.rows <= kTileRows) with_rows(rows.rows, [&]<int R>(int) { score_rows<R>(kv, t0, t1, last, q, s, ask); });
  }
  static void weigh(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, float* weights, float* o, uint16_t*) {
    for (int r = 0; r < rows.rows; ++r) to_factors(weights + r * kScoreStride, (t1 - t0 + 15) / 16 * 16);
    const Factor* p = factors_of(weights);
    Asking ask(rows.ahead);
    if constexpr (kTileRows < kAttendRowsMax) {
      for (int d = 0; rows.rows > kTileRows && d < kv.head_dim; d += 16)
        with_rows(rows.rows,
                  [&]<int R>(int r) { weigh_groups<R, 1>(kv, t0, t1, d, p + r * kWeights, o + r * kv.head_dim, ask); });
    }
    if (rows.ahead) rows.ahead->limit += 2 * static_cast<size_t>((t1 - t0) * kv.head_dim) * sizeof(uint16_t);
    if (rows.rows <= kTileRows) with_rows(rows.rows, [&]<int R>(int) { weigh_rows<R>(kv, t0, t1, p, o, ask); });
  }

  // Where an element of K or V lies in its tile; at: the token in the block.
  static int64_t key_place(const KvView& kv, int64_t at, int64_t d) { return d / 2 * 2 * kv.block_tokens + at * 2 + d % 2; }
  static int64_t value_place(const KvView& kv, int64_t at, int64_t d) { return at / 2 * 2 * kv.head_dim + d * 2 + at % 2; }
  static void store_k(const KvView& kv, int64_t token, int dim, const float* x, int n) {
    uint16_t* k = bf16_of(kv.k_tile(token)) + key_place(kv, token % kv.block_tokens, dim);
    for (int i = 0; i < n; i += 2, k += 2 * kv.block_tokens) {  // dim and n are even
      const uint16_t pair[2] = {to_bf16(x[i]), to_bf16(x[i + 1])};
      __builtin_memcpy(k, pair, sizeof pair);
    }
  }
  static void store_v(const KvView& kv, int64_t token, int dim, const float* x, int n) {
    uint16_t* v = bf16_of(kv.v_tile(token)) + value_place(kv, token % kv.block_tokens, dim);
    for (int i = 0; i < n; ++i) v[2 * i] = to_bf16(x[i]);
  }
};

}  // namespace
}  // namespace baton::tensor
