#include "engine/pooling.h"

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "engine/limits.h"

namespace baton::engine {
namespace {

Result<Json> json_flag(std::string_view flag, const std::string& text) {
  auto json = parse_json(text);
  if (!json || !json->is_object())
    return fail(Code::kInvalidArgument, flag, " wants a JSON object", json ? std::string() : cat(": ", json.error().message));
  return json;
}

// "" and a Json null where there is no such file.
Result<Json> json_file(const std::filesystem::path& path) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) return Json{};
  BATON_TRY(const std::string text, read_file(path.string(), kSentenceFileBytesMax));
  auto json = parse_json(text);
  if (!json) return fail(Code::kInvalidArgument, path.string(), ": ", json.error().message);
  return json;
}

// A sentence-transformers directory lists its modules, of which one pools and one may normalise.
Result<bool> read_sentence_files(const std::filesystem::path& model, PoolingConfig& p) {
  BATON_TRY(const Json modules, json_file(model / "modules.json"));
  if (!modules.is_array()) return false;
  p.normalize = false;
  for (const Json& module : modules.items) {
    const Json *type = module.find("type"), *path = module.find("path");
    if (!type || !type->is_string()) continue;
    p.normalize |= type->text.ends_with(".Normalize");
    if (!type->text.ends_with(".Pooling") || !path || !path->is_string()) continue;
    const std::filesystem::path folder = path->text;
    if (folder.is_absolute() || path->text.find("..") != std::string::npos)
      return fail(Code::kInvalidArgument, "modules.json: a path leaves the model's directory");
    BATON_TRY(const Json pooling, json_file(model / folder / "config.json"));
    const auto is = [&](std::string_view key) { return pooling.find(key) && pooling.find(key)->as_bool() == true; };
    if (is("pooling_mode_cls_token"))
      p.pooling = Pooling::kCls;
    else if (is("pooling_mode_mean_tokens"))
      p.pooling = Pooling::kMean;
    else if (is("pooling_mode_lasttoken"))
      p.pooling = Pooling::kLast;
    else if (pooling.is_object())
      return fail(Code::kUnimplemented,
                  "the model's pooling mode is not supported; supported: cls_token, mean_tokens, lasttoken");
  }
  return true;
}

Result<> read_pooler_config(const std::string& text, PoolingConfig& p) {
  BATON_TRY(const Json json, json_flag("--pooler-config", text));
  for (size_t i = 0; i < json.keys.size(); ++i) {
    const std::string& key = json.keys[i];
    const Json& value = json.items[i];
    if (value.is_null()) continue;
    if (key == "pooling_type" || key == "seq_pooling_type") {
      std::string type(value.as_string().value_or(""));
      std::transform(type.begin(), type.end(), type.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
      if (type != "LAST" && type != "MEAN" && type != "CLS")
        return fail(Code::kUnimplemented, "--pooler-config: pooling_type '", value.text,
                    "' is not supported; supported: LAST, MEAN, CLS");
      p.pooling = type == "LAST" ? Pooling::kLast : type == "MEAN" ? Pooling::kMean : Pooling::kCls;
    } else if ((key == "normalize" || key == "use_activation") && value.is_bool()) {
      p.normalize = value.boolean;
    } else if (key == "dimensions" && value.as_int() && *value.as_int() > 0 && *value.as_int() <= INT32_MAX) {
      p.dimensions = static_cast<int32_t>(*value.as_int());
    } else {
      return fail(Code::kInvalidArgument, "--pooler-config: ", key, " is not supported, or not of its kind");
    }
  }
  return {};
}

Result<> read_overrides(const std::string& text, PoolingConfig& p) {
  BATON_TRY(const Json json, json_flag("--hf-overrides", text));
  if (const Json* is = json.find("is_matryoshka")) p.matryoshka = is->as_bool() == true;
  const Json* dimensions = json.find("matryoshka_dimensions");
  if (!dimensions) return {};
  for (const Json& d : dimensions->items) {
    const auto n = d.as_int();
    if (!n || *n < 1 || *n > INT32_MAX)
      return fail(Code::kInvalidArgument, "--hf-overrides: matryoshka_dimensions wants positive integers");
    p.matryoshka_dimensions.push_back(static_cast<int32_t>(*n));
  }
  p.matryoshka = true;
  return {};
}

}  // namespace

Result<PoolingConfig> pooling_config(const EngineConfig& c) {
  PoolingConfig p;
  BATON_TRY(const bool sentences, read_sentence_files(c.model, p));
  const bool embed = c.task == "embed" || c.task == "embedding" || c.convert == "embed";
  if (c.runner == "draft" || c.convert == "classify" || c.convert == "reward" || c.task == "classify" || c.task == "score" ||
      c.task == "reward")
    return fail(Code::kUnimplemented, "of poolers only embed is supported: --runner pooling --convert embed");
  if (c.runner == "generate" && embed) return fail(Code::kInvalidArgument, "--convert embed wants --runner pooling");
  p.on = c.runner == "pooling" || embed || (c.runner == "auto" && c.task == "auto" && sentences);
  if (!c.pooler_config.empty()) BATON_OK(read_pooler_config(c.pooler_config, p));
  if (!c.hf_overrides.empty()) BATON_OK(read_overrides(c.hf_overrides, p));
  return p;
}

}  // namespace baton::engine
