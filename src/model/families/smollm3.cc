// SmolLM3: Llama whose every fourth layer does not turn Q and K.
#include "model/families/table.h"

namespace baton::model {
namespace {

constexpr HfType kTypes[] = {{.model_type = "smollm3", .context = 32768, .kv_heads = 4, .theta = 2e6}};
constexpr int32_t kInterval = 4;

void from_hf(HfFields& top, ModelConfig& c) {
  if (top.boolean("use_sliding_window", false))
    return top.complain("use_sliding_window", "must be false here", Code::kUnimplemented);
  const int32_t interval = top.int32("no_rope_layer_interval", kInterval);
  if (interval < 1) return top.complain("no_rope_layer_interval", "must be at least 1");
  const Json* turns = top.find("no_rope_layers");  // 1: the layer turns
  if (turns && (!turns->is_array() || turns->items.size() < static_cast<size_t>(std::max(c.layers, 0))))
    return top.complain("no_rope_layers", "must have one entry a layer");
  set_layers(c, [&](int i) {
    const bool turning = turns ? turns->items[static_cast<size_t>(i)].as_int().value_or(1) != 0 : (i + 1) % interval != 0;
    return LayerKind{.rope = turning ? LayerRope::kGlobal : LayerRope::kNone};
  });
}

void from_gguf(GgufKeys&, ModelConfig& c) {  // there is no key for it
  set_layers(c, [](int i) { return LayerKind{.rope = (i + 1) % kInterval != 0 ? LayerRope::kGlobal : LayerRope::kNone}; });
}

}  // namespace

const Family kSmolLm3 = {.name = "smollm3", .hf = kTypes, .gguf_interleaved = true, .from_hf = from_hf, .from_gguf = from_gguf};

}  // namespace baton::model
