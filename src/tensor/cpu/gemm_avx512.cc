// Linear layers with AVX-512 VNNI and BF16. One zmm accumulator per (input row, panel of 16 outputs); a record of 32 inputs is 8
// vpdpbusd with the activations broadcast from memory as the signed operand, then one fma with d_w * d_x. A tile of MT rows reads
// each record once. MT only changes how many independent chains run, never the operations of one chain.
#include <immintrin.h>

#include "tensor/cpu/asking.h"
#include "tensor/cpu/backends.h"
#include "tensor/cpu/lanes.h"

namespace baton::tensor {
namespace {

// Rows of a tile. Quantised: 12 sums and 12 chains of vpdpbusd fill its 2 x 5 slots (two a cycle, latency 5) and leave registers
// for the weights. Floats have no chains beside their sums; 16 streams that decode are one tile, which computes while the next
// weights come.
template <PanelKind kind>
inline constexpr int kTileRows = kind == PanelKind::kBf16 || kind == PanelKind::kE4m3 || kind == PanelKind::kE4m3Block ? 16 : 12;
// Panels of floats stream from memory: this many bytes ahead hides the latency, into the second cache where rows compute
// meanwhile (the first one's few outstanding misses would hold them up). Quantised ones leave that to the core's own prefetchers
// and ask for a record's lines together: on Zen 4 a row alone then decodes 1.16 times as fast as with lines asked for far ahead.
inline constexpr size_t kPrefetchBytes = 4096;
template <int MT>
inline constexpr auto kPrefetchTo = MT > kGroupOfRows ? _MM_HINT_T1 : _MM_HINT_T0;

// Lines of x.ahead that are asked for beside a quantised record, which is some 100 cycles for 8 or 12 rows, and beside four pairs
// of bf16 inputs, some 60 for 16: what one core gets from memory in that time and a little more.
inline constexpr int kAheadLines = 8, kPairsLines = 6;

constexpr bool is_u4(PanelKind k) { return k == PanelKind::kU4 || k == PanelKind::kU4Min; }
constexpr bool has_minima(PanelKind k) { return k == PanelKind::kU4Min || k == PanelKind::kU8Min; }

inline __m512 load_scales(const std::byte* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }

inline __m512i quad(const int8_t* q) {
  int32_t v;
  __builtin_memcpy(&v, q, 4);
  return _mm512_set1_epi32(v);
}

// k-quads 2i and 2i + 1 (u8) or i and i + 4 (u4) of a record: step i of 4.
template <PanelKind kind>
inline void load_weights(const std::byte* rec, int i, __m512i& a, __m512i& b) {
  if constexpr (is_u4(kind)) {
    const __m512i v = _mm512_loadu_si512(rec + i * 64);
    a = _mm512_and_si512(v, _mm512_set1_epi8(15));
    b = _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
  } else {
    a = _mm512_loadu_si512(rec + i * 128);
    b = _mm512_loadu_si512(rec + i * 128 + 64);
  }
}
template <PanelKind kind>
constexpr int quad_a(int i) {
  return is_u4(kind) ? i : 2 * i;
}
template <PanelKind kind>
constexpr int quad_b(int i) {
  return is_u4(kind) ? i + 4 : 2 * i + 1;
}

// Rows [row, row + MT), row a multiple of 4; first: the lot's first tile. Integer sums are exact, so their chains may be cut and
// ordered freely; the float operations below have one order.
template <PanelKind kind, int MT>
inline void quantised_tile(const std::byte* panel, int64_t records, int bias_log2, const Activations& x, int64_t row, bool first,
                           __m512 (&acc)[MT]) {
  constexpr int kGroups = (MT + kGroupOfRows - 1) / kGroupOfRows;
  constexpr bool kTwoChains = MT <= 2 && kind != PanelKind::kU8Half;  // one or two rows alone would wait for vpdpbusd
  const __m128i shift = _mm_cvtsi32_si128(bias_log2);
  const Quantised* group[kGroups];
  for (int g = 0; g < kGroups; ++g) group[g] = x.group(row + g * kGroupOfRows);
  for (int m = 0; m < MT; ++m) acc[m] = _mm512_setzero_ps();
  Asking ask(x.ahead);
  const std::byte* rec = panel;
  for (int64_t left = records; left > 0; --left, rec += record_bytes(kind)) {
    ask(kAheadLines);
    if (first)  // later tiles find the panel in cache
      for (size_t i = 0; i < record_bytes(kind); i += 64) _mm_prefetch(rec + i, _MM_HINT_T0);
    const auto block = [&](int m) -> const Block32& { return group[m / kGroupOfRows]->block[m % kGroupOfRows]; };
    const auto inputs = [&](int m, int quad_index) {
      return quad(group[m / kGroupOfRows]->q[m % kGroupOfRows] + quad_index * 4);
    };
    __m512i dot[MT][2];
#pragma clang loop unroll(full)
    for (int m = 0; m < MT; ++m) {
      dot[m][0] = dot[m][1] = _mm512_setzero_si512();
      if constexpr (kind == PanelKind::kU8Half) {
        dot[m][0] = _mm512_sll_epi32(_mm512_set1_epi32(block(m).nsum_low), shift);
        dot[m][1] = _mm512_sll_epi32(_mm512_set1_epi32(block(m).nsum - block(m).nsum_low), shift);
      } else if constexpr (!has_minima(kind)) {
        dot[m][0] = _mm512_sll_epi32(_mm512_set1_epi32(block(m).nsum), shift);
      }
    }
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; ++i) {
      __m512i wa, wb;
      load_weights<kind>(rec, i, wa, wb);
      const int to_a = kind == PanelKind::kU8Half ? i / 2 : 0;
      const int to_b = kTwoChains ? 1 : to_a;
#pragma clang loop unroll(full)
      for (int m = 0; m < MT; ++m) dot[m][to_a] = _mm512_dpbusd_epi32(dot[m][to_a], wa, inputs(m, quad_a<kind>(i)));
#pragma clang loop unroll(full)
      for (int m = 0; m < MT; ++m) dot[m][to_b] = _mm512_dpbusd_epi32(dot[m][to_b], wb, inputs(m, quad_b<kind>(i)));
    }
    [[maybe_unused]] const std::byte* scales = rec + (is_u4(kind) ? 256 : 512);
    [[maybe_unused]] const __m512 d = kind == PanelKind::kU8Row ? _mm512_setzero_ps() : load_scales(scales);
#pragma clang loop unroll(full)
    for (int m = 0; m < MT; ++m) {
      if constexpr (kTwoChains) dot[m][0] = _mm512_add_epi32(dot[m][0], dot[m][1]);
      const __m512 dx = _mm512_set1_ps(block(m).d);
      acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[m][0]), kind == PanelKind::kU8Row ? dx : _mm512_mul_ps(d, dx), acc[m]);
    }
    if constexpr (kind == PanelKind::kU8Half) {
      const __m512 high = load_scales(scales + 32);
#pragma clang loop unroll(full)
      for (int m = 0; m < MT; ++m)
        acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[m][1]), _mm512_mul_ps(high, _mm512_set1_ps(block(m).d)), acc[m]);
    }
    if constexpr (has_minima(kind)) {
      const __m512 minima = load_scales(scales + 32);
#pragma clang loop unroll(full)
      for (int m = 0; m < MT; ++m) acc[m] = _mm512_fmadd_ps(minima, _mm512_set1_ps(block(m).ds), acc[m]);
    }
#pragma clang loop unroll(full)
    for (int g = 0; g < kGroups; ++g) ++group[g];
  }
  if constexpr (kind == PanelKind::kU8Row) {
    const __m512 d = _mm512_loadu_ps(rec);
    for (int m = 0; m < MT; ++m) acc[m] = _mm512_mul_ps(acc[m], d);
  }
}

template <int MT>
inline void bf16_tile(const std::byte* panel, const Activations& x, int64_t row, bool first, __m512 (&acc)[MT]) {
  for (int m = 0; m < MT; ++m) acc[m] = _mm512_setzero_ps();
  const int64_t stride = x.stride();
  const uint16_t* v = x.bf16 + row * stride;
  Asking ask(x.ahead);
  for (int64_t pair = 0; pair < x.cols / 2; ++pair) {
    if (pair % 4 == 0) ask(kPairsLines);
    const auto w = __builtin_bit_cast(__m512bh, _mm512_loadu_si512(panel + static_cast<size_t>(pair) * 64));
    if (first) _mm_prefetch(panel + static_cast<size_t>(pair) * 64 + kPrefetchBytes, kPrefetchTo<MT>);
#pragma clang loop unroll(full)
    for (int m = 0; m < MT; ++m) {
      int32_t two;
      __builtin_memcpy(&two, v + m * stride + pair * 2, 4);
      acc[m] = _mm512_dpbf16_ps(acc[m], w, __builtin_bit_cast(__m512bh, _mm512_set1_epi32(two)));
    }
  }
}

// Inputs 2 * pair and the next of 16 rows of E4M3 as bf16 pairs, times 2^-8 (lanes.h). Every such value is exact in bf16; the
// detour over f32 keeps subnormals, which vdpbf16ps would take for zero.
inline __m512bh e4m3_pair(const std::byte* rec, int pair) {
  const __m128i even = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rec + pair * 32));
  const __m128i odd = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rec + pair * 32 + 16));
  const __m256i bytes = _mm256_set_m128i(_mm_unpackhi_epi8(even, odd), _mm_unpacklo_epi8(even, odd));
  const __m512i halves =
      _mm512_and_si512(_mm512_slli_epi16(_mm512_cvtepi8_epi16(bytes), 7), _mm512_set1_epi16(static_cast<int16_t>(0xbfff)));
  const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves)),
               high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
  return _mm512_cvtne2ps_pbh(high, low);
}

template <PanelKind kind, int MT>
inline void e4m3_tile(const std::byte* panel, int64_t records, const Activations& x, int64_t row, __m512 (&acc)[MT]) {
  for (int m = 0; m < MT; ++m) acc[m] = _mm512_setzero_ps();
  [[maybe_unused]] __m512 part[MT];
  const int64_t stride = x.stride();
  const uint16_t* v = x.bf16 + row * stride;
  const std::byte* rec = panel;
  Asking ask(x.ahead);
  for (int64_t at = 0; at < records; ++at, rec += record_bytes(kind), v += kRecordInputs) {
    for (size_t i = 0; i < record_bytes(kind); i += 64) _mm_prefetch(rec + kPrefetchBytes + i, kPrefetchTo<MT>);
    ask(2 * kAheadLines);
    __m512(&sum)[MT] = kind == PanelKind::kE4m3Block ? part : acc;
    if constexpr (kind == PanelKind::kE4m3Block)
      for (int m = 0; m < MT; ++m) part[m] = _mm512_setzero_ps();
    for (int pair = 0; pair < kRecordInputs / 2; ++pair) {
      const __m512bh w = e4m3_pair(rec, pair);
#pragma clang loop unroll(full)
      for (int m = 0; m < MT; ++m) {
        int32_t two;
        __builtin_memcpy(&two, v + m * stride + pair * 2, 4);
        sum[m] = _mm512_dpbf16_ps(sum[m], w, __builtin_bit_cast(__m512bh, _mm512_set1_epi32(two)));
      }
    }
    if constexpr (kind == PanelKind::kE4m3Block)
      for (int m = 0; m < MT; ++m) acc[m] = _mm512_fmadd_ps(part[m], _mm512_loadu_ps(rec + 512), acc[m]);
  }
  if constexpr (kind == PanelKind::kE4m3)
    for (int m = 0; m < MT; ++m) acc[m] = _mm512_mul_ps(acc[m], _mm512_loadu_ps(rec));
}

template <PanelKind kind, int MT>
inline void tile(const Panels& w, int64_t p, const Activations& x, int64_t row, bool first, float* out, int64_t stride,
                 bool add) {
  __m512 acc[MT];
  if constexpr (kind == PanelKind::kBf16)
    bf16_tile<MT>(w.panel(p), x, row, first, acc);
  else if constexpr (kind == PanelKind::kE4m3 || kind == PanelKind::kE4m3Block)
    e4m3_tile<kind, MT>(w.panel(p), w.records(), x, row, acc);
  else
    quantised_tile<kind, MT>(w.panel(p), w.records(), w.bias_log2, x, row, first, acc);
  const int64_t n = w.rows - p * 16;
  const auto mask = static_cast<__mmask16>(n >= 16 ? 0xffff : (1u << n) - 1);
  for (int m = 0; m < MT; ++m) {
    float* to = out + (row + m) * stride + p * 16;
    _mm512_mask_storeu_ps(to, mask, add ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), acc[m]) : acc[m]);
  }
}

template <PanelKind kind, int MT>
void tile_if(int64_t rows, const Panels& w, int64_t p, const Activations& x, int64_t row, bool first, float* out, int64_t stride,
             bool add) {
  if (rows == MT) return tile<kind, MT>(w, p, x, row, first, out, stride, add);
  if constexpr (MT > 1) tile_if<kind, MT - 1>(rows, w, p, x, row, first, out, stride, add);
}

// Many rows go through the panels in lots that stay in the core's second cache, each lot through all of them.
inline constexpr int64_t kOneLot = 64;  // rows that are not many: whoever asks ahead reads each panel once
inline constexpr int64_t kLotBytes = 512 << 10, kLotTilesMin = 3;
template <PanelKind kind>
int64_t rows_of_lot(const Activations& x, int64_t m) {
  if (m <= kOneLot) return m;
  const int64_t bytes =
      form_for(kind) == kI8 ? x.cols / 32 * static_cast<int64_t>(sizeof(Quantised)) / kGroupOfRows : 2 * x.stride();
  return max_i(kLotBytes / bytes / kTileRows<kind>, kLotTilesMin) * kTileRows<kind>;
}

// A lot's rows are cut into tiles of whole groups of 4 and nearly equal height: 16 rows are 8 + 8, not 12 + 4.
template <PanelKind kind>
void panels(const Panels& w, int64_t begin, int64_t end, const Activations& x, int64_t m, float* out, int64_t stride, bool add) {
  const int64_t lot = rows_of_lot<kind>(x, m);
  for (int64_t from = 0; from < m; from += lot) {
    const int64_t rows = min_i(lot, m - from);
    const int64_t groups = (rows + kGroupOfRows - 1) / kGroupOfRows;
    const int64_t tiles = (rows + kTileRows<kind> - 1) / kTileRows<kind>;
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t row = groups * t / tiles * kGroupOfRows, next = min_i(rows, groups * (t + 1) / tiles * kGroupOfRows);
        tile_if<kind, kTileRows<kind>>(next - row, w, p, x, from + row, t == 0, out, stride, add);
      }
      if (x.ahead) x.ahead->limit += w.panel_bytes();
    }
  }
}

}  // namespace

void gemm_avx512(const Panels& w, int64_t begin, int64_t end, const Activations& x, int64_t m, float* out, int64_t stride,
                 bool add) {
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
      return panels<PanelKind::kBf16>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kF16:
      return float_gemm<PanelKind::kF16, 8>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kF32:
      return float_gemm<PanelKind::kF32, 8>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8Row:
      return panels<PanelKind::kU8Row>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kE4m3:
      return panels<PanelKind::kE4m3>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kE4m3Block:
      return panels<PanelKind::kE4m3Block>(w, begin, end, x, m, out, stride, add);
  }
}

}  // namespace baton::tensor
