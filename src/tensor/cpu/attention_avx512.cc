// The AVX-512 table, and attention over pair-ordered tiles: 16 tokens (scores) or 16 dims (values) a zmm, one f32 accumulator per
// row. The cache's bf16 pairs are widened once for all rows of a group and multiplied as f32: queries and softmax weights stay
// exact, and on Intel cores vdpbf16ps (one in two cycles, measured) does no more work a cycle than fma. Pairs keep one zmm load a
// pair of inputs.
#include <immintrin.h>

#include "tensor/cpu/backends.h"
#include "tensor/cpu/lanes.h"

namespace baton::tensor {
namespace {

inline constexpr int kGroupRows = 8;  // rows that share one pass over a tile: 8 chains hide the latency of fma

// The first and second of 16 pairs, as f32.
inline __m512 first_of(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
inline __m512 second_of(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

struct Pairs {
  template <int R>
  static void score_rows(const AttendRows& rows, int row, const KvView& kv, int64_t t0, int64_t t1, int64_t last, float* s) {
    for (int64_t t = t0; t < t1; t += 16) {
      const uint16_t* k = kv.k_tile(t) + t % kv.block_tokens * 2;
      __m512 acc[R];
      for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
      // One head's tiles are 2 KiB apart islands of memory that no hardware prefetcher follows: ask for the keys of the next 16
      // tokens and the values of these.
      const int64_t next = t + 16 < last ? t + 16 : t;
      const uint16_t* next_k = kv.k_tile(next) + next % kv.block_tokens * 2;
      const uint16_t* v = kv.v_tile(t) + t % kv.block_tokens * kv.head_dim;
      for (int d = 0; d < kv.head_dim; d += 2, k += 2 * kv.block_tokens) {
        if (row == 0) {
          _mm_prefetch(next_k + d * kv.block_tokens, _MM_HINT_T0);
          _mm_prefetch(v + d * 16, _MM_HINT_T0);
        }
        const __m512i pairs = _mm512_loadu_si512(k);
        const __m512 first = first_of(pairs), second = second_of(pairs);
        for (int r = 0; r < R; ++r) acc[r] = _mm512_fmadd_ps(first, _mm512_set1_ps(rows.q[row + r][d]), acc[r]);
        for (int r = 0; r < R; ++r) acc[r] = _mm512_fmadd_ps(second, _mm512_set1_ps(rows.q[row + r][d + 1]), acc[r]);
      }
      for (int r = 0; r < R; ++r) _mm512_storeu_ps(s + r * kSpanTokens + t - t0, acc[r]);
    }
  }

  template <int R>
  static void weigh_rows(const KvView& kv, int64_t t0, int64_t t1, const float* p, float* o) {
    for (int d = 0; d < kv.head_dim; d += 16) {
      __m512 acc[R];
      for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
      for (int64_t t = t0; t < t1;) {
        const int64_t in_block = t % kv.block_tokens;
        const int64_t stop = min_i(t1, t + kv.block_tokens - in_block);
        const uint16_t* v = kv.v_tile(t) + in_block * kv.head_dim + d * 2;
        for (; t < stop; t += 2, v += 2 * kv.head_dim) {
          const __m512i pairs = _mm512_loadu_si512(v);
          const __m512 first = first_of(pairs), second = second_of(pairs);
          for (int r = 0; r < R; ++r) acc[r] = _mm512_fmadd_ps(first, _mm512_set1_ps(p[r * kSpanTokens + t - t0]), acc[r]);
          if (t + 1 == t1) break;  // the pair's other slot is not written yet
          for (int r = 0; r < R; ++r) acc[r] = _mm512_fmadd_ps(second, _mm512_set1_ps(p[r * kSpanTokens + t - t0 + 1]), acc[r]);
        }
        t = stop;
      }
      for (int r = 0; r < R; ++r) _mm512_storeu_ps(o + r * kv.head_dim + d, acc[r]);
    }
  }

  // Runs f<R>(first row) over groups of at most kGroupRows rows.
  template <class F>
  static void grouped(int rows, F f) {
    int r = 0;
    for (; r + kGroupRows <= rows; r += kGroupRows) f.template operator()<kGroupRows>(r);
    switch (rows - r) {
      case 7:
        f.template operator()<7>(r);
        break;
      case 6:
        f.template operator()<6>(r);
        break;
      case 5:
        f.template operator()<5>(r);
        break;
      case 4:
        f.template operator()<4>(r);
        break;
      case 3:
        f.template operator()<3>(r);
        break;
      case 2:
        f.template operator()<2>(r);
        break;
      case 1:
        f.template operator()<1>(r);
        break;
      default:
        break;
    }
  }

  static void scores(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, int64_t last, float* s) {
    grouped(rows.rows, [&]<int R>(int r) { score_rows<R>(rows, r, kv, t0, t1, last, s + r * kSpanTokens); });
  }
  static void weigh(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, const float* s, float* o) {
    grouped(rows.rows, [&]<int R>(int r) { weigh_rows<R>(kv, t0, t1, s + r * kSpanTokens, o + r * kv.head_dim); });
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
