// gpt-oss: mixtures of clamped SwiGLU experts with biases, a learnt sink a head, every second layer slides, YaRN without
// rounding. GGUF files alone: the safetensors form keeps its MXFP4 experts apart from their scales.
#include "model/families/table.h"

namespace baton::model {
namespace {

constexpr Rename kGgufLayer[] = {{"post_attention_norm.weight", "ffn_norm.weight"}};
constexpr std::string_view kEnds[] = {"<|return|>", "<|call|>"};

void from_gguf(GgufKeys& keys, ModelConfig& c) {
  c.experts = keys.int32(".expert_count");
  c.experts_used = keys.int32(".expert_used_count");
  c.ffn = keys.int32(".expert_feed_forward_length", c.ffn);
  c.expert_bias = true;
  c.attention_sinks = true;
  c.activation = tensor::GatedUnit::kSwigluClamped;
  c.yarn_truncate = false;
  gguf_layers(keys, c, 2);
}

}  // namespace

const Family kGptOss = {.name = "gpt-oss", .experts = true, .gguf_layer = kGgufLayer, .gguf_ends = kEnds, .from_gguf = from_gguf};

}  // namespace baton::model
