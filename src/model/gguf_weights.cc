// GGUF keys and tensor names to ModelConfig, Vocab and neutral names (facts sheet engine.md 4.3).
#include <algorithm>
#include <cmath>

#include "model/families/family.h"
#include "model/gguf.h"
#include "model/gguf_keys.h"

namespace baton::model {
namespace {

void read_rope(GgufKeys& keys, const Family& family, ModelConfig& c) {
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
  } else if (type == "longrope") {
    c.rope_scaling = RopeScaling::kLongRope;  // its divisors are tensors: take_tensors()
  } else if (!type.empty() && type != "none") {
    keys.complain(".rope.scaling.type", cat("is \"", type, "\"; none, linear, yarn and longrope are supported"),
                  Code::kUnimplemented);
  }
  if (c.rope_scaling == RopeScaling::kNone) c.rope_factor = 1;
  const int32_t rotated = keys.int32(".rope.dimension_count", c.head_dim);
  if (rotated != c.head_dim && family.partial_rotary) {
    c.rope_dims = rotated;
  } else if (rotated != c.head_dim) {
    keys.complain(".rope.dimension_count",
                  cat("is ", rotated, ", but only rotating the whole head of ", c.head_dim, " is supported"),
                  Code::kUnimplemented);
  }
}

ModelConfig read_config(GgufKeys& keys, const Family& family) {
  ModelConfig c;
  c.family = family.name;
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
  if (keys.int32(".expert_count", 0) > 0 && !family.experts) {
    keys.complain(".expert_count", "is not 0: mixtures of experts are not supported in this family", Code::kUnimplemented);
  }
  if (keys.int32("split.count", 0) > 1) {
    keys.complain("split.count", "is above 1: join the parts first (llama-gguf-split --merge)", Code::kUnimplemented);
  }
  read_rope(keys, family, c);
  if (family.from_gguf) family.from_gguf(keys, c);
  return c;
}

WeightFile::Vocab read_vocab(GgufKeys& keys) {
  WeightFile::Vocab v;
  v.model = keys.string("tokenizer.ggml.model");
  v.pre = keys.string("tokenizer.ggml.pre");
  v.tokens = keys.strings("tokenizer.ggml.tokens");
  v.merges = keys.strings("tokenizer.ggml.merges");
  v.token_type = keys.ints("tokenizer.ggml.token_type");
  v.scores = keys.floats("tokenizer.ggml.scores");
  v.bos = keys.int32("tokenizer.ggml.bos_token_id", -1);
  v.eos = keys.int32("tokenizer.ggml.eos_token_id", -1);
  v.eot = keys.int32("tokenizer.ggml.eot_token_id", -1);
  v.unknown = keys.int32("tokenizer.ggml.unknown_token_id", -1);
  v.padding = keys.int32("tokenizer.ggml.padding_token_id", -1);
  v.add_bos = keys.boolean("tokenizer.ggml.add_bos_token", false);
  v.add_eos = keys.boolean("tokenizer.ggml.add_eos_token", false);
  v.add_space_prefix = keys.boolean("tokenizer.ggml.add_space_prefix", true);
  return v;
}

// GGUF names one or two end tokens; a chat model may end its turn with another of the control tokens below, which the Hugging
// Face generation_config lists and GGUF has no key for. llama.cpp finds them by their text, and so do we.
std::vector<int32_t> end_tokens(const WeightFile::Vocab& v, const Family& family) {
  static constexpr std::string_view kEnds[] = {"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>"};
  constexpr int32_t kControl = 3;
  std::vector<int32_t> ids;
  const auto add = [&](int32_t id) {
    if (id >= 0 && std::ranges::find(ids, id) == ids.end() && ids.size() < kEosIdsMax) ids.push_back(id);
  };
  add(v.eos);
  add(v.eot);
  for (size_t i = 0; i < v.tokens.size() && i < v.token_type.size(); i++) {
    if (v.token_type[i] != kControl) continue;
    const bool ends = std::ranges::find(kEnds, v.tokens[i]) != std::end(kEnds) ||
                      std::ranges::find(family.gguf_ends, v.tokens[i]) != family.gguf_ends.end();
    if (ends) add(static_cast<int32_t>(i));
  }
  return ids;
}

constexpr Rename kTop[] = {
    {"token_embd.weight", "embed.weight"}, {"output_norm.weight", "norm.weight"}, {"output.weight", "lm_head.weight"}};
constexpr Rename kLayer[] = {{"attn_norm.weight", "attn_norm.weight"},
                             {"attn_q.weight", "q_proj.weight"},
                             {"attn_k.weight", "k_proj.weight"},
                             {"attn_v.weight", "v_proj.weight"},
                             {"attn_output.weight", "o_proj.weight"},
                             {"attn_q.bias", "q_proj.bias"},
                             {"attn_k.bias", "k_proj.bias"},
                             {"attn_v.bias", "v_proj.bias"},
                             {"ffn_norm.weight", "ffn_norm.weight"},
                             {"ffn_gate.weight", "gate_proj.weight"},
                             {"ffn_up.weight", "up_proj.weight"},
                             {"ffn_down.weight", "down_proj.weight"},
                             {"attn_output.bias", "o_proj.bias"},
                             {"attn_q_norm.weight", "q_norm.weight"},
                             {"attn_k_norm.weight", "k_norm.weight"},
                             {"post_attention_norm.weight", "post_attn_norm.weight"},
                             {"post_ffw_norm.weight", "post_ffn_norm.weight"},
                             {"attn_sinks.weight", "sinks.weight"},
                             {"ffn_gate_inp.weight", "router.weight"},
                             {"ffn_gate_inp.bias", "router.bias"},
                             {"ffn_gate_exps.weight", "experts.gate_proj.weight"},
                             {"ffn_up_exps.weight", "experts.up_proj.weight"},
                             {"ffn_down_exps.weight", "experts.down_proj.weight"},
                             {"ffn_gate_exps.bias", "experts.gate_proj.bias"},
                             {"ffn_up_exps.bias", "experts.up_proj.bias"},
                             {"ffn_down_exps.bias", "experts.down_proj.bias"}};

// A short F32 vector of rope divisors.
Result<std::vector<float>> divisors(const TensorRef& t) {
  if (t.dtype != Dtype::kF32 || t.rows != 1 || t.cols > kHeadDimMax)
    return fail(Code::kInvalidArgument, "tensor ", t.name, " must be a short F32 vector");
  std::vector<float> out(static_cast<size_t>(t.cols));
  dequantize(t.dtype, t.bytes, out);
  return out;
}

Result<> take_tensors(const Gguf& gguf, const Family& family, WeightData& data) {
  const Names names{.top = kTop, .prefix = "blk.", .layer = kLayer, .family_layer = family.gguf_layer};
  std::vector<float>* const vectors[] = {&data.config.rope_divisors, &data.config.rope_short, &data.config.rope_long};
  for (const TensorRef& t : gguf.tensors) {
    constexpr std::string_view kVectors[] = {"rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"};
    if (const auto at = std::ranges::find(kVectors, t.name); at != std::end(kVectors)) {
      BATON_TRY(*vectors[at - kVectors], divisors(t));
      continue;
    }
    const std::string name = neutral_name(t.name, names);
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
  GgufKeys keys(gguf, "");
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
  const Family* family = find_family(*arch);
  if (!family)
    return fail(Code::kUnimplemented, "architecture \"", *arch, "\" is not supported; supported: ", known_gguf_families());
  WeightData data;
  GgufKeys keys(gguf, std::string(*arch));
  data.config = read_config(keys, *family);
  data.vocab = read_vocab(keys);
  data.chat_template = keys.string("tokenizer.chat_template");
  BATON_OK(keys.status());
  data.config.eos_ids = end_tokens(*data.vocab, *family);
  data.rope_interleaved = family->gguf_interleaved;
  BATON_OK(take_tensors(gguf, *family, data));
  if (!data.config.rope_long.empty()) {  // attn_factor is the whole factor here, not an addition to a formula
    data.config.rope_scaling = RopeScaling::kLongRope;
    data.config.rope_attention_factor = keys.number(".rope.scaling.attn_factor", 1.0);
  }
  if (const auto embed = data.tensors.find("embed.weight"); embed != data.tensors.end()) {
    if (embed->second.rows > kVocabMax) return fail(Code::kInvalidArgument, "tensor token_embd.weight has too many rows");
    data.config.vocab = static_cast<int32_t>(embed->second.rows);
  }
  data.config.tokens = static_cast<int32_t>(std::min<size_t>(data.vocab->tokens.size(), static_cast<size_t>(data.config.vocab)));
  data.config.tied_embeddings = !data.tensors.contains("lm_head.weight");
  BATON_OK(split_fused(data));
  data.config.qkv_bias = data.tensors.contains("layers.0.q_proj.bias");
  data.config.o_bias = data.tensors.contains("layers.0.o_proj.bias");
  BATON_OK(check_weights(data));
  return data;
}

}  // namespace baton::model
