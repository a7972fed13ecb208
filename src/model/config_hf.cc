// config.json and generation_config.json of Hugging Face models (facts sheet engine.md 4.1, 4.4, 4.5).
// Absent keys take the default of transformers' own configuration classes; a value we do not implement is an error, never
// ignored.
#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "model/families/family.h"

namespace baton::model {
namespace {

Result<Json> parse_object(std::string_view text, std::string_view where) {
  auto json = parse_json(text, JsonLimits{.bytes_max = kConfigBytesMax});
  if (!json) return within(where, std::move(json).error());
  if (!json->is_object()) return fail(Code::kInvalidArgument, where, ": must be a JSON object, is ", json->kind_name());
  return json;
}

// YaRN's magnitude correction when the file gives mscale and mscale_all_dim: their quotient. 0 leaves the default formula.
double yarn_attention_factor(HfFields& rope, double factor) {
  if (rope.find("attention_factor")) return rope.number("attention_factor");
  const double mscale = rope.number("mscale", 0.0), all = rope.number("mscale_all_dim", 0.0);
  if (mscale == 0 || all == 0 || factor <= 1) return 0;
  return (0.1 * mscale * std::log(factor) + 1) / (0.1 * all * std::log(factor) + 1);
}

// LongRoPE: divisors of each frequency, one list for prompts within the original context and one beyond.
void read_longrope(HfFields& top, HfFields& rope, ModelConfig& c) {
  c.rope_scaling = RopeScaling::kLongRope;
  c.rope_short = rope.numbers("short_factor");
  c.rope_long = rope.numbers("long_factor");
  c.rope_original_context = rope.number("original_max_position_embeddings",
                                        top.number("original_max_position_embeddings", static_cast<double>(c.context)));
  c.rope_factor = rope.number("factor", c.rope_original_context > 0 ? c.context / c.rope_original_context : 1.0);
  if (rope.find("attention_factor")) c.rope_attention_factor = rope.number("attention_factor");
}

// One flat object of rope parameters.
Result<> read_rope_object(HfFields& top, const Json& json, const Family& family, ModelConfig& c) {
  if (!json.is_object()) return fail(Code::kInvalidArgument, "config.json: rope_scaling must be an object");
  HfFields rope(json, "config.json: rope_scaling");
  c.rope_theta = rope.number("rope_theta", c.rope_theta);
  const double part = rope.number("partial_rotary_factor", top.number("partial_rotary_factor", 1.0));
  if (part != 1 && !family.partial_rotary) rope.complain("partial_rotary_factor", "must be 1 here", Code::kUnimplemented);
  if (part != 1) c.rope_dims = static_cast<int32_t>(std::clamp(part, 0.0, 1.0) * c.head_dim);
  const std::string type = rope.string("rope_type", rope.string("type", "default"));
  if (type == "default") return rope.status();
  if (type == "longrope" || rope.find("long_factor")) {  // "su" and "yarn" in the first Phi-3 files
    read_longrope(top, rope, c);
    return rope.status();
  }
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
    c.yarn_truncate = rope.boolean("truncate", true);
  } else {
    rope.complain("rope_type", cat("is \"", type, "\"; default, linear, llama3, yarn and longrope are supported"),
                  Code::kUnimplemented);
  }
  return rope.status();
}

// rope_scaling (before transformers 5) or rope_parameters (since): one flat object, or one for the layers that see all and one
// for those that slide. theta may be inside or beside it.
Result<> read_rope(HfFields& top, const Family& family, double theta, ModelConfig& c) {
  c.rope_theta = top.number("rope_theta", theta);
  if (const double part = top.number("partial_rotary_factor", 1.0); part != 1) {
    if (!family.partial_rotary) top.complain("partial_rotary_factor", "must be 1 here", Code::kUnimplemented);
    c.rope_dims = static_cast<int32_t>(std::clamp(part, 0.0, 1.0) * c.head_dim);
  }
  BATON_OK(top.status());
  const Json* json = top.find("rope_parameters");
  if (!json) json = top.find("rope_scaling");
  if (!json) return {};
  const Json *all = json->find("full_attention"), *sliding = json->find("sliding_attention");
  if (!all && !sliding) return read_rope_object(top, *json, family, c);
  if (!all || !sliding || !all->is_object() || !sliding->is_object())
    return fail(Code::kInvalidArgument,
                "config.json: rope_parameters must hold full_attention and sliding_attention, both objects");
  HfFields local(*sliding, "config.json: rope_parameters.sliding_attention");
  c.rope_local_theta = local.number("rope_theta", c.rope_theta);
  if (const std::string type = local.string("rope_type", "default"); type != "default")
    local.complain("rope_type", cat("is \"", type, "\"; sliding layers turn by default rules alone"), Code::kUnimplemented);
  BATON_OK(local.status());
  return read_rope_object(top, *all, family, c);
}

Result<> read_generation(std::string_view text, ModelConfig& c) {
  BATON_TRY(const Json json, parse_object(text, "generation_config.json"));
  HfFields f(json, "generation_config.json");
  if (auto eos = f.ids("eos_token_id"); !eos.empty()) c.eos_ids = std::move(eos);
  if (f.find("temperature")) c.gen_temperature = f.number("temperature");
  if (f.find("top_p")) c.gen_top_p = f.number("top_p");
  if (f.find("min_p")) c.gen_min_p = f.number("min_p");
  if (f.find("repetition_penalty")) c.gen_repetition_penalty = f.number("repetition_penalty");
  if (f.find("top_k")) c.gen_top_k = f.int32("top_k");
  if (f.find("max_new_tokens")) c.gen_max_new_tokens = f.int32("max_new_tokens");
  return f.status();
}

Result<HfFamily> family_of(HfFields& top) {
  const std::string type = top.string("model_type", "");
  BATON_OK(top.status());
  const HfFamily found = find_hf_family(type);
  if (!found.family)
    return fail(Code::kUnimplemented, "config.json: model_type \"", type, "\" is not supported; supported: ", known_hf_types());
  return found;
}

void read_shape(HfFields& top, const HfType& type, ModelConfig& c) {
  c.layers = top.int32("num_hidden_layers");
  c.hidden = top.int32("hidden_size");
  c.ffn = top.int32("intermediate_size");
  const auto required = [](int32_t absent) { return absent > 0 ? std::optional(absent) : std::nullopt; };
  c.heads = top.int32("num_attention_heads", required(type.heads));
  c.kv_heads = top.int32("num_key_value_heads", type.kv_heads > 0 ? type.kv_heads : c.heads);
  c.head_dim = top.int32("head_dim", type.head_dim > 0 ? type.head_dim : c.heads > 0 ? c.hidden / c.heads : 0);
  c.vocab = top.int32("vocab_size", required(type.vocab));
  c.context = top.int32("max_position_embeddings", type.context);
  c.rms_eps = static_cast<float>(top.number("rms_norm_eps", type.eps));
  c.eos_ids = top.ids("eos_token_id");
}

}  // namespace

Result<HfConfig> parse_hf_config(std::string_view config_json, std::string_view generation_config_json) {
  BATON_TRY(const Json json, parse_object(config_json, "config.json"));
  HfFields whole(json, "config.json");
  HfConfig out;
  ModelConfig& c = out.config;
  BATON_TRY(const HfFamily found, family_of(whole));
  const Json* text = found.type->nested ? whole.find("text_config") : &json;
  if (!text || !text->is_object()) return fail(Code::kInvalidArgument, "config.json: \"text_config\" must be an object");
  HfFields top(*text, "config.json");
  c.family = found.family->name;
  BATON_TRY(out.quantisation, parse_quantisation(json));
  c.fp8_cache = out.quantisation.fp8_cache;
  read_shape(top, *found.type, c);
  if (c.eos_ids.empty()) c.eos_ids = whole.ids("eos_token_id");
  if (top.find("tie_word_embeddings")) out.tied = top.boolean("tie_word_embeddings", false);
  BATON_OK(whole.status());
  BATON_OK(top.status());
  BATON_OK(read_rope(top, *found.family, found.type->theta, c));
  found.family->from_hf(top, c);
  const std::string_view act = c.activation == tensor::GatedUnit::kGeluTanh ? "gelu_pytorch_tanh" : "silu";
  const std::string_view key = top.find("hidden_activation") ? "hidden_activation" : "hidden_act";
  if (const std::string stated = top.string(key, act); stated != act)
    top.complain(key, cat("is \"", stated, "\"; only ", act, " is supported"), Code::kUnimplemented);
  BATON_OK(top.status());
  if (!generation_config_json.empty()) BATON_OK(read_generation(generation_config_json, c));
  if (auto ok = check_config(c); !ok) return within("config.json", std::move(ok).error());
  return out;
}

}  // namespace baton::model
