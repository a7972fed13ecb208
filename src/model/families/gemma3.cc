// Gemma 3 (of the models that see, the text model): norms of Q and K; five sliding layers to each that sees all, with rotations
// of their own.
#include "model/families/gemma.h"
#include "model/families/table.h"

namespace baton::model {
namespace {

constexpr HfType kTypes[] = {
    {.model_type = "gemma3_text", .context = 131072, .kv_heads = 4, .head_dim = 256, .theta = 1e6, .heads = 8, .vocab = 262208},
    {.model_type = "gemma3",
     .context = 131072,
     .kv_heads = 4,
     .head_dim = 256,
     .theta = 1e6,
     .heads = 8,
     .vocab = 262208,
     .nested = true}};
constexpr Rename kPrefixes[] = {
    {"language_model.model.", "model."}, {"language_model.lm_head.", "lm_head."}, {"model.language_model.", "model."}};
constexpr std::string_view kIgnored[] = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                                         "model.multi_modal_projector."};
constexpr int32_t kPattern = 6;

void from_hf(HfFields& top, ModelConfig& c) {
  gemma_from_hf(top, c, 0, 0);
  c.qk_norm = true;
  if (c.rope_local_theta == 0) c.rope_local_theta = top.number("rope_local_base_freq", 10000.0);
  if (!top.has("sliding_window")) c.sliding_window = 4096;
  const int32_t every = top.int32("sliding_window_pattern", kPattern);
  if (every < 1) return top.complain("sliding_window_pattern", "must be at least 1");
  hf_layers(top, c, [every](int i) { return (i + 1) % every != 0; }, LayerRope::kLocal);
}

void from_gguf(GgufKeys& keys, ModelConfig& c) {
  gemma_from_gguf(keys, c, 62);
  c.qk_norm = true;
  c.rope_local_theta = keys.number(".rope.freq_base_swa", 10000.0);
  c.attention_soft_cap = static_cast<float>(keys.number(".attn_logit_softcapping", 0.0));
  c.logit_soft_cap = static_cast<float>(keys.number(".final_logit_softcapping", 0.0));
  gguf_layers(keys, c, kPattern, LayerRope::kLocal);
}

}  // namespace

const Family kGemma3 = {.name = "gemma3",
                        .hf = kTypes,
                        .hf_layer = kGemmaHfLayer,
                        .hf_prefixes = kPrefixes,
                        .hf_ignored = kIgnored,
                        .gguf_ends = kGemmaEnds,
                        .from_hf = from_hf,
                        .from_gguf = from_gguf};

}  // namespace baton::model
