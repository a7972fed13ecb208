#pragma once
// What BodyReader must find, said the slow way: over base/json.h's tree, in document order. For its test and its fuzzer.
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "picker/body_blocks.h"
#include "picker/body_reader.h"

namespace baton::picker {

struct BodyReference {
  BodyFacts facts;
  std::array<std::string, 3> text;  // tools, system, conversation: the bytes that are cut into blocks
  std::string without_cuts;         // members of the root in order, raw, kv_transfer_params left out

  static bool one_of(std::string_view key, std::initializer_list<std::string_view> names) {
    for (std::string_view name : names) {
      if (key == name) return true;
    }
    return false;
  }

  // nullopt: refused.
  static std::optional<BodyReference> read(std::string_view body, Shape shape) {
    const auto root = parse_json(body, {.bytes_max = 128u << 20, .nodes_max = kBodyValuesMax, .depth_max = kBodyDepthMax});
    if (!root || !root->is_object()) return std::nullopt;
    BodyReference r;
    r.body = body;
    r.shape = shape;
    size_t models = 0, cuts = 0;
    for (size_t i = 0; i < root->keys.size(); ++i) {
      const std::string& key = root->keys[i];
      const Json& value = root->items[i];
      if (key == "model") {
        if (!value.is_string() && !value.is_null()) return std::nullopt;
        if (value.text.size() > kModelNameBytesMax || ++models > kRangesMax) return std::nullopt;
        r.facts.model_values.push_back({value.begin, value.end});
      }
      if (key == "kv_transfer_params") {
        ++cuts;
        r.cut = true;
      } else {
        r.without_cuts += cat(json_string(key), ":", value.raw(body), ",");
      }
      r.section = 2;
      r.member(key, value);
    }
    if (cuts > kRangesMax) return std::nullopt;
    return r;
  }

  void member(std::string_view key, const Json& v) {
    const bool openai = one_of(key, {"functions", "documents", "chat_template", "chat_template_kwargs"});
    const bool anthropic = shape == Shape::kAnthropic || shape == Shape::kAnthropicCount;
    if (key == "model") {
      facts.has_model = v.is_string();
      facts.model = v.text;
    }
    if (key == "stream") facts.stream = v.as_bool().value_or(false);
    if (key == "stream_options") facts.include_usage = last_bool(v, "include_usage");
    if (one_of(key, {"max_tokens", "max_completion_tokens", "max_output_tokens"})) facts.max_tokens = number(v);
    if (key == "n") facts.n = number(v).value_or(1);
    if (key == "priority") facts.priority = number(v);
    if (key == "user") facts.user = v.is_string() ? v.text.substr(0, kUserBytesMax) : "";
    if (key == "lora_path") facts.lora = v.is_string() ? v.text.substr(0, kModelNameBytesMax) : "";
    if (key == "cache_salt") salted(v);
    if (key == "sampling_params" && v.is_object()) sampling(v);
    if ((key == "tools" && (shape == Shape::kChat || shape == Shape::kResponses || anthropic)) || (openai && shape == Shape::kChat)) {
      section = 0;
      if (!v.is_null()) text[0] += v.raw(body);
    }
    if ((key == "system" && anthropic) || (key == "instructions" && shape == Shape::kResponses)) {
      section = 1;
      content(v);
    }
    const bool chatty = shape == Shape::kChat || shape == Shape::kEmbeddings || anthropic;
    if ((key == "messages" && chatty) || (key == "items" && shape == Shape::kConversations) ||
        (key == "input" && shape == Shape::kResponses)) {
      if (v.is_string() && shape == Shape::kResponses) text[2] += v.text;
      if (v.is_array()) facts.messages += v.items.size();
      for (const Json& item : v.items) {
        if (v.is_array() && item.is_object()) message(item);
      }
    }
    const bool prompted = shape == Shape::kCompletions || shape == Shape::kImages;
    if ((key == "prompt" && prompted) || (key == "input" && shape == Shape::kEmbeddings) ||
        (key == "token_ids" && shape == Shape::kVllmGenerate) || (one_of(key, {"text", "input_ids"}) && shape == Shape::kSglangGenerate))
      prompt(v, false);
    if (key == "features" && shape == Shape::kVllmGenerate && !v.is_null()) facts.multimodal = true;
    if (shape == Shape::kSglangGenerate && one_of(key, {"image_data", "audio_data", "video_data"}))
      asset(v, key == "image_data" ? AssetKind::kImage : key == "audio_data" ? AssetKind::kAudio : AssetKind::kVideo);
  }

 private:
  std::string_view body;
  Shape shape = Shape::kChat;
  size_t section = 2;
  bool cut = false;

  static std::optional<int64_t> number(const Json& v) { return v.text.size() > kNumberBytesMax ? std::nullopt : v.as_int(); }
  static bool last_bool(const Json& v, std::string_view key) {
    bool out = false;
    for (size_t i = 0; i < v.keys.size(); ++i) {
      if (v.keys[i] == key && v.items[i].is_bool()) out = v.items[i].boolean;
    }
    return out;
  }
  void salted(const Json& v) {
    facts.salt = v.is_string() && !v.text.empty() ? hash(v.text) | 1 : 0;
  }
  static uint64_t hash(std::string_view s) { return block_id(s.data(), s.size()); }
  void sampling(const Json& v) {
    for (size_t i = 0; i < v.keys.size(); ++i) {
      if (!v.items[i].is_number()) continue;
      if (one_of(v.keys[i], {"max_tokens", "max_new_tokens"})) facts.max_tokens = number(v.items[i]);
      if (v.keys[i] == "n") facts.n = number(v.items[i]).value_or(1);
    }
  }
  void prompt(const Json& v, bool item) {
    if (v.is_string()) text[section] += v.text;
    if (v.is_number() && item) {
      if (const auto n = number(v)) {
        const auto small = static_cast<uint32_t>(*n);
        text[section].append(reinterpret_cast<const char*>(&small), sizeof small);
        facts.token_ids.push_back(small);
        ++facts.ids;
      }
    }
    if (!v.is_array()) return;
    for (const Json& inner : v.items) prompt(inner, true);
  }
  void message(const Json& v) {
    for (size_t i = 0; i < v.keys.size(); ++i) {
      const std::string& key = v.keys[i];
      const Json& value = v.items[i];
      if (one_of(key, {"role", "arguments", "name", "reasoning_content"}) && value.is_string()) text[section] += value.text;
      if (one_of(key, {"content", "output"})) content(value);
      if (key == "tool_calls" && !value.is_null()) text[section] += value.raw(body);
    }
  }
  void content(const Json& v) {
    if (v.is_string()) text[section] += v.text;
    if (v.is_object()) part(v);
    if (!v.is_array()) return;
    for (const Json& item : v.items) {
      if (item.is_string()) text[section] += item.text;
      if (item.is_object()) part(item);
    }
  }
  void part(const Json& v) {
    for (size_t i = 0; i < v.keys.size(); ++i) {
      const std::string& key = v.keys[i];
      const Json& value = v.items[i];
      if (one_of(key, {"text", "thinking", "refusal"}) && value.is_string()) text[section] += value.text;
      if (key == "content") content(value);
      if (key == "input" && !value.is_null()) text[section] += value.raw(body);
      if (one_of(key, {"image_url", "image", "source"})) asset(value, AssetKind::kImage);
      if (one_of(key, {"audio_url", "audio", "input_audio"})) asset(value, AssetKind::kAudio);
      if (one_of(key, {"video_url", "video"})) asset(value, AssetKind::kVideo);
      if (one_of(key, {"file", "file_data"})) asset(value, AssetKind::kFile);
    }
  }
  static void strings(const Json& v, std::string& out) {
    if (v.is_string()) out += v.text;
    for (const Json& item : v.items) strings(item, out);
  }
  void asset(const Json& v, AssetKind kind) {
    std::string all;
    strings(v, all);
    if (all.empty()) return;
    const int tokens = kind == AssetKind::kVideo ? kVideoTokens : kind == AssetKind::kAudio ? kAudioTokens : kImageTokens;
    facts.multimodal = true;
    facts.asset_tokens += tokens;
    const bool kept = facts.assets.size() < kAssetsMax;
    if (kept) facts.assets.push_back({hash(all), kind, all.size()});
    const auto low = static_cast<uint32_t>(hash(all));
    for (int i = 0; i < (kept ? tokens : 1); ++i) text[section].append(reinterpret_cast<const char*>(&low), sizeof low);
    asset_bytes += kept ? tokens * 4 : 4;
  }

 public:
  int64_t asset_bytes = 0;
  // What differs, "" if nothing. The reader has read the same body whole.
  std::string compare(const BodyReader& reader) const {
    const BodyFacts& got = reader.facts();
    if (got.model != facts.model || got.has_model != facts.has_model) return cat("model: ", got.model, " for ", facts.model);
    if (got.model_values != facts.model_values) return "model ranges";
    if (got.stream != facts.stream || got.include_usage != facts.include_usage) return "stream";
    if (got.max_tokens != facts.max_tokens || got.n != facts.n || got.priority != facts.priority) return "numbers";
    if (got.user != facts.user || got.lora != facts.lora || got.salt != facts.salt) return "user, lora, salt";
    if (got.messages != facts.messages || got.ids != facts.ids || got.token_ids != facts.token_ids) return "messages, ids";
    if (got.assets != facts.assets || got.multimodal != facts.multimodal || got.asset_tokens != facts.asset_tokens) return "assets";
    const auto bytes = static_cast<int64_t>(text[0].size() + text[1].size() + text[2].size());
    if (got.text_bytes + 4 * got.ids + asset_bytes != bytes) return cat("text bytes: ", got.text_bytes, " for ", bytes);
    return {};
  }
  std::vector<uint64_t> chain(uint64_t seed, std::string_view model, size_t block_bytes, size_t blocks_max) const {
    std::vector<uint64_t> out;
    uint64_t parent = mix_chain(hash(model), seed);
    parent = mix_chain(facts.salt, parent);
    parent = mix_chain(hash(facts.lora), parent);
    for (size_t s = 0; s < text.size(); ++s) {
      std::string_view left = text[s];
      size_t here = 0;
      while (left.size() >= block_bytes && here < blocks_max) {
        if (out.size() < blocks_max) out.push_back(parent = mix_chain(hash(left.substr(0, block_bytes)), parent));
        left.remove_prefix(block_bytes);
        ++here;
      }
      if (s < 2 && here < blocks_max && !left.empty()) parent = mix_chain(hash(left), parent);
    }
    return out;
  }
};

}  // namespace baton::picker
