// Linear layers with AVX-512 VNNI and BF16. One zmm accumulator per (input row, panel of 16 outputs); a record of 32 inputs is 8 vpdpbusd
// with the activations broadcast from memory as the signed operand, then one fma with d_w * d_x. A tile of MT rows reads each record
// once. MT only changes how many independent chains run, never the operations of one chain.
#include <immintrin.h>

#include "tensor/cpu/backends.h"
#include "tensor/cpu/lanes.h"

namespace baton::tensor {
namespace {

inline constexpr int kTileRows = 8;
// A lone row streams panels from memory; this many bytes ahead hides the latency (about 6 records of 4-bit weights).
inline constexpr size_t kPrefetchBytes = 2048;

constexpr bool is_u4(PanelKind k) { return k == PanelKind::kU4 || k == PanelKind::kU4Min; }
constexpr bool has_minima(PanelKind k) { return k == PanelKind::kU4Min || k == PanelKind::kU8Min; }

template <PanelKind kind>
inline void load_weights(const std::byte* rec, __m512i (&w)[8]) {
  if constexpr (is_u4(kind)) {
    const __m512i low = _mm512_set1_epi8(15);
    for (int i = 0; i < 4; ++i) {
      const __m512i v = _mm512_loadu_si512(rec + i * 64);
      w[i] = _mm512_and_si512(v, low);
      w[i + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
    }
  } else {
    for (int i = 0; i < 8; ++i) w[i] = _mm512_loadu_si512(rec + i * 64);
  }
}

inline __m512 load_scales(const std::byte* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }

inline __m512i quad(const int8_t* q) {
  int32_t v;
  __builtin_memcpy(&v, q, 4);
  return _mm512_set1_epi32(v);
}

template <PanelKind kind, int MT>
inline void quantised_tile(const std::byte* panel, int64_t records, int bias_log2, const Activations& x, int64_t row, __m512 (&acc)[MT]) {
  const __m128i shift = _mm_cvtsi32_si128(bias_log2);
  for (int m = 0; m < MT; ++m) acc[m] = _mm512_setzero_ps();
  const int8_t* q = x.q + row * x.cols;
  const Block32* block = x.block + row * records;
  const std::byte* rec = panel;
  for (int64_t b = 0; b < records; ++b, rec += record_bytes(kind), q += 32, ++block) {
    if constexpr (MT <= 2)
      for (size_t i = 0; i < record_bytes(kind); i += 64) _mm_prefetch(rec + kPrefetchBytes + i, _MM_HINT_T0);
    __m512i w[8];
    load_weights<kind>(rec, w);
    const std::byte* scales = rec + (is_u4(kind) ? 256 : 512);
    const __m512 d = load_scales(scales);
    [[maybe_unused]] const __m512 second = has_minima(kind) || kind == PanelKind::kU8Half ? load_scales(scales + 32) : d;
    for (int m = 0; m < MT; ++m) {
      const int8_t* qm = q + m * x.cols;
      const Block32& bm = block[m * records];
      const __m512 dx = _mm512_set1_ps(bm.d);
      __m512i dot = _mm512_setzero_si512();
      if constexpr (kind == PanelKind::kU8Half) {
        dot = _mm512_sll_epi32(_mm512_set1_epi32(bm.nsum_low), shift);
        __m512i high = _mm512_sll_epi32(_mm512_set1_epi32(bm.nsum - bm.nsum_low), shift);
        for (int i = 0; i < 4; ++i) {
          dot = _mm512_dpbusd_epi32(dot, w[i], quad(qm + i * 4));
          high = _mm512_dpbusd_epi32(high, w[i + 4], quad(qm + i * 4 + 16));
        }
        acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(d, dx), acc[m]);
        acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_mul_ps(second, dx), acc[m]);
      } else {
        if constexpr (!has_minima(kind)) dot = _mm512_sll_epi32(_mm512_set1_epi32(bm.nsum), shift);
        for (int i = 0; i < 8; ++i) dot = _mm512_dpbusd_epi32(dot, w[i], quad(qm + i * 4));
        acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(d, dx), acc[m]);
        if constexpr (has_minima(kind)) acc[m] = _mm512_fmadd_ps(second, _mm512_set1_ps(bm.ds), acc[m]);
      }
    }
  }
}

template <int MT>
inline void bf16_tile(const std::byte* panel, const Activations& x, int64_t row, __m512 (&acc)[MT]) {
  for (int m = 0; m < MT; ++m) acc[m] = _mm512_setzero_ps();
  const uint16_t* v = x.bf16 + row * x.cols;
  for (int64_t pair = 0; pair < x.cols / 2; ++pair) {
    const auto w = __builtin_bit_cast(__m512bh, _mm512_loadu_si512(panel + static_cast<size_t>(pair) * 64));
    if constexpr (MT <= 2) _mm_prefetch(panel + static_cast<size_t>(pair) * 64 + kPrefetchBytes, _MM_HINT_T0);
    for (int m = 0; m < MT; ++m) {
      int32_t two;
      __builtin_memcpy(&two, v + m * x.cols + pair * 2, 4);
      acc[m] = _mm512_dpbf16_ps(acc[m], w, __builtin_bit_cast(__m512bh, _mm512_set1_epi32(two)));
    }
  }
}

template <PanelKind kind, int MT>
inline void tile(const Panels& w, int64_t p, const Activations& x, int64_t row, float* out, int64_t stride, bool add) {
  __m512 acc[MT];
  if constexpr (kind == PanelKind::kBf16)
    bf16_tile<MT>(w.panel(p), x, row, acc);
  else
    quantised_tile<kind, MT>(w.panel(p), w.records(), w.bias_log2, x, row, acc);
  const int64_t n = w.rows - p * 16;
  const auto mask = static_cast<__mmask16>(n >= 16 ? 0xffff : (1u << n) - 1);
  for (int m = 0; m < MT; ++m) {
    float* to = out + (row + m) * stride + p * 16;
    _mm512_mask_storeu_ps(to, mask, add ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), acc[m]) : acc[m]);
  }
}

template <PanelKind kind>
void panels(const Panels& w, int64_t begin, int64_t end, const Activations& x, int64_t m, float* out, int64_t stride, bool add) {
  for (int64_t p = begin; p < end; ++p) {
    int64_t r = 0;
    for (; r + kTileRows <= m; r += kTileRows) tile<kind, kTileRows>(w, p, x, r, out, stride, add);
    switch (m - r) {
      case 7: tile<kind, 7>(w, p, x, r, out, stride, add); break;
      case 6: tile<kind, 6>(w, p, x, r, out, stride, add); break;
      case 5: tile<kind, 5>(w, p, x, r, out, stride, add); break;
      case 4: tile<kind, 4>(w, p, x, r, out, stride, add); break;
      case 3: tile<kind, 3>(w, p, x, r, out, stride, add); break;
      case 2: tile<kind, 2>(w, p, x, r, out, stride, add); break;
      case 1: tile<kind, 1>(w, p, x, r, out, stride, add); break;
      default: break;
    }
  }
}

}  // namespace

void gemm_avx512(const Panels& w, int64_t begin, int64_t end, const Activations& x, int64_t m, float* out, int64_t stride, bool add) {
  switch (w.kind) {
    case PanelKind::kU4: return panels<PanelKind::kU4>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU4Min: return panels<PanelKind::kU4Min>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8: return panels<PanelKind::kU8>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8Min: return panels<PanelKind::kU8Min>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8Half: return panels<PanelKind::kU8Half>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kBf16: return panels<PanelKind::kBf16>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kF16: return float_gemm<PanelKind::kF16, kTileRows>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kF32: return float_gemm<PanelKind::kF32, kTileRows>(w, begin, end, x, m, out, stride, add);
  }
}

}  // namespace baton::tensor
