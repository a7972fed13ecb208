#pragma once
// What tensors a tiny model of a family has, and how both file forms name them.
#include <string>
#include <string_view>
#include <vector>

#include "model/testing/tiny_model.h"

namespace baton::model::testing {

// How a family's files differ from Llama's.
struct TinyFamily {
  std::string_view name, hf_type, hf_class;
  bool interleaved = false, qkv_bias = false, qk_norm = false, gemma = false, experts = false, fused = false, oss = false;
};
const TinyFamily* find_tiny_family(std::string_view name);  // nullptr: unknown

// One tensor in all its names. spread: standard deviation of its random elements around mean.
struct Plan {
  std::string gguf, hf;  // consecutive plans of one GGUF name are stacked there
  int64_t rows = 1, cols = 0;
  double mean = 0, spread = 0;
  int32_t rotary_heads = 0;  // Q and K: heads whose rows GGUF's llama interleaves
  bool vector = false;       // norms and biases
  float gguf_offset = 0;     // what GGUF's writers add
};

std::vector<Plan> plan(const TinySpec& spec);  // of a known family

}  // namespace baton::model::testing
