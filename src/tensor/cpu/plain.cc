// The plain backend: C++ that every machine runs. Quantised layers are integer loops over the same panels; the rest is lanes.h.
#include "tensor/cpu/backends.h"
#include "tensor/cpu/eight_bits.h"
#include "tensor/cpu/logit_rows.h"
#include "tensor/cpu/token_major.h"

namespace baton::tensor {
namespace {

template <PanelKind kind>
void quantised_tile(const std::byte* panel, int64_t records, int bias_log2, const Activations& x, int64_t row, float* out) {
  constexpr bool four = kind == PanelKind::kU4 || kind == PanelKind::kU4Min;
  constexpr bool minima = kind == PanelKind::kU4Min || kind == PanelKind::kU8Min;
  constexpr int halves = kind == PanelKind::kU8Half ? 2 : 1;
  float acc[16] = {};
  for (int64_t b = 0; b < records; ++b) {
    const auto* rec = reinterpret_cast<const uint8_t*>(panel) + static_cast<size_t>(b) * record_bytes(kind);
    const int8_t* q = x.group(row)[b].q[row % kGroupOfRows];
    const Block32& block = x.group(row)[b].block[row % kGroupOfRows];
    int32_t dot[2][16];
    for (int lane = 0; lane < 16; ++lane) {
      dot[0][lane] = minima ? 0 : (halves == 2 ? block.nsum_low : block.nsum) * (1 << bias_log2);
      dot[1][lane] = minima ? 0 : (block.nsum - block.nsum_low) * (1 << bias_log2);
    }
    for (int quad = 0; quad < 8; ++quad) {
      for (int lane = 0; lane < 16; ++lane) {
        for (int i = 0; i < 4; ++i) {
          const int w = !four      ? rec[quad * 64 + lane * 4 + i]
                        : quad < 4 ? rec[quad * 64 + lane * 4 + i] & 15
                                   : rec[(quad - 4) * 64 + lane * 4 + i] >> 4;
          dot[quad * halves / 8][lane] += w * q[quad * 4 + i];
        }
      }
    }
    uint16_t scale[32];
    if constexpr (kind == PanelKind::kU8Row) {
      for (int lane = 0; lane < 16; ++lane) acc[lane] = static_cast<float>(dot[0][lane]) * block.d + acc[lane];
      continue;
    }
    __builtin_memcpy(scale, rec + (four ? 256 : 512), minima || halves == 2 ? 64 : 32);
    for (int lane = 0; lane < 16; ++lane) {
      acc[lane] = static_cast<float>(dot[0][lane]) * (f16_to_f32(scale[lane]) * block.d) + acc[lane];
      if (halves == 2) acc[lane] = static_cast<float>(dot[1][lane]) * (f16_to_f32(scale[16 + lane]) * block.d) + acc[lane];
      if (minima) acc[lane] = f16_to_f32(scale[16 + lane]) * block.ds + acc[lane];
    }
  }
  if constexpr (kind == PanelKind::kU8Row) {
    const auto* d = reinterpret_cast<const float*>(panel + static_cast<size_t>(records) * record_bytes(kind));
    for (int lane = 0; lane < 16; ++lane) acc[lane] *= d[lane];
  }
  __builtin_memcpy(out, acc, sizeof acc);
}

template <PanelKind kind>
void quantised_gemm(const Panels& w, int64_t begin, int64_t end, const Activations& x, int64_t m, float* out, int64_t stride,
                    bool add) {
  for (int64_t p = begin; p < end; ++p) {
    for (int64_t r = 0; r < m; ++r) {
      float tile[1][16];
      quantised_tile<kind>(w.panel(p), w.records(), w.bias_log2, x, r, tile[0]);
      put_tile(tile, 1, static_cast<int>(min_i(16, w.rows - p * 16)), out + r * stride + p * 16, stride, add);
    }
  }
}

void gemm(const Panels& w, int64_t begin, int64_t end, const Activations& x, int64_t m, float* out, int64_t stride, bool add) {
  switch (w.kind) {
    case PanelKind::kU4:
      return quantised_gemm<PanelKind::kU4>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU4Min:
      return quantised_gemm<PanelKind::kU4Min>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8:
      return quantised_gemm<PanelKind::kU8>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8Min:
      return quantised_gemm<PanelKind::kU8Min>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8Half:
      return quantised_gemm<PanelKind::kU8Half>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kBf16:
      return float_gemm<PanelKind::kBf16, 2>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kF16:
      return float_gemm<PanelKind::kF16, 2>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kF32:
      return float_gemm<PanelKind::kF32, 2>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kU8Row:
      return quantised_gemm<PanelKind::kU8Row>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kE4m3:
      return float_gemm<PanelKind::kE4m3, 2>(w, begin, end, x, m, out, stride, add);
    case PanelKind::kE4m3Block:
      return float_gemm<PanelKind::kE4m3Block, 2>(w, begin, end, x, m, out, stride, add);
  }
}

constexpr Ops kPlain = {.name = "plain",
                        .kv_pairs = false,
                        .gemm = gemm,
                        .prepare = prepare<false>,
                        .rms_norm = rms_norm,
                        .gate_mul = {silu_mul, gelu_tanh_mul, swiglu_clamped_mul},
                        .soft_cap = soft_cap,
                        .weigh = weigh_row,
                        .mass = mass_row,
                        .cache = {kv_ops<TokenMajor>, kv_ops<EightBits<TokenMajor, E4m3>>, kv_ops<EightBits<TokenMajor, E5m2>>,
                                  kv_ops<EightBits<TokenMajor, I8Scaled>>, kv_ops<EightBits<TokenMajor, E4m3Scaled>>},
                        .merge = merge};

}  // namespace

const Ops& plain_ops() { return kPlain; }

}  // namespace baton::tensor
