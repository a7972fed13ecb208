#pragma once
// The experts of a tiny gpt-oss as its Hugging Face checkpoints hold them: all of a layer in one tensor, outputs of gate and up
// alternating, plain with the inputs outside, or (TinySpec::quant "mxfp4", unless it is expanded) rounded to MXFP4 blocks and
// their scales. Written by the format's own rules, independently of the reader.
#include <vector>

#include "model/testing/tiny_model.h"
#include "model/testing/tiny_quantised.h"

namespace baton::model::testing {

// tensors: those of the plan, an expert's matrices and biases each alone, of spec.dtype.
std::vector<StoredTensor> stack_experts(const TinySpec& spec, std::vector<StoredTensor> tensors);

}  // namespace baton::model::testing
