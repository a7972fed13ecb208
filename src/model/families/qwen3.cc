// Qwen3: an RMS norm over each head of Q and K, no biases.
#include "model/families/qwen.h"
#include "model/families/table.h"

namespace baton::model {
namespace {

constexpr HfType kTypes[] = {{.model_type = "qwen3", .context = 32768, .kv_heads = 32, .head_dim = 128}};

}  // namespace

const Family kQwen3 = {.name = "qwen3",
                       .hf = kTypes,
                       .from_hf =
                           [](HfFields& top, ModelConfig& c) {
                             c.qk_norm = true;
                             qwen_layers(top, c);
                           },
                       .from_gguf = [](GgufKeys&, ModelConfig& c) { c.qk_norm = true; }};

}  // namespace baton::model
