#pragma once
// Quantised Hugging Face checkpoints: quantization_config, and the tensors that make one linear layer (values, scales, zero
// points) put together as one TensorRef. Nothing is copied or decoded here; tensor/panels.cc repacks at load. Guarantees: shapes
// and dtypes of all parts agree, so that no index into them can leave its tensor; a scheme, layout or tensor we do not run is
// refused by name. What a checkpoint says of activations (static scales, 8 bits a token) is not needed: ours are rounded finer
// (tensor/activations.h). Source: facts sheet engine.md 4.7; the formats' own packers.
#include <functional>
#include <map>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "model/config.h"
#include "model/safetensors.h"

namespace baton::model {

// quantization_config as far as the tensors themselves do not tell.
struct Quantisation {
  enum class Method : uint8_t {
    kNone,
    kScaled,
    kGptq,
    kAwq
  };  // kNone: mxfp4 too, which expert_stacks.h knows by its tensors. kScaled: weight and weight_scale; fp8, compressed-tensors, ...
  Method method = Method::kNone;
  std::string name = {};                   // "fp8", "gptq": for messages
  int64_t block_rows = 0, block_cols = 0;  // of a scale of kScaled, where the checkpoint has them; 0: a row or the whole
  int64_t bits = 4, group = 0;             // of GPTQ and AWQ; group 0: the whole row
  bool zero_less_one = true;               // GPTQ's first format
  bool fp8_cache = false;                  // made for a KV cache of FP8 with a scale a layer: ModelConfig::fp8_cache
};

// From the whole config.json; kNone if it has no quantization_config.
Result<Quantisation> parse_quantisation(const Json& config);

class QuantisedTensors {
 public:
  explicit QuantisedTensors(Quantisation q) : q_(std::move(q)) {}

  // True if the tensor is part of a quantised layer (or one that we have no use for) and has been dealt with. neutral: a tensor's
  // name to its neutral one, "" if there is none. The tensor's bytes must outlive the result of finish().
  Result<bool> take(const Safetensor& t, const std::function<std::string(std::string_view)>& neutral);
  // Adds the layers to `tensors` under their neutral names.
  Result<> finish(std::map<std::string, TensorRef, std::less<>>& tensors) const;

 private:
  using Parts = std::map<std::string, Safetensor, std::less<>>;  // "weight_scale" -> tensor
  Result<TensorRef> assemble(const std::string& name, const Parts& parts) const;
  Result<TensorRef> scaled(const std::string& name, const Parts& parts) const;
  Result<TensorRef> packed(const std::string& name, const Parts& parts) const;
  Result<TensorRef> grouped(const std::string& name, const Parts& parts) const;

  Quantisation q_;
  std::map<std::string, Parts> layers_;  // neutral name of the weight -> its parts
  std::map<std::string, TensorRef> cache_scales_;  // "layers.0.k_scale"
};

}  // namespace baton::model
