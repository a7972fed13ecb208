// The AVX2 backend: 8 outputs a ymm, so a panel of 16 is two halves. vpmaddubsw multiplies unsigned weights with signed
// activations into 16-bit sums of two; 4-bit weights leave room to add a record's eight quads before they are widened (8 * 2 * 15
// * 127 < 2^15). 8-bit weights are cut into nibbles to keep that bound. All integer sums are exact and the float operations are
// those of the AVX-512 backend, so quantised layers agree with it bit for bit. The rest is lanes.h and pairs.h.
#include <immintrin.h>

#include "tensor/cpu/backends.h"
#include "tensor/cpu/eight_bits.h"
#include "tensor/cpu/logit_rows.h"
#include "tensor/cpu/pairs.h"

namespace baton::tensor {
namespace {

inline constexpr int kTileRows = 4;
inline constexpr int kFloatRows = 6;  // 12 sums, two weights, an input: as many as there are registers
inline constexpr size_t kPrefetchBytes = 2048;

constexpr bool is_u4(PanelKind k) { return k == PanelKind::kU4 || k == PanelKind::kU4Min; }
constexpr bool has_minima(PanelKind k) { return k == PanelKind::kU4Min || k == PanelKind::kU8Min; }

inline __m256i load_ints(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m256 load_scales(const std::byte* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline __m256i quad(const int8_t* q) {
  int32_t v;
  __builtin_memcpy(&v, q, 4);
  return _mm256_set1_epi32(v);
}

// Adds quads [4 * part, 4 * part + 4) of a record's inputs times 8 rows of 8-bit weights: low nibbles to low, high ones to high.
inline void add_quads(const std::byte* weights, const int8_t* q, int part, __m256i& low, __m256i& high) {
  const __m256i mask = _mm256_set1_epi8(15);
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; ++i) {
    const __m256i x = quad(q + (part * 4 + i) * 4);
    const __m256i w = load_ints(weights + (part * 4 + i) * 64);
    low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_and_si256(w, mask), x));
    high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(w, 4), mask), x));
  }
}

inline __m256i widen(__m256i low, __m256i high) {
  return _mm256_add_epi32(_mm256_madd_epi16(low, _mm256_set1_epi16(1)), _mm256_madd_epi16(high, _mm256_set1_epi16(16)));
}

// Outputs [8 * half, 8 * half + 8) of a panel of 8-bit weights for rows [row, row + MT); row is a multiple of 4.
template <PanelKind kind, int MT>
inline void byte_half(const std::byte* panel, int half, size_t ahead, int64_t records, int bias_log2, const Activations& x,
                      int64_t row, __m256 (&acc)[MT]) {
  static_assert(!is_u4(kind) && MT <= kGroupOfRows);
  const __m128i shift = _mm_cvtsi32_si128(bias_log2);
  const Quantised* in = x.group(row);
  for (int m = 0; m < MT; ++m) acc[m] = _mm256_setzero_ps();
  const std::byte* rec = panel + half * 32;
  for (int64_t left = records; left > 0; --left, rec += record_bytes(kind), ++in) {
    if (ahead != 0)
      for (size_t i = 0; i < record_bytes(kind); i += 64)
        _mm_prefetch(reinterpret_cast<const char*>(rec) + ahead + i, _MM_HINT_T0);
    const std::byte* scales = rec - half * 32 + 512 + half * 16;
    [[maybe_unused]] const __m256 d = kind == PanelKind::kU8Row ? _mm256_setzero_ps() : load_scales(scales);
    [[maybe_unused]] const __m256 second = has_minima(kind) || kind == PanelKind::kU8Half ? load_scales(scales + 32) : d;
#pragma clang loop unroll(full)
    for (int m = 0; m < MT; ++m) {
      const Block32& block = in->block[m];
      const __m256 dx = _mm256_set1_ps(block.d);
      const auto bias = [&](int32_t nsum) {
        return has_minima(kind) ? _mm256_setzero_si256() : _mm256_sll_epi32(_mm256_set1_epi32(nsum), shift);
      };
      __m256i low = _mm256_setzero_si256(), high = low;
      add_quads(rec, in->q[m], 0, low, high);
      if constexpr (kind == PanelKind::kU8Half) {
        const __m256i first = _mm256_add_epi32(bias(block.nsum_low), widen(low, high));
        acc[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(first), _mm256_mul_ps(d, dx), acc[m]);
        low = high = _mm256_setzero_si256();
      }
      add_quads(rec, in->q[m], 1, low, high);
      const __m256i dot =
          _mm256_add_epi32(bias(kind == PanelKind::kU8Half ? block.nsum - block.nsum_low : block.nsum), widen(low, high));
      const __m256 step = kind == PanelKind::kU8Row ? dx : _mm256_mul_ps(kind == PanelKind::kU8Half ? second : d, dx);
      acc[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), step, acc[m]);
      if constexpr (has_minima(kind)) acc[m] = _mm256_fmadd_ps(second, _mm256_set1_ps(block.ds), acc[m]);
    }
  }
  if constexpr (kind == PanelKind::kU8Row) {
    const __m256 d = _mm256_loadu_ps(reinterpret_cast<const float*>(rec - half * 32) + half * 8);
    for (int m = 0; m < MT; ++m) acc[m] = _mm256_mul_ps(acc[m], d);
  }
}

// All 16 outputs of a panel of 4-bit weights for rows [row, row + MT): an input is spread over a register once for both halves.
// The operations of one output are those of byte_half. 4-bit records keep their second four quads in the high nibbles of the first.
template <PanelKind kind, int MT>
inline void nibble_tile(const std::byte* panel, size_t ahead, int64_t records, int bias_log2, const Activations& x, int64_t row,
                        float (*out)[16]) {
  static_assert(is_u4(kind) && MT <= kGroupOfRows);
  const __m128i shift = _mm_cvtsi32_si128(bias_log2);
  const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  const Quantised* in = x.group(row);
  __m256 acc[MT][2];
  for (int m = 0; m < MT; ++m) acc[m][0] = acc[m][1] = _mm256_setzero_ps();
  const std::byte* rec = panel;
  for (int64_t left = records; left > 0; --left, rec += record_bytes(kind), ++in) {
    if (ahead != 0)
      for (size_t i = 0; i < record_bytes(kind); i += 64)
        _mm_prefetch(reinterpret_cast<const char*>(rec) + ahead + i, _MM_HINT_T0);
    __m256i sum[MT][2];
    for (int m = 0; m < MT; ++m) sum[m][0] = sum[m][1] = _mm256_setzero_si256();
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; ++i) {
      // Left alone, the compiler unpacks all weights of a record first, twice as many as there are registers.
      asm volatile("" : "+r"(rec));
      const __m256i w0 = load_ints(rec + i * 64), w1 = load_ints(rec + i * 64 + 32);
      const __m256i low0 = _mm256_and_si256(w0, mask), low1 = _mm256_and_si256(w1, mask);
      const __m256i high0 = _mm256_and_si256(_mm256_srli_epi16(w0, 4), mask);
      const __m256i high1 = _mm256_and_si256(_mm256_srli_epi16(w1, 4), mask);
#pragma clang loop unroll(full)
      for (int m = 0; m < MT; ++m) {
        const __m256i near = quad(in->q[m] + i * 4), far = quad(in->q[m] + 16 + i * 4);
        const __m256i s0 = _mm256_add_epi16(_mm256_maddubs_epi16(low0, near), _mm256_maddubs_epi16(high0, far));
        const __m256i s1 = _mm256_add_epi16(_mm256_maddubs_epi16(low1, near), _mm256_maddubs_epi16(high1, far));
        sum[m][0] = _mm256_add_epi16(sum[m][0], s0);
        sum[m][1] = _mm256_add_epi16(sum[m][1], s1);
        asm volatile("" : "+x"(sum[m][0]), "+x"(sum[m][1]));
      }
    }
#pragma clang loop unroll(full)
    for (int half = 0; half < 2; ++half) {
      const __m256 d = load_scales(rec + 256 + half * 16);
      [[maybe_unused]] const __m256 least = has_minima(kind) ? load_scales(rec + 288 + half * 16) : d;
#pragma clang loop unroll(full)
      for (int m = 0; m < MT; ++m) {
        const Block32& block = in->block[m];
        __m256i dot = _mm256_madd_epi16(sum[m][half], ones);
        if constexpr (!has_minima(kind)) dot = _mm256_add_epi32(dot, _mm256_sll_epi32(_mm256_set1_epi32(block.nsum), shift));
        acc[m][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(d, _mm256_set1_ps(block.d)), acc[m][half]);
        if constexpr (has_minima(kind)) acc[m][half] = _mm256_fmadd_ps(least, _mm256_set1_ps(block.ds), acc[m][half]);
      }
    }
  }
  for (int m = 0; m < MT; ++m)
    for (int half = 0; half < 2; ++half) _mm256_storeu_ps(out[m] + half * 8, acc[m][half]);
}

template <PanelKind kind, int MT>
inline void tile(const Panels& w, int64_t p, size_t ahead, const Activations& x, int64_t row, float* out, int64_t stride,
                 bool add) {
  float result[MT][16];
  if constexpr (is_u4(kind)) {
    nibble_tile<kind, MT>(w.panel(p), ahead, w.records(), w.bias_log2, x, row, result);
  } else {
    for (int half = 0; half < 2; ++half) {
      __m256 acc[MT];
      byte_half<kind, MT>(w.panel(p), half, half == 0 ? ahead : 0, w.records(), w.bias_log2, x, row, acc);
      for (int m = 0; m < MT; ++m) _mm256_storeu_ps(result[m] + half * 8, acc[m]);
    }
  }
  put_tile(result, MT, static_cast<int>(min_i(16, w.rows - p * 16)), out + row * stride + p * 16, stride, add);
}

template <PanelKind kind>
[[gnu::noinline]] void panels(const Panels& w, int64_t begin, int64_t end, const Activations& x, int64_t m, float* out,
                              int64_t stride, bool add) {
  // One tile streams its panel from memory; of several the last brings the next panel near.
  const auto ahead = [&](int64_t r, int64_t rows) -> size_t {
    return m <= kTileRows ? kPrefetchBytes : r + rows == m ? w.panel_bytes() : 0;
  };
  for (int64_t p = begin; p < end; ++p) {
    int64_t r = 0;
    for (; r + kTileRows <= m; r += kTileRows) tile<kind, kTileRows>(w, p, ahead(r, kTileRows), x, r, out, stride, add);
    switch (m - r) {
      case 3:
        tile<kind, 3>(w, p, ahead(r, 3), x, r, out, stride, add);
        break;
      case 2:
        tile<kind, 2>(w, p, ahead(r, 2), x, r, out, stride, add);
        break;
      case 1:
        tile<kind, 1>(w, p, ahead(r, 1), x, r, out, stride, add);
        break;
      default:
        break;
    }
  }
}

void gemm(const Panels& w, int64_t begin, int64_t end, const Activations& x, int64_t m, float* out, int64_t stride, bool add) {
  switch (w.kind) {
    case PanelKind::kU4:
      return panels<PanelKind::kU4>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU4Min:
      return panels<PanelKind::kU4Min>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8:
      return panels<PanelKind::kU8>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8Min:
      return panels<PanelKind::kU8Min>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8Half:
      return panels<PanelKind::kU8Half>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kBf16:
      return float_gemm<PanelKind::kBf16, kFloatRows>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kF16:
      return float_gemm<PanelKind::kF16, kFloatRows>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kF32:
      return float_gemm<PanelKind::kF32, kFloatRows>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8Row:
      return panels<PanelKind::kU8Row>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kE4m3:
      return float_gemm<PanelKind::kE4m3, kFloatRows>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kE4m3Block:
      return float_gemm<PanelKind::kE4m3Block, kFloatRows>(w, begin, end, x, m, out, stride, add);
  }
}

constexpr Ops kAvx2 = {.name = "avx2",
                       .kv_pairs = true,
                       .gemm = gemm,
                       .prepare = prepare<false>,
                       .rms_norm = rms_norm,
                       .gate_mul = {silu_mul, gelu_tanh_mul, swiglu_clamped_mul},
                       .soft_cap = soft_cap,
                       .weigh = weigh_row,
                       .mass = mass_row,
                       .cache = {kv_ops<Pairs>, kv_ops<EightBits<Pairs, E4m3>>, kv_ops<EightBits<Pairs, E5m2>>,
                                 kv_ops<EightBits<Pairs, I8Scaled>>, kv_ops<EightBits<Pairs, E4m3Scaled>>},
                       .merge = merge};

}  // namespace

const Ops& avx2_ops() { return kAvx2; }

}  // namespace baton::tensor
