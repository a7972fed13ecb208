#pragma once
// ExpertStacks: a layer's experts as gpt-oss checkpoints hold them, one tensor for all, put apart into the matrices and biases of
// each expert. Nothing is copied: what comes out are views with steps between their elements (tensor::Matrix). Two forms, E
// experts, R outputs, C inputs; of gate_up_proj R is twice the feed-forward size, and even outputs are gate's, odd ones up's:
//   MXFP4 NAME_blocks U8 [E][R][C/32][16], two inputs a byte, the lower in the low half; NAME_scales U8 [E][R][C/32], E8M0
//   plain NAME [E][C][R]: inputs outside, as transformers writes it
// Biases are NAME_bias [E][R] in both. Guarantees: every shape is the configuration's, so that no view leaves its tensor.
// Source: transformers' model and its MXFP4 integration.
#include <map>
#include <string>

#include "base/result.h"
#include "model/config.h"
#include "model/safetensors.h"

namespace baton::model {

class ExpertStacks {
 public:
  // True if the tensor is of a stack and has been dealt with. name: its neutral one, "layers.3.experts.down_proj.scales". The
  // tensor's bytes must outlive the result of finish().
  Result<bool> take(const Safetensor& t, std::string_view name);
  // Adds "layers.3.experts.0.gate_proj.weight" and all others to `tensors`.
  Result<> finish(const ModelConfig& config, std::map<std::string, TensorRef, std::less<>>& tensors) const;

 private:
  using Parts = std::map<std::string, Safetensor, std::less<>>;  // "weight", "bias", "blocks", "scales"
  std::map<std::string, Parts, std::less<>> stacks_;             // "layers.3.experts.down_proj"
};

}  // namespace baton::model
