// Gemma 2: every second layer slides; scores and logits are soft-capped.
#include "model/families/gemma.h"
#include "model/families/table.h"

namespace baton::model {
namespace {

constexpr HfType kTypes[] = {{.model_type = "gemma2", .context = 8192, .kv_heads = 4, .head_dim = 256}};

void from_hf(HfFields& top, ModelConfig& c) {
  gemma_from_hf(top, c, 50, 30);
  if (!top.has("sliding_window")) c.sliding_window = 4096;
  hf_layers(top, c, [](int i) { return i % 2 == 0; });
}

void from_gguf(GgufKeys& keys, ModelConfig& c) {
  gemma_from_gguf(keys, c, 46);
  c.attention_soft_cap = static_cast<float>(keys.number(".attn_logit_softcapping", 50.0));
  c.logit_soft_cap = static_cast<float>(keys.number(".final_logit_softcapping", 30.0));
  gguf_layers(keys, c, 2);
}

}  // namespace

const Family kGemma2 = {.name = "gemma2",
                        .hf = kTypes,
                        .hf_layer = kGemmaHfLayer,
                        .gguf_ends = kGemmaEnds,
                        .from_hf = from_hf,
                        .from_gguf = from_gguf};

}  // namespace baton::model
