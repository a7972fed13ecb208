// Qwen3-MoE: Qwen3 whose every feed-forward layer is a mixture of experts.
#include "model/families/table.h"

namespace baton::model {
namespace {

constexpr HfType kTypes[] = {{.model_type = "qwen3_moe", .context = 32768, .kv_heads = 4}};

void from_hf(HfFields& top, ModelConfig& c) {
  c.qk_norm = true;
  c.experts = top.int32("num_experts", top.int32("num_local_experts", 128));
  c.experts_used = top.int32("num_experts_per_tok", 8);
  c.ffn = top.int32("moe_intermediate_size", 768);
  c.expert_norm = top.boolean("norm_topk_prob", false);
  if (top.int32("decoder_sparse_step", 1) != 1)
    top.complain("decoder_sparse_step", "must be 1 here: dense layers between the mixtures are not supported",
                 Code::kUnimplemented);
  if (const Json* dense = top.find("mlp_only_layers"); dense && !dense->items.empty())
    top.complain("mlp_only_layers", "must be empty here: dense layers between the mixtures are not supported",
                 Code::kUnimplemented);
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
