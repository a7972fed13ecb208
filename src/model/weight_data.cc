#include <algorithm>
#include <charconv>
#include <unordered_set>

#include "model/limits.h"
#include "model/weight_data.h"

namespace baton::model {
namespace {

Result<> check_range(std::string_view what, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return fail(Code::kInvalidArgument, what, " is ", value, "; ", low, " to ", high, " are supported");
}

Result<> check_finite(std::string_view what, double value, double low, double high) {
  if (value >= low && value <= high) return {};  // false for NaN
  return fail(Code::kInvalidArgument, what, " is ", value, "; ", low, " to ", high, " are supported");
}

// Divisors of the frequencies: one for each, or none unless they are needed.
Result<> check_divisors(std::string_view what, const std::vector<float>& divisors, const ModelConfig& c, bool needed) {
  if (divisors.empty() && !needed) return {};
  if (divisors.size() != static_cast<size_t>(c.rotated() / 2)) {
    return fail(Code::kInvalidArgument, what, " has ", divisors.size(), " entries for a head dimension of ", c.head_dim,
                " of which ", c.rotated(), " turn");
  }
  for (const float d : divisors) BATON_OK(check_finite(cat("an entry of ", what), d, 1e-6, 1e9));
  return {};
}

Result<> check_rope(const ModelConfig& c) {
  BATON_OK(check_finite("rope theta", c.rope_theta, 1.0001, 1e12));
  BATON_OK(check_finite("rope scaling factor", c.rope_factor, 1e-3, 1e6));
  BATON_OK(check_finite("rope original context", c.rope_original_context, 1, kContextMax));
  BATON_OK(check_finite("rope attention factor", c.rope_attention_factor, 0, 1e3));
  if (c.rope_scaling == RopeScaling::kLlama3) {
    BATON_OK(check_finite("rope low_freq_factor", c.rope_low_freq_factor, 1e-3, 1e6));
    BATON_OK(check_finite("rope high_freq_factor", c.rope_high_freq_factor, 1e-3, 1e6));
    if (c.rope_high_freq_factor <= c.rope_low_freq_factor) {
      return fail(Code::kInvalidArgument, "rope high_freq_factor must be above low_freq_factor");
    }
  }
  if (c.rope_scaling == RopeScaling::kYarn) {
    BATON_OK(check_finite("rope beta_fast", c.yarn_beta_fast, 1e-3, 1e6));
    BATON_OK(check_finite("rope beta_slow", c.yarn_beta_slow, 1e-3, 1e6));
  }
  BATON_OK(check_range("the number of rotated dims", c.rope_dims, 0, c.head_dim));
  if (c.rope_dims % 2 != 0) return fail(Code::kInvalidArgument, "the number of rotated dims, ", c.rope_dims, ", is odd");
  if (c.rope_local_theta != 0) BATON_OK(check_finite("the rope theta of sliding layers", c.rope_local_theta, 1.0001, 1e12));
  const bool longrope = c.rope_scaling == RopeScaling::kLongRope;
  BATON_OK(check_divisors("rope_freqs", c.rope_divisors, c, false));
  BATON_OK(check_divisors("LongRoPE's short factors", c.rope_short, c, longrope));
  return check_divisors("LongRoPE's long factors", c.rope_long, c, longrope);
}

std::string layer_name(int layer, std::string_view what) { return cat("layers.", layer, ".", what); }

// Takes tensors off the list of what is left as the family asks for them.
class Expectation {
 public:
  explicit Expectation(const WeightData& data) : data_(data) {}

  Result<> need(const std::string& name, int64_t rows, int64_t cols) {
    const auto it = data_.tensors.find(name);
    if (it == data_.tensors.end()) {
      return fail(Code::kInvalidArgument, "tensor ", name, " is missing; the file is incomplete or of another model family");
    }
    const TensorRef& t = it->second;
    if (t.rows != rows || t.cols != cols) {
      return fail(Code::kInvalidArgument, "tensor ", name, " is ", t.rows, " x ", t.cols,
                  " but the model's configuration asks for ", rows, " x ", cols);
    }
    found_.insert(it->first);
    return {};
  }
  bool has(const std::string& name) const { return data_.tensors.contains(name); }
  // The first tensor nobody asked for, "" if none.
  std::string_view stranger() const {
    if (found_.size() == data_.tensors.size()) return "";
    for (const auto& [name, tensor] : data_.tensors)
      if (!found_.contains(name)) return name;
    return "";
  }

 private:
  const WeightData& data_;
  std::unordered_set<std::string_view> found_;
};

Result<> need_attention(Expectation& e, const ModelConfig& c, int i) {
  const int64_t q = int64_t{c.heads} * c.head_dim, kv = int64_t{c.kv_heads} * c.head_dim;
  BATON_OK(e.need(layer_name(i, "attn_norm.weight"), 1, c.hidden));
  BATON_OK(e.need(layer_name(i, "q_proj.weight"), q, c.hidden));
  BATON_OK(e.need(layer_name(i, "k_proj.weight"), kv, c.hidden));
  BATON_OK(e.need(layer_name(i, "v_proj.weight"), kv, c.hidden));
  BATON_OK(e.need(layer_name(i, "o_proj.weight"), c.hidden, q));
  if (c.qkv_bias) {
    BATON_OK(e.need(layer_name(i, "q_proj.bias"), 1, q));
    BATON_OK(e.need(layer_name(i, "k_proj.bias"), 1, kv));
    BATON_OK(e.need(layer_name(i, "v_proj.bias"), 1, kv));
  }
  if (c.o_bias) BATON_OK(e.need(layer_name(i, "o_proj.bias"), 1, c.hidden));
  if (c.qk_norm) {
    BATON_OK(e.need(layer_name(i, "q_norm.weight"), 1, c.head_dim));
    BATON_OK(e.need(layer_name(i, "k_norm.weight"), 1, c.head_dim));
  }
  if (c.attention_sinks) BATON_OK(e.need(layer_name(i, "sinks.weight"), 1, c.heads));
  for (const char* scale : {"k_scale", "v_scale"})
    if (e.has(layer_name(i, scale))) BATON_OK(e.need(layer_name(i, scale), 1, 1));
  if (c.post_norms) {
    BATON_OK(e.need(layer_name(i, "post_attn_norm.weight"), 1, c.hidden));
    BATON_OK(e.need(layer_name(i, "post_ffn_norm.weight"), 1, c.hidden));
  }
  return {};
}

// One gated feed-forward network, of the layer or of an expert.
Result<> need_feed_forward(Expectation& e, const ModelConfig& c, int i, const std::string& at, bool bias) {
  const int64_t ffn = c.ffn_of(i);
  BATON_OK(e.need(layer_name(i, at + "gate_proj.weight"), ffn, c.hidden));
  BATON_OK(e.need(layer_name(i, at + "up_proj.weight"), ffn, c.hidden));
  BATON_OK(e.need(layer_name(i, at + "down_proj.weight"), c.hidden, ffn));
  if (!bias) return {};
  BATON_OK(e.need(layer_name(i, at + "gate_proj.bias"), 1, ffn));
  BATON_OK(e.need(layer_name(i, at + "up_proj.bias"), 1, ffn));
  return e.need(layer_name(i, at + "down_proj.bias"), 1, c.hidden);
}

Result<> need_layer(Expectation& e, const ModelConfig& c, int i) {
  BATON_OK(need_attention(e, c, i));
  BATON_OK(e.need(layer_name(i, "ffn_norm.weight"), 1, c.hidden));
  if (!c.sparse(i)) return need_feed_forward(e, c, i, "", false);
  BATON_OK(e.need(layer_name(i, "router.weight"), c.experts, c.hidden));
  if (c.expert_bias) BATON_OK(e.need(layer_name(i, "router.bias"), 1, c.experts));
  for (int x = 0; x < c.experts; x++) BATON_OK(need_feed_forward(e, c, i, cat("experts.", x, "."), c.expert_bias));
  return {};
}

Result<> check_vocab(const WeightFile::Vocab& vocab, int32_t rows) {
  const auto n = static_cast<int64_t>(vocab.tokens.size());
  if (n > rows)
    return fail(Code::kInvalidArgument, "tokenizer.ggml.tokens has ", n, " entries, the embedding only ", rows, " rows");
  if (!vocab.token_type.empty() && static_cast<int64_t>(vocab.token_type.size()) != n) {
    return fail(Code::kInvalidArgument, "tokenizer.ggml.token_type has ", vocab.token_type.size(), " entries for ", n, " tokens");
  }
  for (const int32_t id : {vocab.bos, vocab.eos, vocab.eot, vocab.unknown, vocab.padding}) {
    BATON_OK(check_range("a special token id of tokenizer.ggml", id, -1, n - 1));
  }
  return {};
}

// Values that families add.
Result<> check_features(const ModelConfig& c) {
  if (!c.layer_kinds.empty() && c.layer_kinds.size() != static_cast<size_t>(c.layers))
    return fail(Code::kInvalidArgument, "the configuration describes ", c.layer_kinds.size(), " of ", c.layers, " layers");
  for (const LayerKind& k : c.layer_kinds) {
    BATON_OK(check_range("the sliding window", k.window, 0, kContextMax));
    if (k.rope == LayerRope::kLocal && c.rope_local_theta == 0)
      return fail(Code::kInvalidArgument, "the rope theta of sliding layers is missing");
  }
  BATON_OK(check_finite("the embedding's scale", c.embed_scale, 1e-6, 1e6));
  BATON_OK(check_finite("the scale of attention", c.attention_scale, 0, 1e6));
  for (const float cap : {c.attention_soft_cap, c.logit_soft_cap})
    if (cap != 0) BATON_OK(check_finite("a soft cap", cap, 1e-3, 1e6));
  BATON_OK(check_range("the number of experts", c.experts, 0, kExpertsMax));
  if (c.experts > 0) BATON_OK(check_range("the number of experts used", c.experts_used, 1, std::min(c.experts, kExpertsUsedMax)));
  if (c.dense_layers.empty()) return {};
  if (c.dense_layers.size() != static_cast<size_t>(c.layers))
    return fail(Code::kInvalidArgument, "the configuration describes ", c.dense_layers.size(), " of ", c.layers, " layers");
  BATON_OK(check_range("the feed-forward size of layers without experts", c.dense_ffn, 1, kFfnMax));
  return {};
}

}  // namespace

Result<> check_config(const ModelConfig& c) {
  BATON_OK(check_range("the number of layers", c.layers, 1, kLayersMax));
  BATON_OK(check_range("the hidden size", c.hidden, 1, kHiddenMax));
  BATON_OK(check_range("the number of attention heads", c.heads, 1, kHeadsMax));
  BATON_OK(check_range("the number of key/value heads", c.kv_heads, 1, c.heads));
  BATON_OK(check_range("the head dimension", c.head_dim, 2, kHeadDimMax));
  BATON_OK(check_range("the feed-forward size", c.ffn, 1, kFfnMax));
  BATON_OK(check_range("the vocabulary", c.vocab, 1, kVocabMax));
  BATON_OK(check_range("the context length", c.context, 1, kContextMax));
  BATON_OK(check_range("the sliding window", c.sliding_window, 0, kContextMax));
  if (c.heads % c.kv_heads != 0) {
    return fail(Code::kInvalidArgument, c.heads, " attention heads cannot share ", c.kv_heads, " key/value heads evenly");
  }
  if (c.head_dim % 2 != 0)
    return fail(Code::kInvalidArgument, "the head dimension ", c.head_dim, " is odd, so it cannot be rotated");
  BATON_OK(check_finite("the RMS norm epsilon", static_cast<double>(c.rms_eps), 0, 1));
  BATON_OK(check_range("the number of end tokens", static_cast<int64_t>(c.eos_ids.size()), 0, kEosIdsMax));
  for (const int32_t id : c.eos_ids) BATON_OK(check_range("an end token id", id, 0, c.vocab - 1));
  BATON_OK(check_features(c));
  return check_rope(c);
}

Result<> check_weights(const WeightData& data) {
  const ModelConfig& c = data.config;
  BATON_OK(check_config(c));
  Expectation e(data);
  BATON_OK(e.need("embed.weight", c.vocab, c.hidden));
  for (int i = 0; i < c.layers; i++) BATON_OK(need_layer(e, c, i));
  BATON_OK(e.need("norm.weight", 1, c.hidden));
  if (!c.tied_embeddings) BATON_OK(e.need("lm_head.weight", c.vocab, c.hidden));
  if (const std::string_view stranger = e.stranger(); !stranger.empty()) {
    return fail(Code::kUnimplemented, "tensor ", stranger, " is no part of the ", c.family,
                " family as supported here; the result would be wrong without it");
  }
  if (data.vocab) return check_vocab(*data.vocab, c.vocab);
  return {};
}

namespace {

// "7.rest" to 7 and "rest"; -1 if it is not so.
int take_number(std::string_view& text) {
  int number = -1;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || number < 0 || stop == end || *stop != '.') return -1;
  text.remove_prefix(static_cast<size_t>(stop - text.data()) + 1);
  return number;
}

std::string_view lookup(std::span<const Rename> table, std::string_view name) {
  const auto found = std::ranges::find(table, name, &Rename::from);
  return found == table.end() ? std::string_view() : found->to;
}

// Rows [first, first + rows) of a tensor under another name.
TensorRef rows_of(const TensorRef& t, const std::string& name, int64_t first, int64_t rows) {
  const size_t row_bytes = t.bytes.size() / static_cast<size_t>(t.rows);
  TensorRef out{.name = name,
                .dtype = t.dtype,
                .rows = rows,
                .cols = t.cols,
                .bytes = t.bytes.subspan(static_cast<size_t>(first) * row_bytes, static_cast<size_t>(rows) * row_bytes),
                .scales = t.scales};
  out.scales.first_row += first;
  return out;
}

struct Part {
  std::string name;
  int64_t rows;
};

// The tensor `fused` of a layer, if it is there, becomes its parts, which lie in it one after the other.
Result<> split_rows(WeightData& data, const std::string& fused, const std::vector<Part>& parts) {
  const auto it = data.tensors.find(fused);
  if (it == data.tensors.end()) return {};
  const TensorRef whole = it->second;
  int64_t rows = 0;
  for (const Part& p : parts) rows += p.rows;
  if (whole.rows != rows)
    return fail(Code::kInvalidArgument, "tensor ", fused, " has ", whole.rows, " rows but the model's configuration asks for ",
                rows);
  if (whole.dtype == Dtype::kGptq4 || whole.dtype == Dtype::kGptq8 || whole.dtype == Dtype::kAwq4)
    return fail(Code::kUnimplemented, "tensor ", fused, " of type ", dtype_name(whole.dtype),
                ": layers of GPTQ and AWQ that hold several matrices are not supported");
  data.tensors.erase(it);
  int64_t at = 0;
  for (const Part& p : parts) {
    if (!data.tensors.emplace(p.name, rows_of(whole, p.name, at, p.rows)).second)
      return fail(Code::kInvalidArgument, "tensor ", p.name, " occurs twice: alone and as a part of ", fused);
    at += p.rows;
  }
  return {};
}

Result<> split_experts(WeightData& data, int layer, std::string_view what, int64_t rows) {
  for (const std::string_view kind : {".weight", ".bias"}) {
    const std::string fused = layer_name(layer, cat("experts.", what, kind));
    if (!data.tensors.contains(fused)) continue;  // a configuration may claim many experts, and the file hold none
    std::vector<Part> parts;
    for (int x = 0; x < data.config.experts; x++)
      parts.push_back({layer_name(layer, cat("experts.", x, ".", what, kind)), kind == ".bias" ? 1 : rows});
    BATON_OK(split_rows(data, fused, parts));
  }
  return {};
}

}  // namespace

std::string neutral_name(std::string_view name, const Names& names) {
  if (const std::string_view whole = lookup(names.top, name); !whole.empty()) return std::string(whole);
  if (!name.starts_with(names.prefix)) return "";
  name.remove_prefix(names.prefix.size());
  const int layer = take_number(name);
  if (layer < 0) return "";
  std::string_view to = lookup(names.family_layer, name);
  if (to.empty()) to = lookup(names.layer, name);
  if (!to.empty()) return layer_name(layer, to);
  if (names.expert_prefix.empty() || !name.starts_with(names.expert_prefix)) return "";
  name.remove_prefix(names.expert_prefix.size());
  const int expert = take_number(name);
  to = lookup(names.expert, name);
  return expert < 0 || to.empty() ? "" : layer_name(layer, cat("experts.", expert, ".", to));
}

Result<> split_fused(WeightData& data) {
  const ModelConfig& c = data.config;
  BATON_OK(check_config(c));
  const int64_t q = int64_t{c.heads} * c.head_dim, kv = int64_t{c.kv_heads} * c.head_dim;
  for (int i = 0; i < c.layers; i++) {
    const auto part = [&](std::string_view what, int64_t rows) { return Part{layer_name(i, what), rows}; };
    BATON_OK(split_rows(data, layer_name(i, "qkv_proj.weight"),
                        {part("q_proj.weight", q), part("k_proj.weight", kv), part("v_proj.weight", kv)}));
    const int64_t ffn = c.ffn_of(i);
    BATON_OK(split_rows(data, layer_name(i, "gate_up_proj.weight"), {part("gate_proj.weight", ffn), part("up_proj.weight", ffn)}));
    if (!c.sparse(i)) continue;
    BATON_OK(split_experts(data, i, "gate_proj", c.ffn));
    BATON_OK(split_experts(data, i, "up_proj", c.ffn));
    BATON_OK(split_experts(data, i, "down_proj", c.hidden));
  }
  return {};
}

}  // namespace baton::model
