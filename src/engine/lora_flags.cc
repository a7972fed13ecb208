#include "engine/lora_flags.h"

#include <algorithm>

#include "base/json.h"

namespace baton::engine {
namespace {

constexpr int kRanks[] = {1, 8, 16, 32, 64, 128, 256, 320, 512};  // vLLM's MaxLoRARanks

}  // namespace

Result<LoraModule> parse_lora_module(std::string_view text) {
  LoraModule out;
  const size_t equals = text.find('=');
  if (equals != std::string_view::npos && text.find(',') == std::string_view::npos && !text.starts_with('{')) {
    out.name = text.substr(0, equals);
    out.path = text.substr(equals + 1);
  } else {
    const auto json = parse_json(text);
    if (!json || !json->is_object())
      return fail(Code::kInvalidArgument, "--lora-modules: ", text, " is neither name=path nor a JSON object");
    for (size_t i = 0; i < json->keys.size(); ++i) {
      const std::string& key = json->keys[i];
      const Json& value = json->items[i];
      std::string* to = key == "name" ? &out.name : key == "path" ? &out.path : key == "base_model_name" ? &out.base_model : nullptr;
      const bool absent = value.is_null() || (value.is_bool() && !value.boolean);
      if (!absent && (!to || !value.is_string()))
        return fail(Code::kInvalidArgument, "--lora-modules: ", key, " is not known, or not of its kind");
      if (to) *to = value.text;
    }
  }
  if (out.name.empty() || out.path.empty()) return fail(Code::kInvalidArgument, "--lora-modules: ", text, " lacks a name or a path");
  return out;
}

Result<> read_lora_flags(EngineConfig& c) {
  std::string errors;
  const auto require = [&](bool ok, std::string_view message) {
    if (!ok) errors += cat(errors.empty() ? "" : "\n", message);
  };
  require(c.enable_lora || c.lora_modules.empty(), "--lora-modules wants --enable-lora");
  require(std::ranges::find(kRanks, c.max_lora_rank) != std::end(kRanks), "--max-lora-rank wants 1, 8, 16, 32, 64, 128, 256, 320 or 512");
  require(c.max_cpu_loras == 0 || c.max_cpu_loras >= c.max_loras,
          cat("max_cpu_loras (", c.max_cpu_loras, ") must be >= max_loras (", c.max_loras, ")"));
  c.loras.clear();
  for (const std::string& text : c.lora_modules) {
    if (text.empty()) continue;
    auto module = parse_lora_module(text);
    require(module.has_value(), module ? "" : module.error().message);
    if (!module) continue;
    require(std::ranges::find(c.loras, module->name, &LoraModule::name) == c.loras.end(), cat("--lora-modules names ", module->name, " twice"));
    c.loras.push_back(*std::move(module));
  }
  if (!errors.empty()) return fail(Code::kInvalidArgument, errors);
  return {};
}

}  // namespace baton::engine
