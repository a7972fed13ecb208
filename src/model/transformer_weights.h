#pragma once
// TransformerWeights: every matrix of a model packed for the kernels (tensor/panels.h), in one arena of huge pages, and its
// vectors in f32. Rows of Q and K are ordered so that both halves of eight rotary pairs share a panel: panel p of a head holds
// dims [8p, 8p + 8) in lanes 0-7 and [d/2 + 8p, ...) in lanes 8-15, where d dims of the head turn, so the thread that computed a
// panel can rotate it; panels of dims that do not turn are straight. The order is undone when Q and K are stored. GGUF's
// interleaved rows are mapped in the same pass. Immutable after load; any thread may read.
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "model/rank_shard.h"
#include "tensor/panels.h"
#include "tensor/threads.h"

namespace baton::model {

// Bytes from mmap, 2 MiB pages where the kernel grants them; freed with the object.
class Arena {
 public:
  Arena() = default;
  static Result<Arena> make(size_t bytes);
  static constexpr size_t room(size_t bytes) { return (bytes + 63) / 64 * 64; }  // what lies in it begins at cache lines
  Arena(Arena&& other) noexcept { *this = std::move(other); }
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

inline tensor::Format format_of(Dtype d) {
  static_assert(static_cast<int>(Dtype::kQ6_K) == static_cast<int>(tensor::Format::kQ6_K));
  static_assert(static_cast<int>(Dtype::kMxfp4Pairs) == static_cast<int>(tensor::Format::kMxfp4Pairs));
  return static_cast<tensor::Format>(d);  // the same list
}

// One gated feed-forward network of a mixture.
struct ExpertWeights {
  tensor::Panels gate, up, down;
  std::vector<float> gate_bias, up_bias, down_bias;  // empty if none
};

struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm;
  tensor::Panels q, k, v, o, gate, up, down;  // K and V are empty where another rank stores them
  std::vector<float> q_bias, k_bias, v_bias;  // in packed row order; empty if none
  // What some families have besides; empty in the others.
  std::vector<float> o_bias, q_norm, k_norm;  // the norms: of one head, in packed row order
  std::vector<float> post_attn_norm, post_ffn_norm;
  std::vector<float> sinks;  // a head
  float k_scale = 1, v_scale = 1;  // of an FP8 cache, as the checkpoint says: element = value / scale
  tensor::Panels router;
  std::vector<float> router_bias;
  std::vector<ExpertWeights> experts;  // in the place of gate, up and down
};

struct TransformerWeights {
  Arena arena;
  std::vector<LayerWeights> layers;
  std::vector<float> norm;
  tensor::Panels lm_head;
  tensor::Matrix embed;   // rows stay in the file: a step reads only its tokens'
  size_t step_bytes = 0;  // read by a step of one token: panels and norms, of a mixture's experts those used
};

// File row of each packed row of Q or K, of heads [first, first + heads). interleaved: WeightFile::rope_interleaved().
std::vector<int32_t> rotary_rows(int first, int heads, const ModelConfig& c, bool interleaved);

// Rows [first, first + n) in their order; of a whole matrix none, which means all.
std::vector<int32_t> part_rows(const RankShard& shard, int32_t first, int32_t n);

// A rank's part of every matrix. The file must outlive the result. progress: fraction packed, from the calling thread.
Result<TransformerWeights> pack_weights(const WeightFile& file, const RankShard& shard, tensor::ThreadPool& pool,
                                        const std::function<void(double)>& progress);

// Hex SHA-256 of the configuration and of the ends of a few tensors: cheap, and differs between any two models or quantisations.
// context: see LoadOptions; it counts where it changes what the model computes.
std::string weights_fingerprint(const WeightFile& file, int32_t context);

}  // namespace baton::model
