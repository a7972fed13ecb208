#pragma once
// Tiny synthetic models with random weights and a real byte-level BPE tokenizer, so that tests need no download.
// Use: TEST_LIBS baton_model_testing in the folder's CMakeLists, then
//   TinySpec spec{.layers = 2, .dtype = Dtype::kQ4_1, .seed = 7};
//   BATON_OK(write_tiny_gguf(dir + "/tiny.gguf", spec));   // any Dtype whose block divides hidden, heads * head_dim and ffn
//   BATON_OK(write_tiny_hf(dir + "/tiny", spec));          // a Hugging Face directory; F32, F16 or BF16
// Equal specs give equal bytes on every machine; the GGUF and the HF form of a spec are the same model (Q and K rows differ in
// order only, as GGUF's llama wants, and Gemma's norms by the 1 that GGUF adds).
// Tokenizer: ids 0-2 are <|endoftext|> <|im_start|> <|im_end|> (ChatML template; eos = 2), 3-258 the bytes, then merges, then
// reserved tokens up to vocab; encodes any UTF-8. pre-tokenizer: "qwen2" for the Qwens, "smollm" for all others.
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/config.h"

namespace baton::model::testing {

struct TinySpec {
  int32_t layers = 2, hidden = 64, heads = 4, kv_heads = 2, head_dim = 16, ffn = 128;
  int32_t vocab = 384;      // tokens of the tokenizer; at least 259
  int32_t padded_rows = 0;  // rows of the embedding beyond them
  int32_t context = 2048;
  Dtype dtype = Dtype::kF32;     // of matrices and embedding; norms and biases are F32 in GGUF, dtype in Hugging Face form
  bool expand = false;           // quantised matrices are written out in F32: the same model without quantised arithmetic
  std::string family = "llama";  // a row of families/
  uint64_t seed = 1;
  bool tied = true;
  double rope_theta = 10000;
  RopeScaling rope_scaling = RopeScaling::kNone;
  double rope_factor = 4, rope_low_freq_factor = 1, rope_high_freq_factor = 4, rope_original_context = 64;
  int32_t shards = 1;   // safetensors files of the Hugging Face form
  int32_t window = 0;   // sliding window; a llama with one is a mistral. In the Gemmas and gpt-oss every second layer sees all
  int32_t rotated = 0;  // phi3: dims of a head that turn; 0 = all
  int32_t experts = 4, experts_used = 2;  // of the families that have them
  double soft_cap = 0;                    // gemma2: of scores; logits have twice it
  float cache_scale = 0;  // Hugging Face form, quantised: k_scale and v_scale of every layer; 0 = none
  std::string quant =
      {};  // Hugging Face form: scheme of the layers' matrices (tiny_quantised.h); with expand in F32, dequantised. Of gpt-oss:
           // mxfp4 (tiny_stacks.h), with expand in `dtype`
  // qwen3moe, Hugging Face form: every sparse_step-th layer has experts, and layer dense_layer none; those have dense_ffn.
  int32_t sparse_step = 1, dense_layer = -1, dense_ffn = 0;
  bool has_experts(int layer) const { return (layer + 1) % sparse_step == 0 && layer != dense_layer; }  // of a family that has them
  bool hf_only() const { return sparse_step != 1 || dense_layer >= 0 || !quant.empty(); }
};

// "dtype=Q4_1", "family=qwen2", "rope_scaling=yarn", "layers=3", ...: a TinySpec's fields by name.
Result<TinySpec> parse_tiny_spec(const std::vector<std::string>& fields);

struct TinyTokenizer {
  std::vector<std::string> tokens, merges;  // byte-level alphabet form; "a b"
  std::vector<int32_t> types;               // GGUF token types
};
TinyTokenizer tiny_tokenizer(int32_t vocab);
std::string tiny_tokenizer_json(const TinyTokenizer& tokenizer, const std::string& family);
std::string tiny_tokenizer_config_json();
std::string tiny_chat_template();

Result<> write_tiny_gguf(const std::string& path, const TinySpec& spec);
Result<std::string> tiny_gguf(const TinySpec& spec);                         // the file's bytes
Result<> write_tiny_hf(const std::string& directory, const TinySpec& spec);  // creates the directory

}  // namespace baton::model::testing
