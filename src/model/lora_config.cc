#include "model/lora_config.h"

#include <cmath>

#include "model/hf_fields.h"
#include "model/limits.h"

namespace baton::model {
namespace {

// What only training, or the file's history, cares for.
constexpr std::string_view kHarmless[] = {"task_type",        "base_model_name_or_path", "revision",   "inference_mode", "lora_dropout",
                                          "init_lora_weights", "auto_mapping",           "peft_version", "megatron_core", "loftq_config",
                                          "eva_config",        "corda_config",           "qalora_group_size"};
// What says which layers have tensors: the tensors themselves tell that too.
constexpr std::string_view kLayers[] = {"layers_to_transform", "layers_pattern", "exclude_modules"};
constexpr std::string_view kRead[] = {"peft_type",      "r",    "lora_alpha",   "use_rslora",   "target_modules",
                                      "target_parameters", "bias", "rank_pattern", "alpha_pattern"};

bool any_of(std::span<const std::string_view> names, std::string_view key) { return std::ranges::find(names, key) != names.end(); }

bool holds_nothing(const Json& v) {
  return v.is_null() || (v.is_bool() && !v.boolean) || (v.is_string() && v.text.empty()) ||
         ((v.is_array() || v.is_object()) && v.items.empty());
}

// A name without what a regular expression could mean: PEFT takes patterns too.
bool plain(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
  });
}

template <class Value, class Read>
void read_pattern(HfFields& fields, std::string_view key, std::vector<std::pair<std::string, Value>>& out, Read read) {
  const Json* v = fields.find(key);
  if (!v) return;
  if (!v->is_object() || v->items.size() > kLoraPatternsMax)
    return fields.complain(key, cat("must be an object of at most ", kLoraPatternsMax, " members"));
  for (size_t i = 0; i < v->items.size(); i++) {
    const auto value = read(v->items[i]);
    if (!plain(v->keys[i]))
      return fields.complain(key, cat("has the pattern \"", v->keys[i], "\"; names and ends of names are supported"), Code::kUnimplemented);
    if (!value) return fields.complain(key, cat("has no proper value for \"", v->keys[i], "\""));
    out.emplace_back(v->keys[i], *value);
  }
}

void read_names(HfFields& fields, std::string_view key, std::vector<std::string>& out) {
  const Json* v = fields.find(key);
  if (!v || v->is_null() || v->is_string()) return;  // a regular expression, or all-linear: the tensors tell which
  if (!v->is_array() || v->items.size() > kLoraPatternsMax)
    return fields.complain(key, cat("must be a string, or a list of at most ", kLoraPatternsMax, " names"));
  for (const Json& item : v->items) {
    if (!item.is_string() || !plain(item.text)) return fields.complain(key, "must hold names");
    out.push_back(item.text);
  }
}

void read_targets(HfFields& fields, PeftConfig& out) {
  read_names(fields, "target_modules", out.targets);
  read_names(fields, "target_parameters", out.parameters);
  const Json* modules = fields.find("target_modules");
  if (out.targets.empty() && out.parameters.empty() && !(modules && modules->is_string()))
    fields.complain("target_modules", "is missing, or names nothing");
}

std::optional<int32_t> rank_value(const Json& v) {
  const auto n = v.as_int();
  return n && *n >= 1 && *n <= kLoraRankMax ? std::optional(static_cast<int32_t>(*n)) : std::nullopt;
}

template <class Value>
Value by_pattern(const std::vector<std::pair<std::string, Value>>& patterns, std::string_view module, Value otherwise) {
  for (const auto& [name, value] : patterns)
    if (names_module(name, module)) return value;
  return otherwise;
}

}  // namespace

bool names_module(std::string_view name, std::string_view module) {
  return module == name || (module.size() > name.size() && module.ends_with(name) && module[module.size() - name.size() - 1] == '.');
}

int32_t PeftConfig::rank_of(std::string_view module) const { return by_pattern(rank_pattern, module, rank); }

double PeftConfig::scale_of(std::string_view module) const {
  const double r = rank_of(module);
  return by_pattern(alpha_pattern, module, alpha) / (rslora ? std::sqrt(r) : r);
}

Result<PeftConfig> parse_peft_config(std::string_view text) {
  constexpr std::string_view kWhere = "adapter_config.json";
  auto json = parse_json(text, JsonLimits{.bytes_max = kConfigBytesMax, .depth_max = 16});
  if (!json) return within(kWhere, std::move(json).error());
  if (!json->is_object()) return fail(Code::kInvalidArgument, kWhere, ": must be a JSON object");
  HfFields fields(*json, std::string(kWhere));
  PeftConfig out;
  if (const std::string type = fields.string("peft_type", "LORA"); type != "LORA")
    fields.complain("peft_type", cat("is ", type, "; LORA is supported"), Code::kUnimplemented);
  out.rank = fields.int32("r");
  if (out.rank < 1 || out.rank > kLoraRankMax) fields.complain("r", cat("must be 1 to ", kLoraRankMax));
  out.alpha = fields.number("lora_alpha");
  out.rslora = fields.boolean("use_rslora", false);
  if (const std::string bias = fields.string("bias", "none"); bias != "none")
    fields.complain("bias", cat("is ", bias, "; adapters with biases are not supported"), Code::kUnimplemented);
  read_targets(fields, out);
  read_pattern(fields, "rank_pattern", out.rank_pattern, rank_value);
  read_pattern(fields, "alpha_pattern", out.alpha_pattern, [](const Json& v) { return v.as_double(); });
  for (size_t i = 0; i < json->keys.size(); i++) {
    const std::string& key = json->keys[i];
    if (any_of(kRead, key) || any_of(kHarmless, key) || holds_nothing(json->items[i])) continue;
    if (any_of(kLayers, key))
      out.every_layer = false;
    else
      fields.complain(key, "is not supported: the result would be wrong without it", Code::kUnimplemented);
  }
  BATON_OK(fields.status());
  return out;
}

}  // namespace baton::model
