// Llama 2 and 3 with its rope scalings, SmolLM 1 and 2, Mistral, DeepSeek-R1-Distill-Llama: the layer all others are told from.
#include "model/families/table.h"

namespace baton::model {
namespace {

constexpr HfType kTypes[] = {{.model_type = "llama"},
                             {.model_type = "mistral", .context = 131072, .kv_heads = 8}};  // Mistral: a window, if it states one

}  // namespace

const Family kLlama = {.name = "llama", .hf = kTypes, .gguf_interleaved = true, .from_hf = [](HfFields& top, ModelConfig& c) {
                         hf_layers(top, c, [](int) { return true; });
                       }};

}  // namespace baton::model
