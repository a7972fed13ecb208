// The AVX-512 table, and attention over pair-ordered tiles: both products are vdpbf16ps with 16 tokens (scores) or 16 dims (values) a zmm
// and the row's pair broadcast from memory. The query rows and the softmax weights are rounded to bf16 to meet the bf16 cache.
#include <immintrin.h>

#include "tensor/cpu/backends.h"
#include "tensor/cpu/lanes.h"

namespace baton::tensor {
namespace {

inline constexpr int kGroupRows = 8;  // rows that share one pass over a tile: 8 chains hide vdpbf16ps' latency of 6

inline __m512bh pairs(const uint16_t* p) { return __builtin_bit_cast(__m512bh, _mm512_loadu_si512(p)); }
inline __m512bh pair(const uint16_t* p) {
  int32_t two;
  __builtin_memcpy(&two, p, 4);
  return __builtin_bit_cast(__m512bh, _mm512_set1_epi32(two));
}
inline void to_bf16_row(const float* x, int64_t n, uint16_t* out) {  // n a multiple of 16
  for (int64_t i = 0; i < n; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), __builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i))));
}

// rest: queries bf16 [32][head_dim], weights bf16 [32][128]
struct Pairs {
  static uint16_t* queries(void* rest) { return static_cast<uint16_t*>(rest); }
  static uint16_t* weights(void* rest, int head_dim) { return queries(rest) + kAttendRowsMax * head_dim; }

  static void start(const AttendRows& rows, const KvView& kv, void* rest) {
    for (int r = 0; r < rows.rows; ++r) to_bf16_row(rows.q[r], kv.head_dim, queries(rest) + r * kv.head_dim);
  }

  template <int R>
  static void score_rows(const KvView& kv, int64_t t0, int64_t t1, const uint16_t* q, float* s) {
    for (int64_t t = t0; t < t1; t += 16) {
      const uint16_t* k = kv.k_tile(t) + t % kv.block_tokens * 2;
      __m512 acc[R];
      for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
      for (int d = 0; d < kv.head_dim; d += 2, k += 2 * kv.block_tokens) {
        const __m512bh tokens = pairs(k);
        for (int r = 0; r < R; ++r) acc[r] = _mm512_dpbf16_ps(acc[r], tokens, pair(q + r * kv.head_dim + d));
      }
      for (int r = 0; r < R; ++r) _mm512_storeu_ps(s + r * kSpanTokens + t - t0, acc[r]);
    }
  }

  template <int R>
  static void weigh_rows(const KvView& kv, int64_t t0, int64_t t1, const uint16_t* p, float* o) {
    for (int d = 0; d < kv.head_dim; d += 16) {
      __m512 acc[R];
      for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
      for (int64_t t = t0; t < t1;) {
        const int64_t in_block = t % kv.block_tokens;
        const int64_t stop = min_i(t1, t + kv.block_tokens - in_block);
        const uint16_t* v = kv.v_tile(t) + in_block * kv.head_dim + d * 2;
        for (; t < stop; t += 2, v += 2 * kv.head_dim) {
          __m512i two = _mm512_loadu_si512(v);
          if (t + 1 == t1) two = _mm512_and_si512(two, _mm512_set1_epi32(0xffff));  // the pair's other slot is not written yet
          for (int r = 0; r < R; ++r)
            acc[r] = _mm512_dpbf16_ps(acc[r], __builtin_bit_cast(__m512bh, two), pair(p + r * kSpanTokens + t - t0));
        }
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
      case 7: f.template operator()<7>(r); break;
      case 6: f.template operator()<6>(r); break;
      case 5: f.template operator()<5>(r); break;
      case 4: f.template operator()<4>(r); break;
      case 3: f.template operator()<3>(r); break;
      case 2: f.template operator()<2>(r); break;
      case 1: f.template operator()<1>(r); break;
      default: break;
    }
  }

  static void scores(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, float* s, void* rest) {
    grouped(rows.rows, [&]<int R>(int r) { score_rows<R>(kv, t0, t1, queries(rest) + r * kv.head_dim, s + r * kSpanTokens); });
  }

  static void weigh(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, const float* s, float* o, void* rest) {
    uint16_t* p = weights(rest, kv.head_dim);
    const int64_t padded = (t1 - t0 + 15) / 16 * 16;
    for (int r = 0; r < rows.rows; ++r) to_bf16_row(s + r * kSpanTokens, padded, p + r * kSpanTokens);
    grouped(rows.rows, [&]<int R>(int r) { weigh_rows<R>(kv, t0, t1, p + r * kSpanTokens, o + r * kv.head_dim); });
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
