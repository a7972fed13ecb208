#pragma once
// Kernels written once over a vector of kLanes floats and compiled by each instruction set's own file with its own flags: row
// operations and linear layers with float weights; attend.h has attention.
// Everything lies in an unnamed namespace, and no std:: function is called: a shared inline compiled here with AVX-512 could
// otherwise be the copy the linker keeps for machines without it. Included only by the .cc files of this folder.
// Every loop runs in one fixed order; fma() is the only fused multiply-add (contraction is off).
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include <cstddef>
#include <cstdint>

#include "tensor/ops.h"

namespace baton::tensor {
namespace {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

using Vf = float __attribute__((vector_size(kLanes * 4)));
using Vi = int32_t __attribute__((vector_size(kLanes * 4)));
using Vu16 = uint16_t __attribute__((vector_size(kLanes * 2)));

template <int... Lane>
struct Order {};
#if defined(__AVX512F__)
inline constexpr Order<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15> kOrder;
#elif defined(__AVX2__)
inline constexpr Order<0, 1, 2, 3, 4, 5, 6, 7> kOrder;
#else
inline constexpr Order<0, 1, 2, 3> kOrder;
#endif

inline Vf load(const float* p) {
  Vf v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vf v) { __builtin_memcpy(p, &v, sizeof v); }
template <int... Lane>
inline Vf splat(float f, Order<Lane...>) {
  const Vf v{f};
  return __builtin_shufflevector(v, v, (Lane * 0)...);
}
inline Vf splat(float f) { return splat(f, kOrder); }  // not Vf{} + f, which would add
inline Vf fma(Vf a, Vf b, Vf c) {
#if defined(__FMA__)
  return __builtin_elementwise_fma(a, b, c);
#else
  return a * b + c;
#endif
}
inline Vf max(Vf a, Vf b) { return a > b ? a : b; }
inline int64_t min_i(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max_i(int64_t a, int64_t b) { return a > b ? a : b; }

// Vectors from n < kLanes floats, the rest zero; and back.
inline Vf load_some(const float* p, int64_t n) {
  Vf v{};
  __builtin_memcpy(&v, p, static_cast<size_t>(n) * 4);
  return v;
}
inline void store_some(float* p, Vf v, int64_t n) { __builtin_memcpy(p, &v, static_cast<size_t>(n) * 4); }

// Lane i of the result is lane (i + Shift) % kLanes of v.
template <int Shift, class V, int... Lane>
inline V rotated(V v, Order<Lane...>) {
  return __builtin_shufflevector(v, v, ((Lane + Shift) % kLanes)...);
}
// Every lane joined with f, as a tree: halves, then their halves.
template <int Width = kLanes / 2, class V, class F>
inline auto joined(V v, F f) {
  const V half = f(v, rotated<Width>(v, kOrder));
  if constexpr (Width > 1)
    return joined<Width / 2>(half, f);
  else
    return half[0];
}
inline float sum(Vf v) {
  return joined(v, [](Vf a, Vf b) { return a + b; });
}
inline int32_t sum(Vi v) {
  return joined(v, [](Vi a, Vi b) { return a + b; });
}
inline float max_of(Vf v) {
  return joined(v, [](Vf a, Vf b) { return max(a, b); });
}

inline Vf from_bf16(const uint16_t* p) {
  Vu16 h;
  __builtin_memcpy(&h, p, sizeof h);
  return __builtin_bit_cast(Vf, __builtin_convertvector(h, Vi) << 16);
}
// Halves, subnormals included. Without the instruction the exponent is moved by a multiplication, which is exact; the highest
// one, of what is no finite number, is put back.
inline Vf from_f16(Vu16 h) {
#if defined(__F16C__)
  using Vh = _Float16 __attribute__((vector_size(kLanes * 2)));
  return __builtin_convertvector(__builtin_bit_cast(Vh, h), Vf);
#else
  const Vi wide = __builtin_convertvector(h, Vi);
  const Vf magnitude = __builtin_bit_cast(Vf, (wide & 0x7fff) << 13) * 0x1p112f;
  const Vi highest = ((wide & 0x7c00) == 0x7c00) & 0x7f800000;
  return __builtin_bit_cast(Vf, __builtin_bit_cast(Vi, magnitude) | highest | (wide & 0x8000) << 16);
#endif
}
inline Vf from_f16(const uint16_t* p) {
  Vu16 h;
  __builtin_memcpy(&h, p, sizeof h);
  return from_f16(h);
}
// E4M3 values times 2^-8: sign, exponent and fraction move to where a half has them, and its conversion does the rest.
inline Vf from_e4m3(const std::byte* p) {
  using Vi8 = int8_t __attribute__((vector_size(kLanes)));
  using Vi16 = int16_t __attribute__((vector_size(kLanes * 2)));
  Vi8 bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  const Vi16 wide = __builtin_convertvector(bytes, Vi16);  // the sign fills the upper byte
  return from_f16(__builtin_bit_cast(Vu16, (wide << 7) & static_cast<int16_t>(0xbfff)));
}
inline uint16_t to_bf16(float f) {
  const auto bits = __builtin_bit_cast(uint32_t, f);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// e^x for x within [-87.3, 88.3] or NaN, relative error below 2e-7. Cephes' degree-5 polynomial after removing n ln 2.
inline Vf exp_within(Vf x) {
  const Vf magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits
  const Vf rounded = fma(x, splat(1.44269504088896341f), magic), n = rounded - magic;
  Vf r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  Vf p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r + 1.f);
  return p * __builtin_bit_cast(Vf, (__builtin_bit_cast(Vi, rounded) + 127) << 23);
}
// e^x for x <= 0; below -87.3 it is 0. What is not a number stays one, through the bounds here and in exp.
inline Vf exp_negative(Vf x) {
  const Vf e = exp_within(max(splat(-87.3f), x));
  return x < -87.3f ? splat(0) : e;
}
// e^x for x <= 0 as a softmax weight. Where weights are rounded to bf16 (pairs.h) a relative error of 3e-6, a thousandth of that
// rounding, is enough, and 2^n 2^f with a polynomial of degree 4 takes half the work. e^0 is 1 exactly.
inline Vf exp_weight(Vf x) {
#if defined(__AVX512BF16__)
  const auto y = __builtin_bit_cast(__m512, max(splat(-100.f), x) * 1.44269504088896341f);
  const __m512 n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Vf f = __builtin_bit_cast(Vf, _mm512_sub_ps(y, n));
  Vf p = fma(splat(0.0095827700f), f, splat(0.0559062287f));
  p = fma(p, f, splat(0.2402409911f));
  p = fma(p, f, splat(0.6931242347f));
  p = fma(p, f, splat(1.f));
  return __builtin_bit_cast(Vf, _mm512_scalef_ps(__builtin_bit_cast(__m512, p), n));
#else
  return exp_negative(x);
#endif
}
inline Vf exp(Vf x) { return exp_negative(x > 88.3f ? splat(88.3f) : x); }

// ---- rows

inline void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  Vf squares{};
  const int64_t whole = n - n % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
  if (whole < n) {
    const Vf v = load_some(x + whole, n - whole);
    squares = fma(v, v, squares);
  }
  const float scale = 1.f / __builtin_sqrtf(sum(squares) / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < whole; i += kLanes) store(out + i, load(x + i) * scale * load(weight + i));
  for (int64_t i = whole; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

// gate = f(gate, up), lane by lane.
template <class F>
inline void gate_rows(float* gate, const float* up, int64_t n, F f) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const Vf g = left >= kLanes ? load(gate + i) : load_some(gate + i, left);
    const Vf u = left >= kLanes ? load(up + i) : load_some(up + i, left);
    const Vf y = f(g, u);
    if (left >= kLanes)
      store(gate + i, y);
    else
      store_some(gate + i, y, left);
  }
}
inline void silu_mul(float* gate, const float* up, int64_t n) {
  gate_rows(gate, up, n, [](Vf g, Vf u) { return g / (exp(-g) + 1.f) * u; });
}
// (1 + tanh(z)) / 2 is 1 / (1 + e^-2z).
inline void gelu_tanh_mul(float* gate, const float* up, int64_t n) {
  gate_rows(gate, up, n, [](Vf g, Vf u) {
    const Vf z = g * fma(g * g, splat(0.044715f), splat(1.f)) * -1.5957691216057308f;  // -2 sqrt(2 / pi)
    return g / (exp(z) + 1.f) * u;
  });
}
inline void swiglu_clamped_mul(float* gate, const float* up, int64_t n) {
  gate_rows(gate, up, n, [](Vf g, Vf u) {
    const Vf top = splat(7.f);
    g = g < top ? g : top;
    u = max(u < top ? u : top, -top);
    return g / (exp(g * -1.702f) + 1.f) * (u + 1.f);
  });
}

// tanh(x / cap) is 1 - 2 / (e^(2x / cap) + 1).
inline Vf capped(Vf x, float cap) { return (1.f - 2.f / (exp(x * (2.f / cap)) + 1.f)) * cap; }
inline void soft_cap(float* x, int64_t n, float cap) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    if (left >= kLanes)
      store(x + i, capped(load(x + i), cap));
    else
      store_some(x + i, capped(load_some(x + i, left), cap), left);
  }
}

// Inputs [32 b, 32 b + 32) of a row to i8; n of them exist, the rest are zero.
inline void quantise_block(const float* x, int64_t n, int8_t* q, Block32& block) {
  constexpr int kVectors = 32 / kLanes;
  Vf v[kVectors];
  Vf top{};
  for (int i = 0; i < kVectors; ++i) {
    const int64_t left = n - i * kLanes;
    v[i] = left >= kLanes ? load(x + i * kLanes) : left > 0 ? load_some(x + i * kLanes, left) : Vf{};
    top = max(top, max(v[i], -v[i]));
  }
  const float amax = max_of(top);
  const float inverse = amax > 1e-36f ? 127.f / amax : 0.f;  // below it the quotient would be infinite
  Vi low{}, all{};
  for (int i = 0; i < kVectors; ++i) {
    const Vf rounded = v[i] * inverse + 12582912.f;  // the integer stands in the low bits of the mantissa
    const Vi integer = __builtin_bit_cast(Vi, rounded) - 0x4b400000;
    all += integer;
    if (i < kVectors / 2) low += integer;
    using Vi8 = int8_t __attribute__((vector_size(kLanes)));
    const Vi8 bytes = __builtin_convertvector(integer, Vi8);
    __builtin_memcpy(q + i * kLanes, &bytes, sizeof bytes);
  }
  const int32_t total = sum(all), first = sum(low);
  // What is not finite became an integer far outside of i8; no 32 of those and of good ones add up to a good sum.
  const bool finite = total >= -32 * 127 && total <= 32 * 127;
  const float d = finite ? amax / 127.f : __builtin_nanf("");
  block = {.d = d, .ds = d * static_cast<float>(total), .nsum = finite ? -total : 0, .nsum_low = finite ? -first : 0};
}

#if defined(__AVX512BF16__)
// The nearest bf16 of kLanes values, ties to even.
inline void store_bf16(uint16_t* p, Vf v) {
  const __m256bh nearest = _mm512_cvtneps_pbh(__builtin_bit_cast(__m512, v));
  __builtin_memcpy(p, &nearest, sizeof nearest);
}
#endif
// The same among prepared activations; as f32 where the backend does not multiply bf16 itself.
template <bool kBf16Products>
inline void put_bf16(Vf v, const Activations& out, int64_t at) {
#if defined(__AVX512BF16__)
  static_assert(kBf16Products);
  store_bf16(out.bf16 + at, v);
#else
  for (int i = 0; i < kLanes; ++i) {
    const uint16_t nearest = to_bf16(v[i]);
    if constexpr (kBf16Products)
      out.bf16[at + i] = nearest;
    else
      out.rounded[at + i] = bf16_to_f32(nearest);
  }
#endif
}

// kBf16Products: the backend multiplies bf16 itself; others take the same values as f32, widened once here and not by each panel.
template <bool kBf16Products>
inline void prepare(const float* x, int64_t first, int64_t n, unsigned forms, const Activations& out, int64_t r) {
  const int64_t row = r * out.stride() + first, padded = (n + 31) / 32 * 32;
  if (forms & kI8)
    for (int64_t b = 0; b < padded / 32; ++b) {
      Quantised& to = out.group(r)[first / 32 + b];
      quantise_block(x + b * 32, n - b * 32, to.q[r % kGroupOfRows], to.block[r % kGroupOfRows]);
    }
  for (int64_t i = 0; i < padded && (forms & (kBf16Form | kF32Form)); i += kLanes) {
    const int64_t left = n - i;
    const Vf v = left >= kLanes ? load(x + i) : left > 0 ? load_some(x + i, left) : Vf{};
    if (forms & kBf16Form) put_bf16<kBf16Products>(v, out, row + i);
    if (forms & kF32Form) store(out.f32 + row + i, v);
  }
}

// ---- linear layers with float weights

// 16 weights of input k of a record, as f32 vectors.
template <PanelKind kind>
inline void weights16(const std::byte* rec, int k, Vf (&w)[16 / kLanes]) {
#pragma clang loop unroll(full)
  for (int i = 0; i < 16 / kLanes; ++i) {
    if constexpr (kind == PanelKind::kF32) {
      w[i] = load(reinterpret_cast<const float*>(rec) + k * 16 + i * kLanes);
    } else if constexpr (kind == PanelKind::kF16) {
      w[i] = from_f16(reinterpret_cast<const uint16_t*>(rec) + k * 16 + i * kLanes);
    } else if constexpr (kind == PanelKind::kE4m3 || kind == PanelKind::kE4m3Block) {
      w[i] = from_e4m3(rec + k * 16 + i * kLanes);
    } else {  // bf16 pairs: the even input is the low half of a 32-bit word, the odd one the high half
      Vi pair;
      __builtin_memcpy(&pair, reinterpret_cast<const uint16_t*>(rec) + k / 2 * 32 + i * kLanes * 2, sizeof pair);
      w[i] = __builtin_bit_cast(Vf, k % 2 ? pair & static_cast<int32_t>(0xffff0000) : pair << 16);
    }
  }
}

// Rows [row, row + MT) times PT panels, one after another: one accumulator per output, inputs in order; with scales of blocks a
// sum for each record. out: [panel][row]. PT changes how many independent chains run, never the operations of one.
template <PanelKind kind, int MT, int PT>
inline void float_tile(const std::byte* panel, size_t panel_bytes, size_t ahead, const Activations& x, int64_t row,
                       float (*out)[16]) {
  constexpr int kParts = 16 / kLanes;
  constexpr bool kFromBf16 = kind == PanelKind::kBf16 || kind == PanelKind::kE4m3 || kind == PanelKind::kE4m3Block;
  Vf acc[PT][MT][kParts] = {};
  [[maybe_unused]] Vf total[PT][MT][kParts] = {};
  for (int64_t at = 0; at < x.cols; at += 32) {
    const std::byte* rec = panel + static_cast<size_t>(at / 32) * record_bytes(kind);
    if (ahead != 0)
      for (size_t i = 0; i < record_bytes(kind); i += 64) __builtin_prefetch(rec + ahead + i, 0, 2);
    const float* in[MT];
    for (int m = 0; m < MT; ++m) in[m] = (kFromBf16 ? x.rounded : x.f32) + (row + m) * x.stride() + at;
    for (int pair = 0; pair < 32; pair += 2) {
#pragma clang loop unroll(full)
      for (int k = 0; k < 2; ++k) {
        // Read again for the odd input: kept from the even one, the words take registers that the sums need.
        if constexpr (kind == PanelKind::kBf16 && MT > 1) asm volatile("" : "+r"(rec));
#pragma clang loop unroll(full)
        for (int p = 0; p < PT; ++p) {
          Vf w[kParts];
          weights16<kind>(rec + static_cast<size_t>(p) * panel_bytes, pair + k, w);
#pragma clang loop unroll(full)
          for (int m = 0; m < MT; ++m) {
#pragma clang loop unroll(full)
            for (int part = 0; part < kParts; ++part) acc[p][m][part] = fma(w[part], splat(in[m][pair + k]), acc[p][m][part]);
          }
        }
      }
    }
    if constexpr (kind == PanelKind::kE4m3Block) {
      for (int p = 0; p < PT; ++p) {
        const auto* d = reinterpret_cast<const float*>(rec + static_cast<size_t>(p) * panel_bytes + 512);
        for (int m = 0; m < MT; ++m) {
          for (int part = 0; part < kParts; ++part) {
            total[p][m][part] = fma(acc[p][m][part], load(d + part * kLanes), total[p][m][part]);
            acc[p][m][part] = Vf{};
          }
        }
      }
    }
  }
  for (int p = 0; p < PT; ++p) {
    const std::byte* end = panel + static_cast<size_t>(p) * panel_bytes + static_cast<size_t>(x.cols / 32) * record_bytes(kind);
    for (int m = 0; m < MT; ++m) {
      for (int part = 0; part < kParts; ++part) {
        Vf result = kind == PanelKind::kE4m3Block ? total[p][m][part] : acc[p][m][part];
        if constexpr (kind == PanelKind::kE4m3) result *= load(reinterpret_cast<const float*>(end) + part * kLanes);
        store(out[p * MT + m] + part * kLanes, result);
      }
    }
  }
}

// Tile results to out: the first `n` of 16 columns.
inline void put_tile(const float (*tile)[16], int m, int n, float* out, int64_t stride, bool add) {
  if (n == 16) {
    for (int r = 0; r < m; ++r) {
      for (int i = 0; i < 16; i += kLanes) {
        float* const to = out + r * stride + i;
        store(to, add ? load(to) + load(tile[r] + i) : load(tile[r] + i));
      }
    }
    return;
  }
  for (int r = 0; r < m; ++r)
    for (int i = 0; i < n; ++i) out[r * stride + i] = add ? out[r * stride + i] + tile[r][i] : tile[r][i];
}

// The last rows, fewer than a tile.
template <PanelKind kind, int MT>
inline void float_rest(int64_t rows, const std::byte* panel, size_t ahead, const Activations& x, int64_t row, float (*tile)[16]) {
  if (rows == MT) return float_tile<kind, MT, 1>(panel, 0, ahead, x, row, tile);
  if constexpr (MT > 1) float_rest<kind, MT - 1>(rows, panel, ahead, x, row, tile);
}

// A row alone has too few chains to hide the latency of fma in one panel: it takes as many at once.
inline constexpr int kPanelsAlone = 4;
// Rows go through all panels in lots that stay in a core's own cache: a lot is read again for each panel.
inline constexpr int64_t kNearBytes = 256 << 10;
template <PanelKind kind, int MT>
inline void float_gemm(const Panels& w, int64_t begin, int64_t end, const Activations& x, int64_t m, float* out, int64_t stride,
                       bool add) {
  const auto put = [&](int64_t p, int64_t r, int64_t rows, const float(*tile)[16]) {
    const auto n = static_cast<int>(min_i(16, w.rows - p * 16));
    put_tile(tile, static_cast<int>(rows), n, out + r * stride + p * 16, stride, add);
  };
  int64_t p = begin;
  for (; m == 1 && p + kPanelsAlone <= end; p += kPanelsAlone) {
    float tile[kPanelsAlone][16];
    float_tile<kind, 1, kPanelsAlone>(w.panel(p), w.panel_bytes(), 0, x, 0, tile);
    for (int i = 0; i < kPanelsAlone; ++i) put(p + i, 0, 1, tile + i);
  }
  const int64_t near = max_i(kNearBytes / (x.cols * static_cast<int64_t>(sizeof(float))) / MT * MT, MT);
  for (int64_t from = 0; from < m; from += near) {
    const int64_t to = min_i(m, from + near);
    for (int64_t panel = p; panel < end; ++panel) {
      for (int64_t r = from, rows; r < to; r += rows) {
        float tile[MT][16];
        const int64_t tiles = (to - r + MT - 1) / MT;  // of nearly equal size: a small one has too few chains
        rows = (to - r + tiles - 1) / tiles;
        // The last tile of a panel brings the next one near: from memory it comes no faster than one tile is computed.
        float_rest<kind, MT>(rows, w.panel(panel), r + rows == to ? w.panel_bytes() : 0, x, r, tile);
        put(panel, r, rows, tile);
      }
    }
  }
}

}  // namespace
}  // namespace baton::tensor
