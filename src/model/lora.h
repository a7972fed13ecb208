#pragma once
// LoraAdapter: a low-rank correction of a model's matrices as PEFT stores it, y = W x + scale * B (A x), packed for the kernels.
// Rows of B lie as those of W are packed (transformer_weights.h: Q and K in rotary order), so whoever computed a panel of W x adds
// that panel of B t. Guarantees: every tensor has its partner and the shapes the model states, all values are finite, and nothing in
// the files is left out: what cannot be applied is an error that names it. Attention and dense feed-forward matrices only: experts,
// embeddings and the head are refused. Values keep the file's type: F32, F16, or BF16, which meets bf16 inputs as it does in W.
// Immutable; shared by whoever computes with it; any thread. Source: arXiv 2106.09685; 2312.03732 (scale by the root of the rank).
#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "model/transformer_weights.h"
#include "tensor/panels.h"

namespace baton::model {

enum class LoraTarget : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr size_t kLoraTargets = 7;

struct LoraMatrix {
  tensor::Panels a, b;  // [rank][inputs] and [outputs][rank]; b.rows == 0: the adapter leaves this matrix as it is
  float scale = 1;
};

class LoraAdapter {
 public:
  // directory: adapter_config.json and adapter_model.safetensors; kNotFound: neither is there. rank_max: of any of its matrices.
  static Result<std::shared_ptr<const LoraAdapter>> load(const std::string& directory, const ModelConfig& model, int32_t rank_max);
  // The same from the files' contents.
  static Result<std::shared_ptr<const LoraAdapter>> read(std::string_view config_json, std::span<const std::byte> safetensors,
                                                         const ModelConfig& model, int32_t rank_max);

  const LoraMatrix& at(int layer, LoraTarget target) const {
    return layers_[static_cast<size_t>(layer)][static_cast<size_t>(target)];
  }
  int32_t rank() const { return rank_; }                    // the largest
  unsigned input_forms() const { return input_forms_; }     // the ActForms of x that its A multiply
  const std::string& digest() const { return digest_; }     // hex SHA-256 of what it computes: equal for equal adapters
  size_t bytes() const { return bytes_; }                   // packed

 private:
  struct Reader;
  Arena arena_;
  std::vector<std::array<LoraMatrix, kLoraTargets>> layers_;
  int32_t rank_ = 0;
  unsigned input_forms_ = 0;
  std::string digest_;
  size_t bytes_ = 0;
};

}  // namespace baton::model
