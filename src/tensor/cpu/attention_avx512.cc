// The AVX-512 table, and attention over pair-ordered tiles: 16 tokens (scores) or 16 dims (values) a zmm, one f32 accumulator per
// row. The cache's bf16 pairs are widened once for all rows of a group and multiplied as f32: queries and softmax weights stay
// exact, and on Intel cores vdpbf16ps (one in two cycles, measured) does no more work a cycle than fma. Pairs keep one zmm load a
// pair of inputs.
#include <immintrin.h>

#include "tensor/cpu/backends.h"
#include "tensor/cpu/lanes.h"

namespace baton::tensor {
namespace {

// The first and second of 16 pairs, as f32.
inline __m512 first_of(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
inline __m512 second_of(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

// All rows of a tile (at most 24, which fit the registers as accumulators) pass over the keys and values together. Few rows take
// several groups of 16 tokens or dims at once instead: every output is a chain of fma of its own, and eight must run to hide the
// latency.
struct Pairs {
  template <int R, int T>
  static void score_groups(const KvView& kv, int64_t t, int64_t last, const float* q, float* s) {
    // One head's tiles are islands of memory that no hardware prefetcher follows: ask for the keys of the tokens after these, and
    // for the values of these.
    const uint16_t *k[T], *next_k[T], *v[T];
    for (int g = 0; g < T; ++g) {
      const int64_t token = t + g * 16, next = token + T * 16 < last ? token + T * 16 : token;
      k[g] = kv.k_tile(token) + token % kv.block_tokens * 2;
      next_k[g] = kv.k_tile(next) + next % kv.block_tokens * 2;
      v[g] = kv.v_tile(token) + token % kv.block_tokens * kv.head_dim;
    }
    __m512 acc[T][R];
    for (int g = 0; g < T; ++g)
      for (int r = 0; r < R; ++r) acc[g][r] = _mm512_setzero_ps();
    for (int d = 0; d < kv.head_dim; d += 2) {
#pragma clang loop unroll(full)
      for (int g = 0; g < T; ++g) {
        _mm_prefetch(next_k[g] + d * kv.block_tokens, _MM_HINT_T0);
        _mm_prefetch(v[g] + d * 16, _MM_HINT_T0);
        const __m512i pairs = _mm512_loadu_si512(k[g] + d * kv.block_tokens);
        const __m512 first = first_of(pairs), second = second_of(pairs);
#pragma clang loop unroll(full)
        for (int r = 0; r < R; ++r) acc[g][r] = _mm512_fmadd_ps(first, _mm512_set1_ps(q[r * kQueryStride + d]), acc[g][r]);
#pragma clang loop unroll(full)
        for (int r = 0; r < R; ++r) acc[g][r] = _mm512_fmadd_ps(second, _mm512_set1_ps(q[r * kQueryStride + d + 1]), acc[g][r]);
      }
    }
    for (int g = 0; g < T; ++g)
      for (int r = 0; r < R; ++r) _mm512_storeu_ps(s + r * kScoreStride + g * 16, acc[g][r]);
  }

  template <int R>
  static void score_rows(const KvView& kv, int64_t t0, int64_t t1, int64_t last, const float* q, float* s) {
    int64_t t = t0;
    if constexpr (R <= 6)
      for (; t + 48 < t1; t += 64) score_groups<R, 4>(kv, t, last, q, s + t - t0);
    if constexpr (R <= 12)
      for (; t + 16 < t1; t += 32) score_groups<R, 2>(kv, t, last, q, s + t - t0);
    for (; t < t1; t += 16) score_groups<R, 1>(kv, t, last, q, s + t - t0);
  }

  // Dims [d, d + 16 * G).
  template <int R, int G>
  static void weigh_groups(const KvView& kv, int64_t t0, int64_t t1, int d, const float* p, float* o) {
    __m512 acc[G][R];
    for (int g = 0; g < G; ++g)
      for (int r = 0; r < R; ++r) acc[g][r] = _mm512_setzero_ps();
    for (int64_t t = t0; t < t1;) {
      const int64_t in_block = t % kv.block_tokens;
      const int64_t stop = min_i(t1, t + kv.block_tokens - in_block);
      const uint16_t* v = kv.v_tile(t) + in_block * kv.head_dim + d * 2;
      const float* weight = p + t - t0;
      for (; t + 1 < stop; t += 2, v += 2 * kv.head_dim, weight += 2) {
#pragma clang loop unroll(full)
        for (int g = 0; g < G; ++g) {
          const __m512i pairs = _mm512_loadu_si512(v + g * 32);
          const __m512 first = first_of(pairs), second = second_of(pairs);
#pragma clang loop unroll(full)
          for (int r = 0; r < R; ++r) acc[g][r] = _mm512_fmadd_ps(first, _mm512_set1_ps(weight[r * kScoreStride]), acc[g][r]);
#pragma clang loop unroll(full)
          for (int r = 0; r < R; ++r)
            acc[g][r] = _mm512_fmadd_ps(second, _mm512_set1_ps(weight[r * kScoreStride + 1]), acc[g][r]);
        }
      }
      if (t < stop)  // the last token's pair has another slot, which may not be written yet
        for (int g = 0; g < G; ++g)
          for (int r = 0; r < R; ++r)
            acc[g][r] =
                _mm512_fmadd_ps(first_of(_mm512_loadu_si512(v + g * 32)), _mm512_set1_ps(weight[r * kScoreStride]), acc[g][r]);
      t = stop;
    }
    for (int g = 0; g < G; ++g)
      for (int r = 0; r < R; ++r) _mm512_storeu_ps(o + r * kv.head_dim + d + g * 16, acc[g][r]);
  }

  template <int R>
  static void weigh_rows(const KvView& kv, int64_t t0, int64_t t1, const float* p, float* o) {
    int d = 0;
    if constexpr (R <= 6)
      for (; d + 64 <= kv.head_dim; d += 64) weigh_groups<R, 4>(kv, t0, t1, d, p, o);
    if constexpr (R <= 12)
      for (; d + 32 <= kv.head_dim; d += 32) weigh_groups<R, 2>(kv, t0, t1, d, p, o);
    for (; d < kv.head_dim; d += 16) weigh_groups<R, 1>(kv, t0, t1, d, p, o);
  }

  // f<rows>() for a number of rows known only now.
  template <int R = kAttendRowsMax, class F>
  static void with_rows(int rows, F f) {
    if (rows == R) return f.template operator()<R>();
    if constexpr (R > 1) with_rows<R - 1>(rows, f);
  }

  static void scores(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, int64_t last, const float* q, float* s) {
    with_rows(rows.rows, [&]<int R>() { score_rows<R>(kv, t0, t1, last, q, s); });
  }
  static void weigh(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, const float* p, float* o) {
    with_rows(rows.rows, [&]<int R>() { weigh_rows<R>(kv, t0, t1, p, o); });
  }

  static void store_k(const KvView& kv, int64_t token, int dim, const float* x, int n) {
    uint16_t* k = kv.k_tile(token) + token % kv.block_tokens * 2;
    for (int i = 0; i < n; ++i) k[(dim + i) / 2 * 2 * kv.block_tokens + (dim + i) % 2] = to_bf16(x[i]);
  }
  static void store_v(const KvView& kv, int64_t token, int dim, const float* x, int n) {
    const int64_t in_block = token % kv.block_tokens;
    uint16_t* v = kv.v_tile(token) + in_block / 2 * 2 * kv.head_dim + in_block % 2;
    for (int i = 0; i < n; ++i) v[(dim + i) * 2] = to_bf16(x[i]);
  }
};

constexpr Ops kAvx512 = {.name = "avx512-vnni-bf16",
                         .kv_pairs = true,
                         .gemm = gemm_avx512,
                         .prepare = prepare,
                         .rms_norm = rms_norm,
                         .silu_mul = silu_mul,
                         .store_k = Pairs::store_k,
                         .store_v = Pairs::store_v,
                         .attend = attend<Pairs>,
                         .merge = merge};

}  // namespace

const Ops& avx512_ops() { return kAvx512; }

}  // namespace baton::tensor
