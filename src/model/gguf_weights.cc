// GGUF keys and tensor names to ModelConfig, Vocab and neutral names (facts sheet engine.md 4.3).
#include <algorithm>
#include <cmath>

#include "model/gguf.h"
#include "model/limits.h"
#include "model/weight_data.h"

namespace baton::model {
namespace {

constexpr std::string_view kFamilies = "llama (with Mistral and SmolLM), qwen2";

// Reads keys; remembers the first that is missing or of the wrong kind, so that a caller asks for many and checks once.
class Keys {
 public:
  Keys(const Gguf& gguf, std::string arch) : gguf_(gguf), arch_(std::move(arch)) {}

  // Keys that begin with "." belong to the architecture.
  int32_t int32(std::string_view key, std::optional<int32_t> missing = std::nullopt) {
    const GgufValue* v = find(key, missing.has_value());
    if (!v) return missing.value_or(0);
    const auto n = v->as_int();
    if (!n || *n < INT32_MIN || *n > INT32_MAX) {
      complain(key, v->is_array ? "is an array: layers of different shape are not supported" : "must be a 32-bit integer");
      return 0;
    }
    return static_cast<int32_t>(*n);
  }
  double number(std::string_view key, std::optional<double> missing = std::nullopt) {
    const GgufValue* v = find(key, missing.has_value());
    if (!v) return missing.value_or(0);
    const auto d = v->as_double();
    if (!d) complain(key, "must be a number");
    return d.value_or(0);
  }
  std::string string(std::string_view key) {
    const GgufValue* v = find(key, true);
    if (!v) return "";
    const auto s = v->as_string();
    if (!s) complain(key, "must be a string");
    return std::string(s.value_or(""));
  }
  bool boolean(std::string_view key, bool missing) {
    const GgufValue* v = find(key, true);
    if (!v) return missing;
    const auto b = v->as_bool();
    if (!b) complain(key, "must be a boolean");
    return b.value_or(missing);
  }
  std::vector<std::string> strings(std::string_view key) {
    const GgufValue* v = find(key, true);
    if (!v) return {};
    const auto list = v->as_strings();
    if (!list) {
      complain(key, "must be an array of strings");
      return {};
    }
    return {list->begin(), list->end()};
  }
  std::vector<int32_t> ints(std::string_view key) {
    const GgufValue* v = find(key, true);
    if (!v) return {};
    const auto list = v->as_ints();
    if (!list || std::ranges::any_of(*list, [](int64_t n) { return n < INT32_MIN || n > INT32_MAX; })) {
      complain(key, "must be an array of 32-bit integers");
      return {};
    }
    return {list->begin(), list->end()};
  }
  bool has(std::string_view key) const { return gguf_.find(full(key)) != nullptr; }
  void complain(std::string_view key, std::string_view what, Code code = Code::kInvalidArgument) {
    if (!error_) error_ = Error{code, cat("key ", full(key), " ", what)};
  }
  Result<> status() const {
    if (error_) return std::unexpected(*error_);
    return {};
  }

 private:
  std::string full(std::string_view key) const { return key.starts_with('.') ? arch_ + std::string(key) : std::string(key); }
  const GgufValue* find(std::string_view key, bool optional) {
    const GgufValue* v = gguf_.find(full(key));
    if (!v && !optional) complain(key, "is missing; the file is incomplete: convert or download it again");
    return v;
  }

  const Gguf& gguf_;
  std::string arch_;
  std::optional<Error> error_;
};

void read_rope(Keys& keys, ModelConfig& c) {
  c.rope_theta = keys.number(".rope.freq_base", 10000.0);
  c.rope_factor = keys.number(".rope.scaling.factor", keys.number(".rope.scale_linear", 1.0));
  c.rope_original_context = keys.int32(".rope.scaling.original_context_length", c.context);
  const std::string type = keys.string(".rope.scaling.type");
  if (type == "linear" || (type.empty() && c.rope_factor != 1)) {
    c.rope_scaling = RopeScaling::kLinear;
  } else if (type == "yarn") {
    c.rope_scaling = RopeScaling::kYarn;
    c.yarn_beta_fast = keys.number(".rope.scaling.yarn_beta_fast", 32.0);
    c.yarn_beta_slow = keys.number(".rope.scaling.yarn_beta_slow", 1.0);
    // GGUF's attn_factor multiplies YaRN's own magnitude correction; config.h holds the product, 0 for the correction alone.
    const double extra = keys.number(".rope.scaling.attn_factor", 1.0);
    if (extra != 1 && c.rope_factor > 0) c.rope_attention_factor = extra * (0.1 * std::log(std::max(1.0, c.rope_factor)) + 1);
  } else if (!type.empty() && type != "none") {
    keys.complain(".rope.scaling.type", cat("is \"", type, "\"; none, linear and yarn are supported"), Code::kUnimplemented);
  }
  if (c.rope_scaling == RopeScaling::kNone) c.rope_factor = 1;
  if (const int32_t rotated = keys.int32(".rope.dimension_count", c.head_dim); rotated != c.head_dim) {
    keys.complain(".rope.dimension_count",
                  cat("is ", rotated, ", but only rotating the whole head of ", c.head_dim, " is supported"),
                  Code::kUnimplemented);
  }
}

ModelConfig read_config(Keys& keys, const std::string& arch) {
  ModelConfig c;
  c.family = arch;
  c.name = keys.string("general.name");
  c.layers = keys.int32(".block_count");
  c.hidden = keys.int32(".embedding_length");
  c.ffn = keys.int32(".feed_forward_length");
  c.context = keys.int32(".context_length");
  c.heads = keys.int32(".attention.head_count");
  c.kv_heads = keys.int32(".attention.head_count_kv", c.heads);
  c.head_dim = keys.int32(".attention.key_length", c.heads > 0 ? c.hidden / c.heads : 0);
  if (keys.int32(".attention.value_length", c.head_dim) != c.head_dim) {
    keys.complain(".attention.value_length", "differs from the key length, which is not supported", Code::kUnimplemented);
  }
  c.rms_eps = static_cast<float>(keys.number(".attention.layer_norm_rms_epsilon"));
  c.sliding_window = keys.int32(".attention.sliding_window", 0);
  if (keys.int32(".expert_count", 0) > 0) {
    keys.complain(".expert_count", "is not 0: mixtures of experts are not supported", Code::kUnimplemented);
  }
  if (keys.int32("split.count", 0) > 1) {
    keys.complain("split.count", "is above 1: join the parts first (llama-gguf-split --merge)", Code::kUnimplemented);
  }
  read_rope(keys, c);
  return c;
}

WeightFile::Vocab read_vocab(Keys& keys) {
  WeightFile::Vocab v;
  v.model = keys.string("tokenizer.ggml.model");
  v.pre = keys.string("tokenizer.ggml.pre");
  v.tokens = keys.strings("tokenizer.ggml.tokens");
  v.merges = keys.strings("tokenizer.ggml.merges");
  v.token_type = keys.ints("tokenizer.ggml.token_type");
  v.bos = keys.int32("tokenizer.ggml.bos_token_id", -1);
  v.eos = keys.int32("tokenizer.ggml.eos_token_id", -1);
  v.eot = keys.int32("tokenizer.ggml.eot_token_id", -1);
  v.unknown = keys.int32("tokenizer.ggml.unknown_token_id", -1);
  v.padding = keys.int32("tokenizer.ggml.padding_token_id", -1);
  v.add_bos = keys.boolean("tokenizer.ggml.add_bos_token", false);
  v.add_eos = keys.boolean("tokenizer.ggml.add_eos_token", false);
  return v;
}

// GGUF names one or two end tokens; a chat model may end its turn with another of the control tokens below, which the Hugging
// Face generation_config lists and GGUF has no key for. llama.cpp finds them by their text, and so do we.
std::vector<int32_t> end_tokens(const WeightFile::Vocab& v) {
  static constexpr std::string_view kEnds[] = {"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>"};
  constexpr int32_t kControl = 3;
  std::vector<int32_t> ids;
  const auto add = [&](int32_t id) {
    if (id >= 0 && std::ranges::find(ids, id) == ids.end() && ids.size() < kEosIdsMax) ids.push_back(id);
  };
  add(v.eos);
  add(v.eot);
  for (size_t i = 0; i < v.tokens.size() && i < v.token_type.size(); i++) {
    if (v.token_type[i] == kControl && std::ranges::find(kEnds, v.tokens[i]) != std::end(kEnds)) add(static_cast<int32_t>(i));
  }
  return ids;
}

constexpr Rename kTop[] = {
    {"token_embd.weight", "embed.weight"}, {"output_norm.weight", "norm.weight"}, {"output.weight", "lm_head.weight"}};
constexpr Rename kLayer[] = {
    {"attn_norm.weight", "attn_norm.weight"}, {"attn_q.weight", "q_proj.weight"},      {"attn_k.weight", "k_proj.weight"},
    {"attn_v.weight", "v_proj.weight"},       {"attn_output.weight", "o_proj.weight"}, {"attn_q.bias", "q_proj.bias"},
    {"attn_k.bias", "k_proj.bias"},           {"attn_v.bias", "v_proj.bias"},          {"ffn_norm.weight", "ffn_norm.weight"},
    {"ffn_gate.weight", "gate_proj.weight"},  {"ffn_up.weight", "up_proj.weight"},     {"ffn_down.weight", "down_proj.weight"}};

Result<> take_tensors(const Gguf& gguf, WeightData& data) {
  for (const TensorRef& t : gguf.tensors) {
    if (t.name == "rope_freqs.weight") {
      if (t.dtype != Dtype::kF32 || t.rows != 1 || t.cols > kHeadDimMax) {
        return fail(Code::kInvalidArgument, "tensor rope_freqs.weight must be a short F32 vector");
      }
      data.config.rope_divisors.resize(static_cast<size_t>(t.cols));
      dequantize(t.dtype, t.bytes, data.config.rope_divisors);
      continue;
    }
    const std::string name = neutral_name(t.name, kTop, "blk.", kLayer);
    if (name.empty()) {
      return fail(Code::kUnimplemented, "tensor ", t.name, " is no part of the ", data.config.family,
                  " family as supported here; the result would be wrong without it");
    }
    TensorRef renamed = t;
    renamed.name = name;
    if (!data.tensors.emplace(name, std::move(renamed)).second) {  // "blk.07" beside "blk.7"
      return fail(Code::kInvalidArgument, "tensor ", t.name, " occurs twice under different spellings");
    }
  }
  return {};
}

}  // namespace

Result<TokenizerFiles> read_gguf_tokenizer(std::span<const std::byte> file) {
  BATON_TRY(const Gguf gguf, parse_gguf(file));
  Keys keys(gguf, "");
  TokenizerFiles out;
  out.vocab = read_vocab(keys);
  out.chat_template = keys.string("tokenizer.chat_template");
  BATON_OK(keys.status());
  return out;
}

Result<WeightData> read_gguf(std::span<const std::byte> file) {
  BATON_TRY(const Gguf gguf, parse_gguf(file));
  const GgufValue* arch_value = gguf.find("general.architecture");
  const auto arch = arch_value ? arch_value->as_string() : std::nullopt;
  if (!arch) return fail(Code::kInvalidArgument, "key general.architecture is missing or no string; this is not a model file");
  if (*arch != "llama" && *arch != "qwen2") {
    return fail(Code::kUnimplemented, "architecture \"", *arch, "\" is not supported; supported: ", kFamilies);
  }
  WeightData data;
  Keys keys(gguf, std::string(*arch));
  data.config = read_config(keys, std::string(*arch));
  data.vocab = read_vocab(keys);
  data.chat_template = keys.string("tokenizer.chat_template");
  BATON_OK(keys.status());
  data.config.eos_ids = end_tokens(*data.vocab);
  data.rope_interleaved = *arch == "llama";
  BATON_OK(take_tensors(gguf, data));
  if (const auto embed = data.tensors.find("embed.weight"); embed != data.tensors.end()) {
    if (embed->second.rows > kVocabMax) return fail(Code::kInvalidArgument, "tensor token_embd.weight has too many rows");
    data.config.vocab = static_cast<int32_t>(embed->second.rows);
  }
  data.config.tokens = static_cast<int32_t>(std::min<size_t>(data.vocab->tokens.size(), static_cast<size_t>(data.config.vocab)));
  data.config.tied_embeddings = !data.tensors.contains("lm_head.weight");
  data.config.qkv_bias = data.tensors.contains("layers.0.q_proj.bias");
  BATON_OK(check_weights(data));
  return data;
}

}  // namespace baton::model
