#pragma once
// What Gemma 2 and 3 have in common: the embedding grows by sqrt(hidden), gates are GELU (tanh form), attention and feed-forward
// have a norm before and after, and norm weights of the Hugging Face form lack the 1 that GGUF's writers add.
#include <cmath>

#include "model/families/family.h"

namespace baton::model {

inline constexpr Rename kGemmaHfLayer[] = {{"post_attention_layernorm.weight", "post_attn_norm.weight"},
                                           {"pre_feedforward_layernorm.weight", "ffn_norm.weight"},
                                           {"post_feedforward_layernorm.weight", "post_ffn_norm.weight"}};
inline constexpr std::string_view kGemmaEnds[] = {"<end_of_turn>"};

inline void gemma_layer(ModelConfig& c) {
  c.post_norms = true;
  c.embed_scale = std::sqrt(static_cast<float>(std::max(c.hidden, 0)));
  c.activation = tensor::GatedUnit::kGeluTanh;
}

inline void gemma_from_hf(HfFields& top, ModelConfig& c, double attention_cap, double logit_cap) {
  gemma_layer(c);
  c.norm_offset = 1;
  c.attention_scale = static_cast<float>(1 / std::sqrt(top.number("query_pre_attn_scalar", 256.0)));
  const auto cap = [&](std::string_view key, double absent) {  // null means none, absence the default
    return static_cast<float>(top.has(key) && !top.find(key) ? 0 : top.number(key, absent));
  };
  c.attention_soft_cap = cap("attn_logit_softcapping", attention_cap);
  c.logit_soft_cap = cap("final_logit_softcapping", logit_cap);
  if (top.boolean("use_bidirectional_attention", false))
    top.complain("use_bidirectional_attention", "must be false here: text is written from left to right", Code::kUnimplemented);
}

// GGUF has no key for the query's scale: it is 1 / sqrt(head_dim), except in the 27B models, which the count of layers tells.
inline void gemma_from_gguf(GgufKeys& keys, ModelConfig& c, int32_t layers_of_27b) {
  gemma_layer(c);
  const double per_head = c.layers == layers_of_27b && c.heads > 0 ? static_cast<double>(c.hidden / c.heads) : c.head_dim;
  c.attention_scale = static_cast<float>(keys.number(".attention.scale", 1 / std::sqrt(std::max(per_head, 1.0))));
}

}  // namespace baton::model
