// Qwen3-MoE: Qwen3 whose feed-forward layers are mixtures of experts: all of them, or those that mlp_only_layers and
// decoder_sparse_step leave.
#include "model/families/table.h"

namespace baton::model {
namespace {

constexpr HfType kTypes[] = {{.model_type = "qwen3_moe", .context = 32768, .kv_heads = 4}};

// A layer is dense if mlp_only_layers names it or decoder_sparse_step passes over it.
void read_dense_layers(HfFields& top, ModelConfig& c) {
  const int32_t step = top.int32("decoder_sparse_step", 1);
  if (step < 1) return top.complain("decoder_sparse_step", "must be at least 1");
  if (c.layers < 1 || c.layers > kLayersMax) return;  // check_config() says so
  for (int i = 0; i < c.layers; i++) c.dense_layers.push_back((i + 1) % step != 0);
  const Json* named = top.find("mlp_only_layers");
  if (named && !named->is_array()) return top.complain("mlp_only_layers", "must be a list of layers");
  for (size_t i = 0; named && i < named->items.size(); i++) {
    const auto layer = named->items[i].as_int();
    if (!layer) return top.complain("mlp_only_layers", "must be a list of layers");
    if (*layer >= 0 && *layer < c.layers) c.dense_layers[static_cast<size_t>(*layer)] = true;
  }
  const auto dense = std::ranges::count(c.dense_layers, true);
  if (dense == 0 || dense == c.layers) c.dense_layers.clear();
  if (dense == c.layers) c.experts = 0;
}

void from_hf(HfFields& top, ModelConfig& c) {
  c.qk_norm = true;
  c.experts = top.int32("num_experts", top.int32("num_local_experts", 128));
  c.experts_used = top.int32("num_experts_per_tok", 8);
  c.expert_norm = top.boolean("norm_topk_prob", false);
  if (c.experts > 0) read_dense_layers(top, c);
  if (!c.dense_layers.empty()) c.dense_ffn = c.ffn;
  if (c.experts > 0) c.ffn = top.int32("moe_intermediate_size", 768);
  if (top.boolean("use_sliding_window", false)) hf_layers(top, c, [](int) { return true; });
}

void from_gguf(GgufKeys& keys, ModelConfig& c) {
  c.qk_norm = true;
  c.experts = keys.int32(".expert_count");
  c.experts_used = keys.int32(".expert_used_count");
  c.ffn = keys.int32(".expert_feed_forward_length");
  c.expert_norm = keys.boolean(".expert_weights_norm", true);
}

}  // namespace

const Family kQwen3Moe = {.name = "qwen3moe", .hf = kTypes, .experts = true, .from_hf = from_hf, .from_gguf = from_gguf};

}  // namespace baton::model
