#include "tensor/ops.h"

#include "tensor/cpu/backends.h"

namespace baton::tensor {
namespace {

bool cpu_has_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

bool cpu_has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

}  // namespace

// A tile's queries, scores and a span's output, with room for their strides: see cpu/lanes.h. A span's keys or values as bf16, for
// caches of 8 bits: cpu/eight_bits.h.
size_t attend_scratch_bytes() {
  return static_cast<size_t>(kAttendRowsMax) * (2 * kHeadDimMax + kSpanTokens + 64) * sizeof(float) +
         static_cast<size_t>(kSpanTokens * kHeadDimMax) * sizeof(uint16_t);
}

Result<const Ops*> find_ops(std::string_view isa) {
  const bool any = isa == "auto";
  if (isa == "avx512" && !cpu_has_avx512())
    return fail(Code::kFailedPrecondition, "isa avx512: this CPU lacks AVX-512 with VNNI and BF16; use auto");
  if (isa == "avx2" && !cpu_has_avx2())
    return fail(Code::kFailedPrecondition, "isa avx2: this CPU lacks AVX2, FMA or F16C; use auto");
#if defined(__x86_64__)
  if (isa == "avx512" || (any && cpu_has_avx512())) return &avx512_ops();
  if (isa == "avx2" || (any && cpu_has_avx2())) return &avx2_ops();
#endif
  if (isa == "plain" || any) return &plain_ops();
  return fail(Code::kInvalidArgument, "unknown isa \"", isa, "\": one of auto, avx512, avx2, plain");
}

unsigned form_for(PanelKind kind) {
  switch (kind) {
    case PanelKind::kBf16:
    case PanelKind::kE4m3:
    case PanelKind::kE4m3Block:
      return kBf16Form;
    case PanelKind::kF16:
    case PanelKind::kF32:
      return kF32Form;
    default:
      return kI8;
  }
}

}  // namespace baton::tensor
