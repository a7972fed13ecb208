// Qwen2 and Qwen2.5, DeepSeek-R1-Distill-Qwen: biases of Q, K and V; layers from max_window_layers on may slide.
#include "model/families/qwen.h"
#include "model/families/table.h"

namespace baton::model {
namespace {

constexpr HfType kTypes[] = {{.model_type = "qwen2", .context = 32768}};

}  // namespace

const Family kQwen2 = {.name = "qwen2", .hf = kTypes, .from_hf = qwen_layers};

}  // namespace baton::model
