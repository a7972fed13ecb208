// Phi-3, Phi-3.5 and Phi-4 (mini too): Q, K and V in one matrix, gate and up in another; LongRoPE; a part of each head may turn.
#include "model/families/table.h"

namespace baton::model {
namespace {

constexpr HfType kTypes[] = {{.model_type = "phi3", .context = 4096, .eps = 1e-5}};
constexpr Rename kHfLayer[] = {{"self_attn.qkv_proj.weight", "qkv_proj.weight"},
                               {"mlp.gate_up_proj.weight", "gate_up_proj.weight"}};
constexpr Rename kGgufLayer[] = {{"attn_qkv.weight", "qkv_proj.weight"}, {"ffn_up.weight", "gate_up_proj.weight"}};
constexpr std::string_view kEnds[] = {"<|end|>"};

}  // namespace

const Family kPhi3 = {.name = "phi3",
                      .hf = kTypes,
                      .partial_rotary = true,
                      .hf_layer = kHfLayer,
                      .gguf_layer = kGgufLayer,
                      .gguf_ends = kEnds,
                      .from_hf = [](HfFields& top, ModelConfig& c) { hf_layers(top, c, [](int) { return true; }); }};

}  // namespace baton::model
