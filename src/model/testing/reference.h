#pragma once
// Reference: the definition of a model in double, from dequantised weights, over tensor/ref: no cache, no chunks, no packing. It
// judges the transformer in tests; a feature of a family is one line here too. The file outlives it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/rope.h"
#include "tensor/ref/ref.h"

namespace baton::model::testing {

namespace ref = tensor::ref;
using Doubles = std::vector<double>;

// Root mean square of the difference, as a share of that of what was wanted: floats or doubles.
template <class Wanted>
double relative_error(std::span<const float> got, const Wanted& want) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double w = want[i], d = static_cast<double>(got[i]) - w;
    difference += d * d;
    size += w * w;
  }
  return std::sqrt(difference / size);
}

// The median over tokens of theirs: for models that choose experts, where a rounding now and then chooses another for one token.
template <class Wanted>
double typical_error(std::span<const float> got, const Wanted& want, size_t vocab) {
  std::vector<double> errors;
  for (size_t at = 0; at < want.size(); at += vocab) errors.push_back(relative_error(got.subspan(at, vocab), std::span(want).subspan(at, vocab)));
  std::ranges::nth_element(errors, errors.begin() + static_cast<std::ptrdiff_t>(errors.size() / 2));
  return errors[errors.size() / 2];
}

struct Reference {
  explicit Reference(const WeightFile& f) : file(f), c(f.config()) {}

  Doubles weights(const std::string& name) const {
    const TensorRef* t = file.find(name);
    EXPECT_TRUE(t) << name;
    std::vector<float> w(static_cast<size_t>(t->rows * t->cols));
    dequantize(*t, w);
    return {w.begin(), w.end()};
  }
  Doubles linear(const std::string& name, const Doubles& x, int64_t rows, int64_t cols) const {
    Doubles out = ref::linear(weights(name + ".weight"), x, rows, cols, static_cast<int64_t>(x.size()) / cols);
    if (adapt) adapt(name, x, out);
    if (!file.find(name + ".bias")) return out;
    const Doubles bias = weights(name + ".bias");
    for (size_t i = 0; i < out.size(); ++i) out[i] += bias[i % bias.size()];
    return out;
  }
  Doubles norm(const std::string& name, const Doubles& x) const {
    Doubles weight = weights(name);
    for (double& w : weight) w += static_cast<double>(c.norm_offset);
    Doubles out;
    for (size_t at = 0; at < x.size(); at += weight.size()) {
      const Doubles row = ref::rms_norm(std::span(x).subspan(at, weight.size()), weight, static_cast<double>(c.rms_eps));
      out.insert(out.end(), row.begin(), row.end());
    }
    return out;
  }
  // Rotates rows of `heads` heads; file order is half-split or interleaved, and the result stays in that order (q . k is the
  // same).
  void rotate(Doubles& x, int heads, LayerRope kind) const {
    const Rope rope = make_rope(c, kind, c.context);
    const int half = static_cast<int>(rope.frequencies.size());
    for (size_t at = 0; at < x.size(); at += c.head_dim) {
      const auto position = static_cast<int32_t>(at / (static_cast<size_t>(heads) * c.head_dim));
      std::vector<float> cosine(c.head_dim), sine(c.head_dim);
      rope_row(rope, position, cosine.data(), sine.data());
      for (int i = 0; i < half; ++i) {
        double& a = x[at + (file.rope_interleaved() ? 2 * i : i)];
        double& b = x[at + (file.rope_interleaved() ? 2 * i + 1 : half + i)];
        const double first = a * cosine[i] - b * sine[i];
        b = b * cosine[i] + a * sine[i];
        a = first;
      }
    }
  }
  Doubles attention(const Doubles& q, const Doubles& k, const Doubles& v, int64_t n, int layer) const {
    const int32_t window = c.layer_kind(layer).window;
    Doubles sinks;
    if (c.attention_sinks) sinks = weights(cat("layers.", layer, ".sinks.weight"));
    ref::AttendOptions options{
        .scale = c.attention_scale > 0 ? static_cast<double>(c.attention_scale) : 1 / std::sqrt(static_cast<double>(c.head_dim)),
        .cap = static_cast<double>(c.attention_soft_cap),
        .sink = {}};
    const int64_t hd = c.head_dim, group = c.heads / c.kv_heads;
    Doubles out(q.size());
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t h = 0; h < c.heads; ++h) {
        const int64_t from = window > 0 ? std::max<int64_t>(0, t + 1 - window) : 0;
        if (!sinks.empty()) options.sink = sinks[h];
        Doubles keys, values;
        for (int64_t s = from; s <= t; ++s) {
          const int64_t at = (s * c.kv_heads + h / group) * hd;
          keys.insert(keys.end(), k.begin() + at, k.begin() + at + hd);
          values.insert(values.end(), v.begin() + at, v.begin() + at + hd);
        }
        const Doubles o = ref::attend(std::span(q).subspan((t * c.heads + h) * hd, hd), keys, values, t + 1 - from, options);
        std::copy(o.begin(), o.end(), out.begin() + (t * c.heads + h) * hd);
      }
    }
    return out;
  }
  // The network `at` (the layer's own or an expert's) of rows g.
  Doubles feed_forward(const std::string& at, const Doubles& g, int32_t ffn) const {
    return linear(at + "down_proj",
                  ref::gate_mul(c.activation, linear(at + "gate_proj", g, ffn, c.hidden), linear(at + "up_proj", g, ffn, c.hidden)),
                  c.hidden, ffn);
  }
  Doubles mixture(const std::string& at, const Doubles& g) const {
    const Doubles scores = linear(at + "router", g, c.experts, c.hidden);
    Doubles out(g.size());
    for (size_t r = 0; r < g.size() / c.hidden; ++r) {
      const auto row = std::span(scores).subspan(r * c.experts, c.experts);
      std::vector<int> order(row.size());
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](int a, int b) { return row[a] > row[b] || (row[a] == row[b] && a < b); });
      double total = 0;
      for (int k = 0; k < (c.expert_norm ? c.experts_used : c.experts); ++k) total += std::exp(row[order[k]] - row[order[0]]);
      const Doubles mine(g.begin() + r * c.hidden, g.begin() + (r + 1) * c.hidden);
      for (int k = 0; k < c.experts_used; ++k) {
        const Doubles y = feed_forward(cat(at, "experts.", order[k], "."), mine, c.ffn);
        for (int i = 0; i < c.hidden; ++i) out[r * c.hidden + i] += std::exp(row[order[k]] - row[order[0]]) / total * y[i];
      }
    }
    return out;
  }
  void add(Doubles& x, Doubles y, const std::string& post_norm) const {
    if (c.post_norms) y = norm(post_norm, y);
    for (size_t j = 0; j < x.size(); ++j) x[j] += y[j];
  }
  Doubles hidden(const std::vector<int32_t>& tokens) const {  // after the final norm
    const auto n = static_cast<int64_t>(tokens.size());
    const Doubles embed = weights("embed.weight");
    Doubles x;
    for (const int32_t t : tokens)
      x.insert(x.end(), embed.begin() + int64_t{t} * c.hidden, embed.begin() + int64_t{t + 1} * c.hidden);
    for (double& v : x) v *= static_cast<double>(c.embed_scale);
    for (int i = 0; i < c.layers; ++i) {
      const std::string at = cat("layers.", i, ".");
      const Doubles h = norm(at + "attn_norm.weight", x);
      Doubles q = linear(at + "q_proj", h, c.heads * c.head_dim, c.hidden),
              k = linear(at + "k_proj", h, c.kv_heads * c.head_dim, c.hidden);
      if (c.qk_norm) {
        q = norm(at + "q_norm.weight", q);
        k = norm(at + "k_norm.weight", k);
      }
      rotate(q, c.heads, c.layer_kind(i).rope);
      rotate(k, c.kv_heads, c.layer_kind(i).rope);
      const Doubles a = attention(q, k, linear(at + "v_proj", h, c.kv_heads * c.head_dim, c.hidden), n, i);
      add(x, linear(at + "o_proj", a, c.hidden, c.heads * c.head_dim), at + "post_attn_norm.weight");
      const Doubles g = norm(at + "ffn_norm.weight", x);
      add(x, c.sparse(i) ? mixture(at, g) : feed_forward(at, g, c.ffn_of(i)), at + "post_ffn_norm.weight");
    }
    return norm("norm.weight", x);
  }
  Doubles logits(const std::vector<int32_t>& tokens) const {
    Doubles out = ref::linear(weights(file.find("lm_head.weight") ? "lm_head.weight" : "embed.weight"), hidden(tokens), c.vocab,
                              c.hidden, static_cast<int64_t>(tokens.size()));
    if (c.logit_soft_cap > 0)
      for (double& v : out) v = ref::soft_cap(v, static_cast<double>(c.logit_soft_cap));
    return out;
  }
  const WeightFile& file;
  const ModelConfig& c;
  // What an adapter adds to the output of the matrix `name`, "layers.0.q_proj", for rows x; none if empty.
  std::function<void(const std::string& name, const Doubles& x, Doubles& out)> adapt;
};

}  // namespace baton::model::testing
