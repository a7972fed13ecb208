// gpt-oss: mixtures of clamped SwiGLU experts with biases, a learnt sink a head, every second layer slides, YaRN without
// rounding. Its Hugging Face form keeps the experts of a layer in stacks: expert_stacks.h.
#include "model/families/table.h"

namespace baton::model {
namespace {

constexpr HfType kTypes[] = {{.model_type = "gpt_oss",
                              .context = 131072,
                              .kv_heads = 8,
                              .head_dim = 64,
                              .theta = 150000,
                              .eps = 1e-5,
                              .heads = 64,
                              .vocab = 201088}};
constexpr Rename kHfLayer[] = {{"self_attn.sinks", "sinks.weight"},
                               {"mlp.router.weight", "router.weight"},
                               {"mlp.router.bias", "router.bias"},
                               {"mlp.experts.gate_up_proj", "experts.gate_up_proj.weight"},
                               {"mlp.experts.gate_up_proj_blocks", "experts.gate_up_proj.blocks"},
                               {"mlp.experts.gate_up_proj_scales", "experts.gate_up_proj.scales"},
                               {"mlp.experts.gate_up_proj_bias", "experts.gate_up_proj.bias"},
                               {"mlp.experts.down_proj", "experts.down_proj.weight"},
                               {"mlp.experts.down_proj_blocks", "experts.down_proj.blocks"},
                               {"mlp.experts.down_proj_scales", "experts.down_proj.scales"},
                               {"mlp.experts.down_proj_bias", "experts.down_proj.bias"}};
constexpr Rename kGgufLayer[] = {{"post_attention_norm.weight", "ffn_norm.weight"}};
constexpr std::string_view kEnds[] = {"<|return|>", "<|call|>"};

void set_constants(ModelConfig& c) {
  c.expert_bias = true;
  c.attention_sinks = true;
  c.activation = tensor::GatedUnit::kSwigluClamped;
}

// The activation's own constants are the kernels': a checkpoint with others is refused.
void from_hf(HfFields& top, ModelConfig& c) {
  set_constants(c);
  c.experts = top.int32("num_local_experts", top.int32("num_experts", 128));
  c.experts_used = top.int32("num_experts_per_tok", 4);
  if (c.experts < 1) top.complain("num_local_experts", "must be at least 1");
  for (const auto& [key, ours] : {std::pair("swiglu_limit", 7.0), std::pair("swiglu_alpha", 1.702)})
    if (top.number(key, ours) != ours) top.complain(key, cat("must be ", ours, " here"), Code::kUnimplemented);
  if (c.rope_scaling == RopeScaling::kNone && !top.find("rope_scaling") && !top.find("rope_parameters")) {
    c.rope_scaling = RopeScaling::kYarn;  // what transformers takes for a file that says nothing
    c.rope_factor = 32;
    c.rope_original_context = 4096;
    c.yarn_truncate = false;
  }
  if (!top.has("sliding_window")) c.sliding_window = 128;
  hf_layers(top, c, [](int i) { return i % 2 == 0; });
}

void from_gguf(GgufKeys& keys, ModelConfig& c) {
  set_constants(c);
  c.experts = keys.int32(".expert_count");
  c.experts_used = keys.int32(".expert_used_count");
  c.ffn = keys.int32(".expert_feed_forward_length", c.ffn);
  c.yarn_truncate = false;
  gguf_layers(keys, c, 2);
}

}  // namespace

const Family kGptOss = {.name = "gpt-oss",
                        .hf = kTypes,
                        .experts = true,
                        .hf_layer = kHfLayer,
                        .gguf_layer = kGgufLayer,
                        .gguf_ends = kEnds,
                        .from_hf = from_hf,
                        .from_gguf = from_gguf};

}  // namespace baton::model
