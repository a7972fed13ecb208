#include "model/families/table.h"

#include "model/families/family.h"

namespace baton::model {
namespace {

constexpr const Family* kFamilies[] = {&kLlama, &kQwen2, &kQwen3, &kQwen3Moe, &kGemma2, &kGemma3, &kPhi3, &kSmolLm3, &kGptOss};

}  // namespace

std::span<const Family* const> families() { return kFamilies; }

const Family* find_family(std::string_view name) {
  for (const Family* f : kFamilies)
    if (f->name == name) return f;
  return nullptr;
}

HfFamily find_hf_family(std::string_view model_type) {
  for (const Family* f : kFamilies)
    for (const HfType& type : f->hf)
      if (type.model_type == model_type) return {f, &type};
  return {};
}

std::string known_gguf_families() {
  std::string out;
  for (const Family* f : kFamilies) out += cat(out.empty() ? "" : ", ", f->name);
  return out;
}

std::string known_hf_types() {
  std::string out;
  for (const Family* f : kFamilies)
    for (const HfType& type : f->hf) out += cat(out.empty() ? "" : ", ", type.model_type);
  return out;
}

void hf_layers(HfFields& top, ModelConfig& c, const std::function<bool(int layer)>& slides, LayerRope rope) {
  const int32_t window = top.int32("sliding_window", c.sliding_window);
  const Json* types = top.find("layer_types");
  if (types && !types->is_array()) types = nullptr;
  if (types && types->items.size() != static_cast<size_t>(std::max(c.layers, 0)))
    return top.complain("layer_types", "must have one entry a layer");
  if (types)
    for (const Json& t : types->items)
      if (t.as_string() != "sliding_attention" && t.as_string() != "full_attention")
        return top.complain("layer_types",
                            cat("has \"", t.as_string().value_or("?"), "\"; full_attention and sliding_attention are supported"),
                            Code::kUnimplemented);
  set_layers(c, [&](int i) {
    const bool sliding = types ? types->items[static_cast<size_t>(i)].as_string() == "sliding_attention" : slides(i);
    return sliding && window > 0 ? LayerKind{window, rope} : LayerKind{};
  });
}

void gguf_layers(GgufKeys& keys, ModelConfig& c, int32_t pattern, LayerRope rope) {
  const int32_t window = keys.int32(".attention.sliding_window", 0);
  std::vector<int32_t> flags;
  if (keys.is_array(".attention.sliding_window_pattern")) {
    flags = keys.ints(".attention.sliding_window_pattern");
    if (flags.size() != static_cast<size_t>(std::max(c.layers, 0)))
      return keys.complain(".attention.sliding_window_pattern", "must have one entry a layer");
  } else {
    pattern = keys.int32(".attention.sliding_window_pattern", pattern);
  }
  set_layers(c, [&](int i) {
    const bool sliding = !flags.empty() ? flags[static_cast<size_t>(i)] != 0 : pattern <= 0 || (i + 1) % pattern != 0;
    return sliding && window > 0 ? LayerKind{window, rope} : LayerKind{};
  });
}

}  // namespace baton::model
