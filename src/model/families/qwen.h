#pragma once
// What the Qwen families' config.json files have in common.
#include "model/families/family.h"

namespace baton::model {

// use_sliding_window turns the window on, from layer max_window_layers (or as layer_types says).
inline void qwen_layers(HfFields& top, ModelConfig& c) {
  if (!top.find("layer_types") && !top.boolean("use_sliding_window", false)) return;
  const int32_t first = top.int32("max_window_layers", 28), window = top.int32("sliding_window", 0);
  if (top.find("layer_types")) return hf_layers(top, c, [](int) { return false; });
  set_layers(c, [&](int i) { return i >= first && window > 0 ? LayerKind{.window = window} : LayerKind{}; });
}

}  // namespace baton::model
