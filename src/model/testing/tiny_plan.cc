#include "model/testing/tiny_plan.h"

#include <algorithm>
#include <cmath>

namespace baton::model::testing {
namespace {

constexpr TinyFamily kFamilies[] = {
    {.name = "llama", .hf_type = "llama", .hf_class = "LlamaForCausalLM", .interleaved = true},
    {.name = "qwen2", .hf_type = "qwen2", .hf_class = "Qwen2ForCausalLM", .qkv_bias = true},
    {.name = "qwen3", .hf_type = "qwen3", .hf_class = "Qwen3ForCausalLM", .qk_norm = true},
    {.name = "qwen3moe", .hf_type = "qwen3_moe", .hf_class = "Qwen3MoeForCausalLM", .qk_norm = true, .experts = true},
    {.name = "gemma2", .hf_type = "gemma2", .hf_class = "Gemma2ForCausalLM", .gemma = true},
    {.name = "gemma3", .hf_type = "gemma3_text", .hf_class = "Gemma3ForCausalLM", .qk_norm = true, .gemma = true},
    {.name = "phi3", .hf_type = "phi3", .hf_class = "Phi3ForCausalLM", .fused = true},
    {.name = "smollm3", .hf_type = "smollm3", .hf_class = "SmolLM3ForCausalLM", .interleaved = true},
    {.name = "gpt-oss", .hf_type = "gpt_oss", .hf_class = "GptOssForCausalLM", .qkv_bias = true, .experts = true, .oss = true}};

class Planner {
 public:
  explicit Planner(const TinySpec& spec) : s_(spec), f_(*find_tiny_family(spec.family)) {}

  std::vector<Plan> plan() {
    const int64_t rows = s_.vocab + s_.padded_rows;
    // A small embedding lets the layers, not the last token itself, decide the next token.
    out_.push_back({"token_embd.weight", "model.embed_tokens.weight", rows, s_.hidden, 0, 0.2});
    for (int i = 0; i < s_.layers; i++) {
      g_ = cat("blk.", i, ".");
      h_ = cat("model.layers.", i, ".");
      attention();
      norm("ffn_norm", f_.gemma ? "pre_feedforward_layernorm" : "post_attention_layernorm", s_.hidden);
      if (f_.experts && s_.has_experts(i))
        mixture();
      else
        feed_forward(f_.experts ? s_.dense_ffn : s_.ffn);
      if (f_.gemma) norm("post_ffw_norm", "post_feedforward_layernorm", s_.hidden);
    }
    g_ = "", h_ = "model.";
    norm("output_norm", "norm", s_.hidden);
    h_ = "";
    if (!s_.tied) matrix("output", "lm_head", rows, s_.hidden);
    return std::move(out_);
  }

 private:
  void matrix(const std::string& gguf, const std::string& hf, int64_t rows, int64_t cols, int32_t rotary_heads = 0) {
    out_.push_back(
        {g_ + gguf + ".weight", h_ + hf + ".weight", rows, cols, 0, 1 / std::sqrt(static_cast<double>(cols)), rotary_heads});
  }
  void vector(const std::string& gguf, const std::string& hf, int64_t n, double mean, int32_t rotary_heads = 0,
              float offset = 0) {
    out_.push_back({g_ + gguf, h_ + hf, 1, n, mean, 0.2, rotary_heads, true, offset});
  }
  void norm(std::string gguf, const std::string& hf, int64_t n) {
    if (f_.oss && gguf == "ffn_norm") gguf = "post_attention_norm";
    vector(gguf + ".weight", hf + ".weight", n, f_.gemma ? 0 : 1, 0, f_.gemma ? 1 : 0);
  }
  void attention() {
    const int64_t q = int64_t{s_.heads} * s_.head_dim, kv = int64_t{s_.kv_heads} * s_.head_dim;
    norm("attn_norm", "input_layernorm", s_.hidden);
    if (f_.fused) {
      matrix("attn_qkv", "self_attn.qkv_proj", q + 2 * kv, s_.hidden);
    } else {
      matrix("attn_q", "self_attn.q_proj", q, s_.hidden, s_.heads);
      matrix("attn_k", "self_attn.k_proj", kv, s_.hidden, s_.kv_heads);
      matrix("attn_v", "self_attn.v_proj", kv, s_.hidden);
    }
    if (f_.qkv_bias) {
      vector("attn_q.bias", "self_attn.q_proj.bias", q, 0, s_.heads);
      vector("attn_k.bias", "self_attn.k_proj.bias", kv, 0, s_.kv_heads);
      vector("attn_v.bias", "self_attn.v_proj.bias", kv, 0);
    }
    if (f_.qk_norm) {
      norm("attn_q_norm", "self_attn.q_norm", s_.head_dim);
      norm("attn_k_norm", "self_attn.k_norm", s_.head_dim);
    }
    matrix("attn_output", "self_attn.o_proj", s_.hidden, q);
    if (f_.oss) vector("attn_output.bias", "self_attn.o_proj.bias", s_.hidden, 0);
    if (f_.oss) vector("attn_sinks.weight", "self_attn.sinks", s_.heads, 1);
    if (f_.gemma) norm("post_attention_norm", "post_attention_layernorm", s_.hidden);
  }
  void feed_forward(int64_t ffn) {
    if (f_.fused) {
      matrix("ffn_up", "mlp.gate_up_proj", 2 * ffn, s_.hidden);
    } else {
      matrix("ffn_gate", "mlp.gate_proj", ffn, s_.hidden);
      matrix("ffn_up", "mlp.up_proj", ffn, s_.hidden);
    }
    matrix("ffn_down", "mlp.down_proj", s_.hidden, ffn);
  }
  void mixture() {
    matrix("ffn_gate_inp", "mlp.gate", s_.experts, s_.hidden);
    if (f_.oss) vector("ffn_gate_inp.bias", "mlp.gate.bias", s_.experts, 0);
    for (const std::string_view what : {"gate", "up", "down"}) {
      const bool down = what == "down";
      for (int x = 0; x < s_.experts; x++)
        matrix(cat("ffn_", what, "_exps"), cat("mlp.experts.", x, ".", what, "_proj"), down ? s_.hidden : s_.ffn,
               down ? s_.ffn : s_.hidden);
      for (int x = 0; x < s_.experts && f_.oss; x++)
        vector(cat("ffn_", what, "_exps.bias"), cat("mlp.experts.", x, ".", what, "_proj.bias"), down ? s_.hidden : s_.ffn, 0);
    }
  }

  const TinySpec& s_;
  const TinyFamily& f_;
  std::string g_, h_;  // the layer's prefix in both forms
  std::vector<Plan> out_;
};

}  // namespace

const TinyFamily* find_tiny_family(std::string_view name) {
  const auto* found = std::ranges::find(kFamilies, name, &TinyFamily::name);
  return found == std::end(kFamilies) ? nullptr : found;
}

std::vector<Plan> plan(const TinySpec& spec) { return Planner(spec).plan(); }

}  // namespace baton::model::testing
