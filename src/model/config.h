#pragma once
// ModelConfig: what the weights' own metadata says of their shape, from config.json or GGUF keys; and the neutral view of a weight file.
// Both readers check every length and offset before use; a lying file is an error that names the key or tensor. What open() returns
// is complete: all tensors of the family are there with the shapes the config states, and none that the family does not know.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/ops.h"

namespace baton::model {

// The last eight are those of quantised Hugging Face checkpoints, whose scales lie in tensors of their own: tensor::Format says how.
enum class Dtype : uint8_t {
  kF32, kF16, kBf16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ5_K, kQ6_K, kMxfp4,
  kE4m3, kI8, kInt4, kInt8, kGptq4, kGptq8, kAwq4, kMxfp4Pairs
};
std::string_view dtype_name(Dtype d);
int dtype_block(Dtype d);           // elements per block: 1, 32 or 256
size_t dtype_block_bytes(Dtype d);  // bytes per block

enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3, kYarn, kLongRope };

// What one layer's attention sees, and how it turns queries and keys.
enum class LayerRope : uint8_t { kGlobal, kLocal, kNone };  // kLocal: rope_local_theta without scaling
struct LayerKind {
  int32_t window = 0;  // tokens seen, the query's own included; 0 = all before it
  LayerRope rope = LayerRope::kGlobal;
  bool operator==(const LayerKind&) const = default;
};

struct ModelConfig {
  std::string family;               // a row of families/: "llama", "qwen3", ...
  std::string name;                 // general.name or the directory's name
  int32_t layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0;
  int32_t vocab = 0;                // rows of the embedding (may be padded beyond the tokenizer)
  int32_t tokens = 0;               // ids the tokenizer knows, at most vocab: logits of rows from here on are padding
  int32_t context = 0;              // max_position_embeddings
  float rms_eps = 1e-5f;
  double rope_theta = 10000;
  RopeScaling rope_scaling = RopeScaling::kNone;
  double rope_factor = 1, rope_low_freq_factor = 1, rope_high_freq_factor = 4, rope_original_context = 8192;
  double yarn_beta_fast = 32, yarn_beta_slow = 1, rope_attention_factor = 0;   // 0: the formula's default
  bool yarn_truncate = true;        // YaRN's ramp ends at whole dims
  std::vector<float> rope_divisors; // GGUF rope_freqs.weight: rotated dims / 2 divisors, or empty
  std::vector<float> rope_short, rope_long;  // LongRoPE's divisors within and beyond rope_original_context
  int32_t rope_dims = 0;            // first dims of a head that turn; 0 = all
  double rope_local_theta = 0;      // of layers with LayerRope::kLocal
  std::vector<LayerKind> layer_kinds;  // one a layer; empty: all {sliding_window, kGlobal}. See layer_kind()

  // What a family adds to Llama's layer, as values: the transformer asks for these, never for the family's name.
  bool qkv_bias = false, o_bias = false;
  bool qk_norm = false;             // RMS norm over each head of Q and K before they turn
  bool post_norms = false;          // RMS norm of what attention and feed-forward give, before it is added
  float norm_offset = 0;            // added to every norm weight of the file
  float embed_scale = 1;
  float attention_scale = 0;        // of scores; 0 = 1 / sqrt(head_dim)
  float attention_soft_cap = 0, logit_soft_cap = 0;  // 0 = none: x becomes cap * tanh(x / cap)
  tensor::GatedUnit activation = tensor::GatedUnit::kSilu;
  bool attention_sinks = false;     // a learnt score a head that takes part in its softmax
  int32_t experts = 0, experts_used = 0;  // 0 = one dense feed-forward layer; else ffn is an expert's
  int32_t dense_ffn = 0;            // of the layers of a mixture model that have none
  std::vector<bool> dense_layers;   // those: one flag a layer; empty: none
  bool expert_norm = true;          // the weights of the experts used are scaled to sum to 1
  bool expert_bias = false;         // router and experts have biases
  bool tied_embeddings = false;
  bool fp8_cache = false;           // the checkpoint was made for a cache of FP8: what LoadOptions::kv_dtype is if it is not said
  int32_t sliding_window = 0;       // 0 = none
  std::vector<int32_t> eos_ids;     // from config / generation_config / GGUF
  std::optional<double> gen_temperature, gen_top_p, gen_repetition_penalty, gen_min_p;   // generation_config.json
  std::optional<int32_t> gen_top_k, gen_max_new_tokens;

  LayerKind layer_kind(int layer) const {
    return layer_kinds.empty() ? LayerKind{.window = sliding_window} : layer_kinds[static_cast<size_t>(layer)];
  }
  bool sparse(int layer) const { return experts > 0 && (dense_layers.empty() || !dense_layers[static_cast<size_t>(layer)]); }
  int32_t ffn_of(int layer) const { return experts > 0 && !sparse(layer) ? dense_ffn : ffn; }
  int32_t rotated() const { return rope_dims > 0 ? rope_dims : head_dim; }
};

// A named tensor in a mapped file. Row-major: shape {rows, cols}, cols = input features contiguous (GGUF's ne[0]).
struct TensorRef {
  std::string name;                 // neutral: "layers.0.q_proj.weight", "embed.weight", "norm.weight", "lm_head.weight"
  Dtype dtype = Dtype::kF32;
  int64_t rows = 1, cols = 0;       // 1-D tensors: rows = 1
  std::span<const std::byte> bytes; // of the mapped file: alive as long as the WeightFile, alignment not promised (use memcpy)
  tensor::Scales scales = {};       // of dtypes that keep them apart; points into the file too
  int64_t row_step = 0, col_step = 0;  // elements to the next row and column; 0: side by side. See tensor::Matrix
  tensor::Matrix matrix() const {
    return {.format = static_cast<tensor::Format>(dtype),  // the same list
            .rows = rows,
            .cols = cols,
            .data = bytes.data(),
            .scales = scales,
            .row_step = row_step,
            .col_step = col_step};
  }
};

// WeightFile: config, tensors under neutral names and tokenizer text of a GGUF file or a Hugging Face directory, memory mapped.
// Neutral names: embed.weight, norm.weight, lm_head.weight (absent if tied), and per layer N: layers.N.{attn_norm,q_proj,k_proj,
// v_proj,o_proj,ffn_norm,gate_proj,up_proj,down_proj}.weight and layers.N.{q,k,v,o}_proj.bias; where the configuration says so
// {q_norm,k_norm,post_attn_norm,post_ffn_norm}.weight, sinks.weight, {k,v}_scale (of an FP8 cache: one number each), and, in the place of gate, up and down, router.{weight,bias}
// and experts.E.{gate,up,down}_proj.{weight,bias} (but in ModelConfig::dense_layers). What a file holds fused (Phi's Q, K and V,
// stacked experts) is given as parts.
// Q and K rows are in half-split (Hugging Face) rotary order after load: see rope_interleaved().
class WeightFile {
 public:
  virtual ~WeightFile() = default;
  static Result<std::unique_ptr<WeightFile>> open(const std::string& path);
  virtual const ModelConfig& config() const = 0;
  virtual const TensorRef* find(std::string_view name) const = 0;   // nullptr if absent
  virtual std::vector<std::string_view> names() const = 0;
  // These bytes of the file have been packed: their pages may leave memory. Reading them again is allowed and costs a page fault.
  virtual void release(std::span<const std::byte>) const {}
  // True if q_proj and k_proj rows are stored interleaved per head (GGUF llama): the loader must permute whole rows,
  // row (h, 2i + j) of the file is row (h, j * head_dim / 2 + i) of the model. Elements of q_proj.bias and k_proj.bias likewise.
  virtual bool rope_interleaved() const = 0;
  // Tokenizer sources, as text or GGUF arrays; exactly one of hf_tokenizer_json() non-empty / gguf_vocab() set.
  virtual std::string hf_tokenizer_json() const = 0;
  virtual std::string hf_tokenizer_config_json() const = 0;
  struct Vocab {
    std::string model, pre;
    std::vector<std::string> tokens, merges;
    std::vector<int32_t> token_type;
    std::vector<float> scores;       // SentencePiece models
    int32_t bos = -1, eos = -1, eot = -1, unknown = -1, padding = -1;
    bool add_bos = false, add_eos = false, add_space_prefix = true;
  };
  virtual const Vocab* gguf_vocab() const = 0;
  virtual std::string chat_template() const = 0;   // "" if none
};

// The tokenizer's part alone, of a model whose weights are not needed or not there: a GGUF file, a tokenizer.json, or a directory
// that holds either (chat_template.jinja and tokenizer_config.json beside it are read too).
struct TokenizerFiles {
  std::string tokenizer_json, tokenizer_config_json, chat_template;  // "" = none
  std::optional<WeightFile::Vocab> vocab;                            // of a GGUF file
};
Result<TokenizerFiles> read_tokenizer_files(const std::string& path);

// Dequantises whole blocks: the plain reference that judges every kernel. out.size() elements, a multiple of dtype_block(d).
// Not for dtypes whose scales lie apart.
void dequantize(Dtype d, std::span<const std::byte> in, std::span<float> out);
// A whole tensor of any dtype, row by row: rows * cols elements.
void dequantize(const TensorRef& t, std::span<float> out);

}  // namespace baton::model
