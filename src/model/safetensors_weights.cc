// A Hugging Face directory's texts and safetensors shards to WeightData (facts sheet engine.md 4.1).
#include <algorithm>
#include <unordered_map>

#include "base/json.h"
#include "model/expert_stacks.h"
#include "model/families/family.h"
#include "model/limits.h"
#include "model/quantised.h"
#include "model/safetensors.h"

namespace baton::model {
namespace {

constexpr Rename kTop[] = {
    {"model.embed_tokens.weight", "embed.weight"}, {"model.norm.weight", "norm.weight"}, {"lm_head.weight", "lm_head.weight"}};
constexpr Rename kLayer[] = {
    {"input_layernorm.weight", "attn_norm.weight"}, {"self_attn.q_proj.weight", "q_proj.weight"},
    {"self_attn.k_proj.weight", "k_proj.weight"},   {"self_attn.v_proj.weight", "v_proj.weight"},
    {"self_attn.o_proj.weight", "o_proj.weight"},   {"self_attn.q_proj.bias", "q_proj.bias"},
    {"self_attn.k_proj.bias", "k_proj.bias"},       {"self_attn.v_proj.bias", "v_proj.bias"},
    {"self_attn.o_proj.bias", "o_proj.bias"},       {"self_attn.q_norm.weight", "q_norm.weight"},
    {"self_attn.k_norm.weight", "k_norm.weight"},   {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "gate_proj.weight"},   {"mlp.up_proj.weight", "up_proj.weight"},
    {"mlp.down_proj.weight", "down_proj.weight"},   {"mlp.gate.weight", "router.weight"}};
constexpr Rename kExpert[] = {
    {"gate_proj.weight", "gate_proj.weight"}, {"up_proj.weight", "up_proj.weight"}, {"down_proj.weight", "down_proj.weight"}};

using WeightMap = std::unordered_map<std::string, std::string>;  // tensor -> file

Result<TensorRef> to_ref(const Safetensor& t, const std::string& neutral) {
  if (!t.dtype) {
    return fail(Code::kUnimplemented, "tensor ", t.name, " is ", t.dtype_text,
                ", which is not supported; supported: F32, F16, BF16");
  }
  if (t.shape.empty() || t.shape.size() > 2 || t.bytes.empty()) {
    return fail(Code::kInvalidArgument, "tensor ", t.name, " is no vector or matrix");
  }
  TensorRef ref{.name = neutral, .dtype = *t.dtype, .cols = t.shape.back(), .bytes = t.bytes};
  if (t.shape.size() == 2) ref.rows = t.shape[0];
  return ref;
}

Result<> take_shard(const HfFiles::Shard& shard, const WeightMap* weight_map, QuantisedTensors& quantised, ExpertStacks& stacks,
                    WeightData& data) {
  const Family& family = *find_family(data.config.family);
  const Names names{.top = kTop,
                    .prefix = "model.layers.",
                    .layer = kLayer,
                    .family_layer = family.hf_layer,
                    .expert_prefix = "mlp.experts.",
                    .expert = kExpert};
  auto tensors = parse_safetensors(shard.bytes);
  if (!tensors) return within(shard.name, std::move(tensors).error());
  for (const Safetensor& t : *tensors) {
    if (t.name.ends_with("rotary_emb.inv_freq")) continue;  // a table old checkpoints carry; we compute it
    if (weight_map) {
      const auto home = weight_map->find(t.name);
      if (home == weight_map->end() || home->second != shard.name) continue;  // the index decides which copy counts
    }
    if (std::ranges::any_of(family.hf_ignored, [&](std::string_view begin) { return t.name.starts_with(begin); })) continue;
    const auto neutral = [&](std::string_view n) { return neutral_name(text_name(n, family), names); };
    const std::string name = neutral(t.name);
    BATON_TRY(const bool stacked, stacks.take(t, name));
    if (stacked) continue;
    BATON_TRY(const bool taken, quantised.take(t, neutral));
    if (taken) continue;
    if (name.empty()) {
      return fail(Code::kUnimplemented, shard.name, ": tensor ", t.name, " is no part of the ", data.config.family,
                  " family as supported here; the result would be wrong without it");
    }
    BATON_TRY(TensorRef ref, to_ref(t, name));
    if (!data.tensors.emplace(name, std::move(ref)).second) {
      return fail(Code::kInvalidArgument, shard.name, ": tensor ", t.name, " occurs twice");
    }
  }
  return {};
}

// One more than the largest id of the vocabulary or the added tokens. 0 for what is no tokenizer of ours; text/ says what is
// wrong.
Result<int64_t> token_count(std::string_view tokenizer) {
  auto json = parse_json(tokenizer, JsonLimits{.bytes_max = kTokenizerBytesMax});
  if (!json) return within("tokenizer.json", std::move(json).error());
  int64_t last = -1;
  if (const Json* vocab = json->find_path({"model", "vocab"}); vocab && vocab->is_object()) {
    for (const Json& id : vocab->items) last = std::max(last, id.as_int().value_or(-1));
  }
  if (const Json* added = json->find("added_tokens"); added && added->is_array()) {
    for (const Json& token : added->items) {
      if (const Json* id = token.find("id")) last = std::max(last, id->as_int().value_or(-1));
    }
  }
  return std::min<int64_t>(last, kVocabMax) + 1;
}

Result<WeightMap> parse_index(std::string_view text) {
  auto json = parse_json(text, JsonLimits{.bytes_max = kIndexBytesMax});
  if (!json) return within("model.safetensors.index.json", std::move(json).error());
  const Json* map = json->find("weight_map");
  if (!map || !map->is_object()) return fail(Code::kInvalidArgument, "model.safetensors.index.json: \"weight_map\" is missing");
  WeightMap out;
  for (size_t i = 0; i < map->items.size(); i++) {
    const Json& file = map->items[i];
    if (!file.is_string() || !file.text.ends_with(".safetensors") ||
        file.text.find_first_of(std::string_view("/\0", 2)) != file.text.npos) {
      return fail(Code::kInvalidArgument,
                  "model.safetensors.index.json: weight_map must name .safetensors files of the same directory");
    }
    out[map->keys[i]] = file.text;
  }
  return out;
}

}  // namespace

std::string text_name(std::string_view name, const Family& family) {
  for (const Rename& prefix : family.hf_prefixes)
    if (name.starts_with(prefix.from)) return cat(prefix.to, name.substr(prefix.from.size()));
  return std::string(name);
}

Result<std::string> chat_template_of(std::string_view tokenizer_config) {
  if (tokenizer_config.empty()) return std::string();
  auto json = parse_json(tokenizer_config);
  if (!json) return within("tokenizer_config.json", std::move(json).error());
  const Json* found = json->find("chat_template");
  if (!found || found->is_null()) return std::string();
  if (found->is_string()) return found->text;
  if (!found->is_array()) return fail(Code::kInvalidArgument, "tokenizer_config.json: chat_template must be a string or a list");
  const Json* chosen = nullptr;
  for (const Json& item : found->items) {
    const Json *name = item.find("name"), *text = item.find("template");
    if (!text || !text->is_string()) return fail(Code::kInvalidArgument, "tokenizer_config.json: a chat_template has no text");
    if (!chosen || (name && name->as_string() == "default")) chosen = text;
  }
  return chosen ? chosen->text : std::string();
}

Result<std::vector<std::string>> shard_names(std::string_view index_json) {
  BATON_TRY(const WeightMap map, parse_index(index_json));
  std::vector<std::string> names;
  for (const auto& [tensor, file] : map) names.push_back(file);
  std::ranges::sort(names);
  const auto repeated = std::ranges::unique(names);
  names.erase(repeated.begin(), repeated.end());
  if (names.size() > kShardsMax)
    return fail(Code::kResourceExhausted, "model.safetensors.index.json: more than ", kShardsMax, " files");
  return names;
}

Result<WeightData> read_hf(HfFiles files) {
  WeightData data;
  BATON_TRY(HfConfig parsed, parse_hf_config(files.config, files.generation_config));
  data.config = std::move(parsed.config);
  data.config.name = files.name;
  if (files.tokenizer.empty()) {
    return fail(Code::kInvalidArgument, "tokenizer.json is missing; save it beside the weights with transformers' ",
                "AutoTokenizer.from_pretrained(...).save_pretrained(...)");
  }
  BATON_TRY(const int64_t tokens, token_count(files.tokenizer));
  data.config.tokens = static_cast<int32_t>(std::min<int64_t>(tokens, data.config.vocab));
  BATON_TRY(data.chat_template, chat_template_of(files.tokenizer_config));
  if (!files.chat_template.empty()) data.chat_template = std::move(files.chat_template);
  data.tokenizer_json = std::move(files.tokenizer);
  data.tokenizer_config_json = std::move(files.tokenizer_config);
  std::optional<WeightMap> weight_map;
  if (!files.index.empty()) {
    BATON_TRY(weight_map, parse_index(files.index));
  }
  QuantisedTensors quantised(parsed.quantisation);
  ExpertStacks stacks;
  for (const auto& shard : files.shards) BATON_OK(take_shard(shard, weight_map ? &*weight_map : nullptr, quantised, stacks, data));
  BATON_OK(quantised.finish(data.tensors));
  BATON_OK(stacks.finish(data.config, data.tensors));
  const bool has_head = data.tensors.contains("lm_head.weight");
  data.config.tied_embeddings = parsed.tied.value_or(!has_head);
  if (data.config.tied_embeddings) data.tensors.erase("lm_head.weight");  // some files store the shared matrix twice
  BATON_OK(split_fused(data));
  data.config.qkv_bias = data.tensors.contains("layers.0.q_proj.bias");
  data.config.o_bias = data.tensors.contains("layers.0.o_proj.bias");
  BATON_OK(check_weights(data));
  return data;
}

}  // namespace baton::model
