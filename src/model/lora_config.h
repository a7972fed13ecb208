#pragma once
// PeftConfig: adapter_config.json of a LoRA adapter as PEFT writes it, as far as it decides what is computed. Guarantees: what
// would change the result and is not supported is an error that names the key; so is a key we do not know, unless it holds nothing
// (null, false, empty). Values; any thread. Source: PEFT's LoraConfig; vLLM refuses the same features.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace baton::model {

struct PeftConfig {
  int32_t rank = 0;
  double alpha = 0;
  bool rslora = false;               // scale = alpha / sqrt(rank) instead of alpha / rank
  std::vector<std::string> targets;  // target_modules that are names, or ends of names; empty: a pattern decides
  std::vector<std::string> parameters;  // target_parameters, likewise: stacks of experts' matrices
  bool every_layer = true;           // each target is corrected in every layer
  std::vector<std::pair<std::string, int32_t>> rank_pattern;  // by name or end of a name, the first that fits
  std::vector<std::pair<std::string, double>> alpha_pattern;

  // module: its full name in the base model, "model.layers.3.self_attn.q_proj".
  int32_t rank_of(std::string_view module) const;
  double scale_of(std::string_view module) const;
};

// A whole name, or the end of one after a dot.
bool names_module(std::string_view name, std::string_view module);

Result<PeftConfig> parse_peft_config(std::string_view json);

}  // namespace baton::model
