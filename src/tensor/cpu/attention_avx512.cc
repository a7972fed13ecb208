// The AVX-512 table: attention over pair-ordered tiles, 16 tokens (scores) or 16 dims (values) a zmm.
#include "tensor/cpu/backends.h"
#include "tensor/cpu/eight_bits.h"
#include "tensor/cpu/logit_rows.h"
#include "tensor/cpu/pairs.h"

namespace baton::tensor {
namespace {

constexpr Ops kAvx512 = {.name = "avx512-vnni-bf16",
                         .bf16_products = true,
                         .asks_ahead = true,
                         .kv_pairs = true,
                         .gemm = gemm_avx512,
                         .prepare = prepare<true>,
                         .rms_norm = rms_norm,
                         .gate_mul = {silu_mul, gelu_tanh_mul, swiglu_clamped_mul},
                         .soft_cap = soft_cap,
                         .weigh = weigh_row,
                         .mass = mass_row,
                         .cache = {kv_ops<Pairs>, kv_ops<EightBits<Pairs, E4m3>>, kv_ops<EightBits<Pairs, E5m2>>,
                                   kv_ops<EightBits<Pairs, I8Scaled>>, kv_ops<EightBits<Pairs, E4m3Scaled>>},
                         .merge = merge};

}  // namespace

const Ops& avx512_ops() { return kAvx512; }

}  // namespace baton::tensor
