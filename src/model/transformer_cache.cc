// The transformer's part between the linear layers of Q, K and V and their attention: bias, norm and rotation, and keys and
// values on their way into the cache.
#include <cstring>

#include "model/transformer.h"

namespace baton::model {

using tensor::Share;

// Bias and norm of a row's packed panels of Q or K, in place; with a norm the panels are whole heads.
void Transformer::finish_heads(const LayerWeights& w, bool is_q, int64_t row, Share panels) {
  const ModelConfig& c = part_;
  const std::vector<float>& bias = is_q ? w.q_bias : w.k_bias;
  const std::vector<float>& norm = is_q ? w.q_norm : w.k_norm;
  float* const raw = qkv_.get() + row * (c.heads + 2 * c.kv_heads) * c.head_dim + (is_q ? 0 : int64_t{c.heads} * c.head_dim);
  const int64_t end = panels.end * tensor::kPanelRows;
  if (!bias.empty())
    for (int64_t i = panels.begin * tensor::kPanelRows; i < end; ++i) raw[i] += bias[static_cast<size_t>(i)];
  if (!norm.empty())
    for (int64_t i = panels.begin * tensor::kPanelRows; i < end; i += c.head_dim)
      ops_.rms_norm(raw + i, norm.data(), c.head_dim, c.rms_eps, raw + i);
}

// Eight pairs of in[i] and in[i + 8], turned. Vectors by name: what is stored element by element and read back whole waits for
// both.
static void rotate_eight(const float* in, const float* cosine, const float* sine, float factor, float (&out)[16]) {
  using Eight = float __attribute__((vector_size(32)));
  Eight a, b, c, s;
  std::memcpy(&a, in, 32);
  std::memcpy(&b, in + 8, 32);
  std::memcpy(&c, cosine, 32);
  std::memcpy(&s, sine, 32);
  const Eight first = (a * c - b * s) * factor, second = (b * c + a * s) * factor;
  std::memcpy(out, &first, 32);
  std::memcpy(out + 8, &second, 32);
}

// Bias, norm and rotation of packed panels of Q (to q_) or K (to the cache): 8 first halves and 8 second halves a panel, or 16
// dims that do not turn (whose cosine is 1).
void Transformer::rotate_columns(const LayerWeights& w, int layer, bool is_q, Share panels) {
  const ModelConfig& c = part_;
  const int64_t stride = int64_t{c.heads + 2 * c.kv_heads} * c.head_dim;
  const int half = c.head_dim / 2, head_panels = c.head_dim / 16, turning = c.rotated();
  const size_t angles = layers_[static_cast<size_t>(layer)].rope * slice_.rows.size() * static_cast<size_t>(half);
  const bool scaled = tensor::kv_scaled(kv_format_);
  const float factor = is_q ? 1.f : 1 / w.k_scale;
  float key[tensor::kHeadDimMax];  // with a scale a head is stored when all of it is there
  for (int64_t r = 0; r < static_cast<int64_t>(slice_.rows.size()); ++r) {
    finish_heads(w, is_q, r, panels);
    const float* raw = qkv_.get() + r * stride + (is_q ? 0 : int64_t{c.heads} * c.head_dim);
    const Row& row = slice_.rows[static_cast<size_t>(r)];
    for (int64_t p = panels.begin; p < panels.end; ++p) {
      const auto head = static_cast<int>(p / head_panels), dim = static_cast<int>(p % head_panels) * 8;
      const int first = 2 * dim < turning ? dim : 2 * dim, second = 2 * dim < turning ? dim + turning / 2 : 2 * dim + 8;
      const float* cosine = cosine_.get() + angles + r * half + dim;
      const float* sine = sine_.get() + angles + r * half + dim;
      const float* in = raw + p * 16;
      float out[16];
      rotate_eight(in, cosine, sine, factor, out);
      if (is_q) {
        float* to = q_.get() + (r * c.heads + head) * c.head_dim;
        std::memcpy(to + first, out, 32);
        std::memcpy(to + second, out + 8, 32);
      } else if (scaled) {
        std::memcpy(key + first, out, 32);
        std::memcpy(key + second, out + 8, 32);
        if ((p + 1) % head_panels == 0) cache_.store_k(kv_view(row, layer, head), row.position, 0, key, c.head_dim);
      } else {
        const tensor::KvView view = kv_view(row, layer, head);
        cache_.store_k(view, row.position, first, out, 8);
        cache_.store_k(view, row.position, second, out + 8, 8);
      }
    }
  }
}

void Transformer::store_values(const LayerWeights& w, int layer, Share panels) {
  const ModelConfig& c = part_;
  const int64_t stride = int64_t{c.heads + 2 * c.kv_heads} * c.head_dim;
  const int head_panels = c.head_dim / 16;
  const float factor = 1 / w.v_scale;
  const int at_once = tensor::kv_scaled(kv_format_) ? head_panels : 1;
  for (int64_t r = 0; r < static_cast<int64_t>(slice_.rows.size()); ++r) {
    const float* raw = qkv_.get() + r * stride + int64_t{c.heads + c.kv_heads} * c.head_dim;
    const Row& row = slice_.rows[static_cast<size_t>(r)];
    for (int64_t p = panels.begin; p < panels.end; p += at_once) {
      float out[tensor::kHeadDimMax];
      for (int i = 0; i < 16 * at_once; ++i)
        out[i] = (raw[p * 16 + i] + (w.v_bias.empty() ? 0.f : w.v_bias[static_cast<size_t>(p * 16 + i)])) * factor;
      cache_.store_v(kv_view(row, layer, static_cast<int>(p / head_panels)), row.position, static_cast<int>(p % head_panels) * 16,
                     out, 16 * at_once);
    }
  }
}

tensor::KvView Transformer::kv_view(const Row& row, int layer, int kv_head) const {
  kv_head += shard_.kv_head_first;
  return {.pool = kv_.data(),
          .block_stride = layout_.block_bytes(),
          .k_offset = layout_.k_offset(layer, kv_head),
          .v_offset = layout_.v_offset(layer, kv_head),
          .blocks = row.blocks,
          .block_tokens = layout_.block_tokens,
          .head_dim = layout_.head_dim};
}

}  // namespace baton::model
