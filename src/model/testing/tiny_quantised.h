#pragma once
// One linear layer as the packers of Hugging Face's quantised formats write it, for tiny models: rounded to the nearest value the
// format has, and packed by the format's own rules, independently of the reader. Schemes (TinySpec::quant):
//   fp8 (one scale a tensor), fp8-channel (compressed-tensors, BF16 scale a row), fp8-channel-kv (it asks for an FP8 cache),
//   fp8-block (blocks of 32 x 32), int8 (compressed-tensors, a row), w4a16, w4a16-asym, w8a16 (pack-quantized, groups of 32), gptq,
//   gptq-asym, gptq8, gptq-actorder, awq
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace baton::model::testing {

struct StoredTensor {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

struct QuantisedLinear {
  std::vector<StoredTensor> tensors;
  std::vector<float> values;  // what they stand for, row-major
};

bool known_scheme(const std::string& scheme);  // mxfp4 too, which is no form of a linear layer: tiny_stacks.h
// module: "model.layers.0.mlp.up_proj". rows and cols are multiples of 32.
QuantisedLinear quantise_linear(const std::string& scheme, const std::string& module, int64_t rows, int64_t cols,
                                std::span<const float> values);
std::string quantisation_config(const std::string& scheme);  // the JSON of quantization_config

}  // namespace baton::model::testing
