#pragma once
// The backends' tables, one per instruction set. The CPU must have the set before a table's functions run: see find_ops().
#include "tensor/ops.h"

namespace baton::tensor {

const Ops& plain_ops();
const Ops& avx2_ops();
const Ops& avx512_ops();

// The parts of the AVX-512 table that lie in files of their own.
void gemm_avx512(const Panels& w, int64_t begin, int64_t end, const Activations& x, int64_t m, float* out, int64_t stride,
                 bool add);

}  // namespace baton::tensor
