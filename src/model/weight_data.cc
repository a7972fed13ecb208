#include <algorithm>
#include <charconv>

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
  if (!c.rope_divisors.empty() && c.rope_divisors.size() != static_cast<size_t>(c.head_dim / 2)) {
    return fail(Code::kInvalidArgument, "rope_freqs has ", c.rope_divisors.size(), " entries for a head dimension of ",
                c.head_dim);
  }
  for (const float d : c.rope_divisors) BATON_OK(check_finite("an entry of rope_freqs", d, 1e-6, 1e9));
  return {};
}

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
    found_++;
    return {};
  }
  bool complete() const { return found_ == data_.tensors.size(); }

 private:
  const WeightData& data_;
  size_t found_ = 0;
};

std::string layer_name(int layer, std::string_view what) { return cat("layers.", layer, ".", what); }

Result<> need_layer(Expectation& e, const ModelConfig& c, int i) {
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
  BATON_OK(e.need(layer_name(i, "ffn_norm.weight"), 1, c.hidden));
  BATON_OK(e.need(layer_name(i, "gate_proj.weight"), c.ffn, c.hidden));
  BATON_OK(e.need(layer_name(i, "up_proj.weight"), c.ffn, c.hidden));
  return e.need(layer_name(i, "down_proj.weight"), c.hidden, c.ffn);
}

// Names the first tensor that the family has no use for.
std::string stranger(const WeightData& data) {
  static constexpr std::string_view kKnown[] = {"attn_norm.weight", "q_proj.weight",    "k_proj.weight",  "v_proj.weight",
                                                "o_proj.weight",    "q_proj.bias",      "k_proj.bias",    "v_proj.bias",
                                                "ffn_norm.weight",  "gate_proj.weight", "up_proj.weight", "down_proj.weight"};
  for (const auto& [name, tensor] : data.tensors) {
    if (name == "embed.weight" || name == "norm.weight" || (name == "lm_head.weight" && !data.config.tied_embeddings)) continue;
    constexpr std::string_view kLayers = "layers.";
    int layer = -1;
    const char* end = name.data() + name.size();
    const char* stop = name.starts_with(kLayers) ? std::from_chars(name.data() + kLayers.size(), end, layer).ptr : end;
    const std::string_view what = stop == end ? "" : std::string_view(stop + 1, end);
    const bool known = std::ranges::find(kKnown, what) != std::end(kKnown) && (data.config.qkv_bias || !what.ends_with(".bias"));
    if (!known || layer < 0 || layer >= data.config.layers) return name;
  }
  return "";
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
  if (!e.complete()) {
    return fail(Code::kUnimplemented, "tensor ", stranger(data), " is no part of the ", c.family,
                " family as supported here; the result would be wrong without it");
  }
  if (data.vocab) return check_vocab(*data.vocab, c.vocab);
  return {};
}

std::string neutral_name(std::string_view name, std::span<const Rename> top, std::string_view prefix,
                         std::span<const Rename> layer) {
  const auto whole = std::ranges::find(top, name, &Rename::from);
  if (whole != top.end()) return std::string(whole->to);
  if (!name.starts_with(prefix)) return "";
  const char* end = name.data() + name.size();
  int number = -1;
  const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, number);
  if (error != std::errc() || number < 0 || stop == end || *stop != '.') return "";
  const auto part = std::ranges::find(layer, std::string_view(stop + 1, end), &Rename::from);
  return part == layer.end() ? "" : cat("layers.", number, ".", part->to);
}

}  // namespace baton::model
