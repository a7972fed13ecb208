// config.json and generation_config.json of Hugging Face models (facts sheet engine.md 4.1, 4.4, 4.5).
// Absent keys take the default of transformers' own configuration classes; a value we do not implement is an error, never
// ignored.
#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "model/limits.h"
#include "model/weight_data.h"

namespace baton::model {
namespace {

// Reads fields; remembers the first that is missing or of the wrong kind, so that a caller asks for many and checks once.
class Fields {
 public:
  Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  // null counts as absent, as in transformers.
  const Json* find(std::string_view key) const {
    const Json* v = json_.find(key);
    return v && v->is_null() ? nullptr : v;
  }
  int32_t int32(std::string_view key, std::optional<int32_t> absent = std::nullopt) {
    const Json* v = need(key, absent.has_value());
    if (!v) return absent.value_or(0);
    const auto n = v->as_int();
    if (!n || *n < INT32_MIN || *n > INT32_MAX) complain(key, "must be a 32-bit integer");
    return n ? static_cast<int32_t>(std::clamp<int64_t>(*n, INT32_MIN, INT32_MAX)) : 0;
  }
  double number(std::string_view key, std::optional<double> absent = std::nullopt) {
    const Json* v = need(key, absent.has_value());
    if (!v) return absent.value_or(0);
    const auto d = v->as_double();
    if (!d) complain(key, "must be a finite number");
    return d.value_or(0);
  }
  bool boolean(std::string_view key, bool absent) {
    const Json* v = find(key);
    if (!v) return absent;
    const auto b = v->as_bool();
    if (!b) complain(key, "must be true or false");
    return b.value_or(absent);
  }
  std::string string(std::string_view key, std::string_view absent) {
    const Json* v = find(key);
    if (!v) return std::string(absent);
    const auto s = v->as_string();
    if (!s) complain(key, "must be a string");
    return std::string(s.value_or(absent));
  }
  // An id or a list of ids.
  std::vector<int32_t> ids(std::string_view key) {
    const Json* v = find(key);
    if (!v) return {};
    std::vector<int32_t> out;
    const std::span<const Json> list = v->is_array() ? std::span<const Json>(v->items) : std::span<const Json>(v, 1);
    for (const Json& item : list) {
      const auto n = item.as_int();
      if (!n || *n < 0 || *n > INT32_MAX) {
        complain(key, "must be a token id or a list of them");
        return {};
      }
      if (std::ranges::find(out, *n) == out.end()) out.push_back(static_cast<int32_t>(*n));
    }
    return out;
  }
  void complain(std::string_view key, std::string_view what, Code code = Code::kInvalidArgument) {
    if (!error_) error_ = Error{code, cat(where_, ": \"", key, "\" ", what)};
  }
  Result<> status() const {
    if (error_) return std::unexpected(*error_);
    return {};
  }

 private:
  const Json* need(std::string_view key, bool optional) {
    const Json* v = find(key);
    if (!v && !optional) complain(key, "is missing");
    return v;
  }
  const Json& json_;
  std::string where_;
  std::optional<Error> error_;
};

Result<Json> parse_object(std::string_view text, std::string_view where) {
  auto json = parse_json(text, JsonLimits{.bytes_max = kConfigBytesMax});
  if (!json) return within(where, std::move(json).error());
  if (!json->is_object()) return fail(Code::kInvalidArgument, where, ": must be a JSON object, is ", json->kind_name());
  return json;
}

// YaRN's magnitude correction when the file gives mscale and mscale_all_dim: their quotient. 0 leaves the default formula.
double yarn_attention_factor(Fields& rope, double factor) {
  if (rope.find("attention_factor")) return rope.number("attention_factor");
  const double mscale = rope.number("mscale", 0.0), all = rope.number("mscale_all_dim", 0.0);
  if (mscale == 0 || all == 0 || factor <= 1) return 0;
  return (0.1 * mscale * std::log(factor) + 1) / (0.1 * all * std::log(factor) + 1);
}

// rope_scaling (before transformers 5) or rope_parameters (since): one flat object. theta may be inside or beside it.
Result<> read_rope(Fields& top, ModelConfig& c) {
  c.rope_theta = top.number("rope_theta", 10000.0);
  BATON_OK(top.status());
  const Json* json = top.find("rope_parameters");
  if (!json) json = top.find("rope_scaling");
  if (!json) return {};
  if (!json->is_object()) return fail(Code::kInvalidArgument, "config.json: rope_scaling must be an object");
  Fields rope(*json, "config.json: rope_scaling");
  if (rope.find("full_attention") || rope.find("sliding_attention")) {
    return fail(Code::kUnimplemented, "config.json: different rope parameters for different layers are not supported");
  }
  c.rope_theta = rope.number("rope_theta", c.rope_theta);
  if (rope.number("partial_rotary_factor", 1.0) != 1)
    rope.complain("partial_rotary_factor", "must be 1 here", Code::kUnimplemented);
  const std::string type = rope.string("rope_type", rope.string("type", "default"));
  if (type == "default") return rope.status();
  c.rope_factor = rope.number("factor");
  c.rope_original_context = rope.number("original_max_position_embeddings", static_cast<double>(c.context));
  if (type == "linear") {
    c.rope_scaling = RopeScaling::kLinear;
  } else if (type == "llama3") {
    c.rope_scaling = RopeScaling::kLlama3;
    c.rope_low_freq_factor = rope.number("low_freq_factor");
    c.rope_high_freq_factor = rope.number("high_freq_factor");
  } else if (type == "yarn") {
    c.rope_scaling = RopeScaling::kYarn;
    c.yarn_beta_fast = rope.number("beta_fast", 32.0);
    c.yarn_beta_slow = rope.number("beta_slow", 1.0);
    c.rope_attention_factor = yarn_attention_factor(rope, c.rope_factor);
    if (!rope.boolean("truncate", true)) rope.complain("truncate", "must be true here", Code::kUnimplemented);
  } else {
    rope.complain("rope_type", cat("is \"", type, "\"; default, linear, llama3 and yarn are supported"), Code::kUnimplemented);
  }
  return rope.status();
}

// One window for all layers or none; transformers also knows models where some layers slide and others do not.
void read_window(Fields& top, ModelConfig& c, bool qwen2) {
  if (const Json* types = top.find("layer_types"); types && types->is_array()) {
    const auto sliding = std::ranges::count_if(types->items, [](const Json& t) { return t.as_string() == "sliding_attention"; });
    const auto full = std::ranges::count_if(types->items, [](const Json& t) { return t.as_string() == "full_attention"; });
    const auto all = static_cast<std::ptrdiff_t>(types->items.size());
    if (full != all && sliding != all) {
      return top.complain("layer_types", "mixes kinds of attention, which is not supported", Code::kUnimplemented);
    }
    if (full == all) return;
  } else if (qwen2) {
    if (!top.boolean("use_sliding_window", false)) return;
    const int32_t first = top.int32("max_window_layers", 28);
    if (first >= c.layers) return;
    if (first > 0) {
      return top.complain("max_window_layers", "mixes sliding and full attention, which is not supported", Code::kUnimplemented);
    }
  }
  c.sliding_window = top.int32("sliding_window", 0);
}

Result<> read_generation(std::string_view text, ModelConfig& c) {
  BATON_TRY(const Json json, parse_object(text, "generation_config.json"));
  Fields f(json, "generation_config.json");
  if (auto eos = f.ids("eos_token_id"); !eos.empty()) c.eos_ids = std::move(eos);
  if (f.find("temperature")) c.gen_temperature = f.number("temperature");
  if (f.find("top_p")) c.gen_top_p = f.number("top_p");
  if (f.find("min_p")) c.gen_min_p = f.number("min_p");
  if (f.find("repetition_penalty")) c.gen_repetition_penalty = f.number("repetition_penalty");
  if (f.find("top_k")) c.gen_top_k = f.int32("top_k");
  if (f.find("max_new_tokens")) c.gen_max_new_tokens = f.int32("max_new_tokens");
  return f.status();
}

Result<std::string> family_of(Fields& top) {
  const std::string type = top.string("model_type", "");
  BATON_OK(top.status());
  if (type == "llama" || type == "qwen2") return type;
  if (type == "mistral") return std::string("llama");  // the same mathematics
  return fail(Code::kUnimplemented, "config.json: model_type \"", type, "\" is not supported; supported: llama, mistral, qwen2");
}

}  // namespace

Result<HfConfig> parse_hf_config(std::string_view config_json, std::string_view generation_config_json) {
  BATON_TRY(const Json json, parse_object(config_json, "config.json"));
  Fields top(json, "config.json");
  HfConfig out;
  ModelConfig& c = out.config;
  BATON_TRY(c.family, family_of(top));
  const bool mistral = top.string("model_type", "") == "mistral", qwen2 = c.family == "qwen2";
  if (const Json* q = top.find("quantization_config")) {
    const Json* method = q->find("quant_method");
    return fail(Code::kUnimplemented, "config.json: quantised weights (quant_method ", method ? method->text : "unknown",
                ") are not supported in this format; take the BF16 model, or a GGUF file for quantised weights");
  }
  c.layers = top.int32("num_hidden_layers");
  c.hidden = top.int32("hidden_size");
  c.ffn = top.int32("intermediate_size");
  c.heads = top.int32("num_attention_heads");
  c.kv_heads = top.int32("num_key_value_heads", mistral ? 8 : c.heads);
  c.head_dim = top.int32("head_dim", c.heads > 0 ? c.hidden / c.heads : 0);
  c.vocab = top.int32("vocab_size");
  c.context = top.int32("max_position_embeddings", mistral ? 131072 : qwen2 ? 32768 : 2048);
  c.rms_eps = static_cast<float>(top.number("rms_norm_eps", 1e-6));
  c.eos_ids = top.ids("eos_token_id");
  if (top.find("tie_word_embeddings")) out.tied = top.boolean("tie_word_embeddings", false);
  if (const std::string act = top.string("hidden_act", "silu"); act != "silu") {
    top.complain("hidden_act", cat("is \"", act, "\"; only silu is supported"), Code::kUnimplemented);
  }
  if (top.number("partial_rotary_factor", 1.0) != 1)
    top.complain("partial_rotary_factor", "must be 1 here", Code::kUnimplemented);
  read_window(top, c, qwen2);
  BATON_OK(top.status());
  BATON_OK(read_rope(top, c));
  if (!generation_config_json.empty()) BATON_OK(read_generation(generation_config_json, c));
  if (auto ok = check_config(c); !ok) return within("config.json", std::move(ok).error());
  return out;
}

}  // namespace baton::model
