#pragma once
// LoRA adapters of tiny models, as PEFT writes them: random A and B that change a matrix by about half of what it is. Equal arguments
// give equal bytes on every machine.
#include <string>
#include <utility>
#include <vector>

#include "model/testing/tiny_model.h"

namespace baton::model::testing {

struct TinyLora {
  int32_t rank = 4;
  double alpha = 8;
  bool rslora = false;
  Dtype dtype = Dtype::kF32;                                  // F32, F16 or BF16
  std::vector<std::string> targets = {};                      // ends of modules' names; empty: all that can be adapted
  std::string experts = {};                                   // of mixtures: "each" by itself, "stacked" a layer's; empty: none
  std::vector<std::pair<std::string, int32_t>> ranks = {};    // rank_pattern
  uint64_t seed = 1;
  std::string more = {};                                      // further members of adapter_config.json, each after a comma
};
// "rank=8", "alpha=16", "rslora=1", "dtype=BF16", "targets=q_proj+v_proj", "experts=each", "ranks=q_proj:2+up_proj:6", "seed=3".
Result<TinyLora> parse_tiny_lora(const std::vector<std::string>& fields);

std::string tiny_lora_config(const TinyLora& lora, const TinySpec& spec);
std::string tiny_lora_tensors(const TinyLora& lora, const TinySpec& spec);  // adapter_model.safetensors
Result<> write_tiny_lora(const std::string& directory, const TinyLora& lora, const TinySpec& spec);  // creates the directory

}  // namespace baton::model::testing
