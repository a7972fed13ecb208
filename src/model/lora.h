#pragma once
// LoraAdapter: a low-rank correction of a model's matrices as PEFT stores it, y = W x + scale * B (A x), packed for the kernels.
// Rows of B lie as those of W are packed (transformer_weights.h: Q and K in rotary order), so whoever computed a panel of W x adds
// that panel of B t. Guarantees: every tensor has its partner and the shapes the model states, all values are finite, and nothing in
// the files is left out: what cannot be applied is an error that names it. Attention and feed-forward matrices, those of experts too,
// in either form that PEFT has for them; routers, embeddings and the head are refused. Values keep the file's type: F32, F16, or BF16, which meets bf16 inputs as it does in W.
// A rank of a tensor-parallel model holds what its part of W needs: of matrices cut by rows (rank_shard.h) all of A and those rows of
// B, of O and down those columns of A and all of B, whose products the ranks add up with those of W.
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

// Of a tensor-parallel model.
struct LoraPart {
  RankShard shard = {};
  int32_t number = 0;  // what rank 0 calls it in its orders to the other ranks (rank_group.h): positive
};

class LoraAdapter {
 public:
  // directory: adapter_config.json and adapter_model.safetensors; kNotFound: neither is there. rank_max: of any of its matrices.
  static Result<std::shared_ptr<const LoraAdapter>> load(const std::string& directory, const ModelConfig& model, int32_t rank_max,
                                                         const LoraPart& part = {});
  // The same from the files' contents.
  static Result<std::shared_ptr<const LoraAdapter>> read(std::string_view config_json, std::span<const std::byte> safetensors,
                                                         const ModelConfig& model, int32_t rank_max, const LoraPart& part = {});

  const LoraMatrix& at(int layer, LoraTarget target) const {
    return layers_[static_cast<size_t>(layer)][static_cast<size_t>(target)];
  }
  // kGate, kUp or kDown of an expert of a mixture; nullptr: the adapter leaves it as it is.
  const LoraMatrix* expert(int layer, int32_t expert, LoraTarget target) const {
    const auto& experts = experts_[static_cast<size_t>(layer)];
    if (experts.empty()) return nullptr;
    const LoraMatrix& m = experts[static_cast<size_t>(expert)][static_cast<size_t>(target) - static_cast<size_t>(LoraTarget::kGate)];
    return m.b.rows > 0 ? &m : nullptr;
  }
  bool adapts_experts(int layer) const { return !experts_[static_cast<size_t>(layer)].empty(); }
  int32_t rank() const { return rank_; }                    // the largest
  unsigned input_forms() const { return input_forms_; }     // the ActForms of x that its A multiply
  const std::string& digest() const { return digest_; }     // hex SHA-256 of what it computes: equal for equal adapters, on all ranks
  int32_t number() const { return number_; }                // LoraPart::number
  size_t bytes() const { return bytes_; }                   // packed

 private:
  struct Reader;
  Arena arena_;
  std::vector<std::array<LoraMatrix, kLoraTargets>> layers_;
  std::vector<std::vector<std::array<LoraMatrix, 3>>> experts_;  // [layer][expert]; empty: the adapter has none there
  int32_t rank_ = 0;
  unsigned input_forms_ = 0;
  std::string digest_;
  int32_t number_ = 0;
  size_t bytes_ = 0;
};

}  // namespace baton::model
