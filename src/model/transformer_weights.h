#pragma once
// TransformerWeights: every matrix of a model packed for the kernels (tensor/panels.h), in one arena of huge pages, and its
// vectors in f32. Rows of Q and K are ordered so that both halves of eight rotary pairs share a panel: panel p of a head holds
// dims [8p, 8p + 8) in lanes 0-7 and [head_dim/2 + 8p, ...) in lanes 8-15, so the thread that computed a panel can rotate it. The
// order is undone when Q and K are stored. GGUF's interleaved rows are mapped in the same pass. Immutable after load; any thread
// may read.
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "tensor/panels.h"
#include "tensor/threads.h"

namespace baton::model {

// Bytes from mmap, 2 MiB pages where the kernel grants them; freed with the object.
class Arena {
 public:
  Arena() = default;
  static Result<Arena> make(size_t bytes);
  Arena(Arena&& other) noexcept { *this = std::move(other); }
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm;
  tensor::Panels q, k, v, o, gate, up, down;
  std::vector<float> q_bias, k_bias, v_bias;  // in packed row order; empty if none
};

struct TransformerWeights {
  Arena arena;
  std::vector<LayerWeights> layers;
  std::vector<float> norm;
  tensor::Panels lm_head;
  tensor::Matrix embed;   // rows stay in the file: a step reads only its tokens'
  size_t step_bytes = 0;  // read by every step: panels and norms
};

// The file must outlive the result. progress: fraction packed, from the calling thread.
Result<TransformerWeights> pack_weights(const WeightFile& file, tensor::ThreadPool& pool,
                                        const std::function<void(double)>& progress);

// Hex SHA-256 of the configuration and of the ends of a few tensors: cheap, and differs between any two models or quantisations.
std::string weights_fingerprint(const WeightFile& file);

}  // namespace baton::model
