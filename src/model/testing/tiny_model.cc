#include "model/testing/tiny_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>

#include "base/file.h"
#include "base/json.h"
#include "base/prng.h"
#include "model/testing/gguf_writer.h"

namespace baton::model::testing {
namespace {

// One tensor in all its names. spread: standard deviation of its random elements around mean.
struct Plan {
  std::string gguf, hf;
  int64_t rows = 1, cols = 0;
  double mean = 0, spread = 0;
  int32_t rotary_heads = 0;  // Q and K: heads whose rows GGUF's llama interleaves
  bool vector = false;       // norms and biases
};

std::vector<Plan> plan(const TinySpec& s) {
  const int64_t q = int64_t{s.heads} * s.head_dim, kv = int64_t{s.kv_heads} * s.head_dim;
  std::vector<Plan> out;
  const auto matrix = [&](std::string gguf, std::string hf, int64_t rows, int64_t cols, int32_t rotary_heads = 0) {
    out.push_back(
        {gguf + ".weight", hf + ".weight", rows, cols, 0, 1 / std::sqrt(static_cast<double>(cols)), rotary_heads, false});
  };
  const auto vector = [&](std::string gguf, std::string hf, int64_t n, double mean, int32_t rotary_heads = 0) {
    out.push_back({std::move(gguf), std::move(hf), 1, n, mean, 0.2, rotary_heads, true});
  };
  // A small embedding lets the layers, not the last token itself, decide the next token.
  out.push_back({"token_embd.weight", "model.embed_tokens.weight", s.vocab + s.padded_rows, s.hidden, 0, 0.2, 0, false});
  for (int i = 0; i < s.layers; i++) {
    const std::string g = cat("blk.", i, "."), h = cat("model.layers.", i, ".");
    vector(g + "attn_norm.weight", h + "input_layernorm.weight", s.hidden, 1);
    matrix(g + "attn_q", h + "self_attn.q_proj", q, s.hidden, s.heads);
    matrix(g + "attn_k", h + "self_attn.k_proj", kv, s.hidden, s.kv_heads);
    matrix(g + "attn_v", h + "self_attn.v_proj", kv, s.hidden);
    if (s.family == "qwen2") {
      vector(g + "attn_q.bias", h + "self_attn.q_proj.bias", q, 0, s.heads);
      vector(g + "attn_k.bias", h + "self_attn.k_proj.bias", kv, 0, s.kv_heads);
      vector(g + "attn_v.bias", h + "self_attn.v_proj.bias", kv, 0);
    }
    matrix(g + "attn_output", h + "self_attn.o_proj", s.hidden, q);
    vector(g + "ffn_norm.weight", h + "post_attention_layernorm.weight", s.hidden, 1);
    matrix(g + "ffn_gate", h + "mlp.gate_proj", s.ffn, s.hidden);
    matrix(g + "ffn_up", h + "mlp.up_proj", s.ffn, s.hidden);
    matrix(g + "ffn_down", h + "mlp.down_proj", s.hidden, s.ffn);
  }
  vector("output_norm.weight", "model.norm.weight", s.hidden, 1);
  if (!s.tied) matrix("output", "lm_head", s.vocab + s.padded_rows, s.hidden);
  return out;
}

void append_half(std::string& out, double v) { GgufWriter::append(out, std::bit_cast<uint16_t>(static_cast<_Float16>(v))); }

void append_float(std::string& out, Dtype dtype, float v) {
  if (dtype == Dtype::kF32) return GgufWriter::append(out, v);
  if (dtype == Dtype::kF16) return append_half(out, static_cast<double>(v));
  uint32_t bits = std::bit_cast<uint32_t>(v);
  bits += 0x7fff + ((bits >> 16) & 1);  // round to nearest even; our values are finite
  GgufWriter::append(out, static_cast<uint16_t>(bits >> 16));
}

// A quantised block is random bytes under a scale chosen so that its elements have the wanted spread: every bit of the format
// occurs.
struct BlockShape {
  Dtype dtype;
  size_t scale_at, min_at;  // byte offsets of the f16 fields; equal: there is no minimum
  double min_ratio;         // minimum / scale that centres the elements on zero
  double spread;            // standard deviation of the elements at scale 1
};
constexpr BlockShape kBlocks[] = {{Dtype::kQ8_0, 0, 0, 0, 73.9},     {Dtype::kQ4_0, 0, 0, 0, 4.61},
                                  {Dtype::kQ4_1, 0, 2, -7.5, 4.61},  {Dtype::kQ5_0, 0, 0, 0, 9.23},
                                  {Dtype::kQ5_1, 0, 2, -15.5, 9.23}, {Dtype::kQ4_K, 0, 2, 7.5, 255},
                                  {Dtype::kQ5_K, 0, 2, 15.5, 521},   {Dtype::kQ6_K, 208, 208, 0, 1366}};

void append_block(std::string& out, const BlockShape& shape, double spread, Prng& prng) {
  std::string block;
  while (block.size() < dtype_block_bytes(shape.dtype)) GgufWriter::append(block, prng.next());
  block.resize(dtype_block_bytes(shape.dtype));
  const double scale = spread / shape.spread;
  std::string half;
  append_half(half, scale);
  block.replace(shape.scale_at, 2, half);
  if (shape.min_at != shape.scale_at) {
    half.clear();
    append_half(half, scale * shape.min_ratio);
    block.replace(shape.min_at, 2, half);
  }
  out += block;
}

uint64_t row_seed(const TinySpec& spec, const Plan& p, int64_t row) {
  uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a of the name
  for (const char c : p.hf) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return mix64(hash ^ mix64(spec.seed)) + static_cast<uint64_t>(row);
}

void append_row(std::string& out, const TinySpec& spec, const Plan& p, int64_t row, Dtype dtype) {
  Prng prng(row_seed(spec, p, row));
  if (dtype_block(dtype) == 1) {
    const double half_width = p.spread * std::sqrt(3.0);
    // F32 norms beside 16-bit matrices hold what the 16-bit Hugging Face form holds, so that both are one model.
    const Dtype stored = dtype_block(spec.dtype) == 1 ? spec.dtype : dtype;
    std::string exact;
    for (int64_t i = 0; i < p.cols; i++) {
      append_float(exact, stored, static_cast<float>(p.mean + (2 * prng.uniform() - 1) * half_width));
    }
    std::vector<float> values(static_cast<size_t>(p.cols));
    dequantize(stored, std::as_bytes(std::span(exact)), values);
    for (const float v : values) append_float(out, dtype, v);
    return;
  }
  const auto* shape = std::ranges::find(kBlocks, dtype, &BlockShape::dtype);
  for (int64_t i = 0; i < p.cols / dtype_block(dtype); i++) append_block(out, *shape, p.spread, prng);
}

// Rows in file order. interleaved: row (h, 2i + j) of the file is row (h, j * head_dim / 2 + i) of the model.
std::string tensor_bytes(const TinySpec& spec, const Plan& p, Dtype dtype, bool interleaved) {
  std::string out;
  const bool permute = interleaved && p.rotary_heads > 0;
  const auto source = [&](int64_t r) {
    const int64_t d = spec.head_dim, within_head = r % d;
    return permute ? r / d * d + within_head % 2 * (d / 2) + within_head / 2 : r;
  };
  if (p.vector && permute) {  // a bias: its elements move as rows do
    const std::string straight = tensor_bytes(spec, p, dtype, false);
    const size_t bytes = dtype_block_bytes(dtype);
    for (int64_t i = 0; i < p.cols; i++) out += straight.substr(static_cast<size_t>(source(i)) * bytes, bytes);
    return out;
  }
  for (int64_t r = 0; r < p.rows; r++) append_row(out, spec, p, p.vector ? 0 : source(r), dtype);
  return out;
}

std::string to_f32(const std::string& bytes, Dtype dtype) {
  std::vector<float> values(bytes.size() / dtype_block_bytes(dtype) * static_cast<size_t>(dtype_block(dtype)));
  dequantize(dtype, std::as_bytes(std::span(bytes)), values);
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

uint32_t ggml_type(Dtype d) {
  switch (d) {
    case Dtype::kF32:
      return 0;
    case Dtype::kF16:
      return 1;
    case Dtype::kBf16:
      return 30;
    case Dtype::kQ8_0:
      return 8;
    case Dtype::kQ4_0:
      return 2;
    case Dtype::kQ4_1:
      return 3;
    case Dtype::kQ5_0:
      return 6;
    case Dtype::kQ5_1:
      return 7;
    case Dtype::kQ4_K:
      return 12;
    case Dtype::kQ5_K:
      return 13;
    case Dtype::kQ6_K:
      return 14;
  }
  return 0;
}

Result<> check_spec(const TinySpec& s) {
  if (s.vocab < 259)
    return fail(Code::kInvalidArgument, "tiny model: vocab ", s.vocab, " cannot hold 256 bytes and 3 special tokens");
  const int block = dtype_block(s.dtype);
  if (s.hidden % block != 0 || s.ffn % block != 0 || s.heads * s.head_dim % block != 0) {
    return fail(Code::kInvalidArgument, "tiny model: rows are not whole blocks of ", block);
  }
  return {};
}

void gguf_tokenizer(GgufWriter& w, const TinySpec& spec) {
  const TinyTokenizer t = tiny_tokenizer(spec.vocab);
  w.string("tokenizer.ggml.model", "gpt2");
  w.string("tokenizer.ggml.pre", spec.family == "qwen2" ? "qwen2" : "smollm");
  w.strings("tokenizer.ggml.tokens", t.tokens);
  w.ints("tokenizer.ggml.token_type", t.types);
  w.strings("tokenizer.ggml.merges", t.merges);
  w.u32("tokenizer.ggml.bos_token_id", 1);
  w.u32("tokenizer.ggml.eos_token_id", 2);
  w.u32("tokenizer.ggml.unknown_token_id", 0);
  w.u32("tokenizer.ggml.padding_token_id", 2);
  w.boolean("tokenizer.ggml.add_bos_token", false);
  w.string("tokenizer.chat_template", tiny_chat_template());
}

// The factor by which llama3's rule slows each frequency, as GGUF stores it (facts sheet engine.md 4.5).
std::string llama3_divisors(const TinySpec& s) {
  std::string out;
  for (int i = 0; i < s.head_dim / 2; i++) {
    const double f = std::pow(s.rope_theta, -2.0 * i / s.head_dim), wavelength = 2 * 3.14159265358979323846 / f;
    double divisor = 1;
    if (wavelength > s.rope_original_context / s.rope_low_freq_factor) {
      divisor = s.rope_factor;
    } else if (wavelength >= s.rope_original_context / s.rope_high_freq_factor) {
      const double smooth =
          (s.rope_original_context / wavelength - s.rope_low_freq_factor) / (s.rope_high_freq_factor - s.rope_low_freq_factor);
      divisor = 1 / ((1 - smooth) / s.rope_factor + smooth);
    }
    GgufWriter::append(out, static_cast<float>(divisor));
  }
  return out;
}

void gguf_rope(GgufWriter& w, const TinySpec& s) {
  const std::string key = s.family + ".rope.";
  w.f32(key + "freq_base", static_cast<float>(s.rope_theta));
  w.u32(key + "dimension_count", static_cast<uint32_t>(s.head_dim));
  if (s.rope_scaling == RopeScaling::kLinear || s.rope_scaling == RopeScaling::kYarn) {
    w.string(key + "scaling.type", s.rope_scaling == RopeScaling::kYarn ? "yarn" : "linear");
    w.f32(key + "scaling.factor", static_cast<float>(s.rope_factor));
    w.u32(key + "scaling.original_context_length", static_cast<uint32_t>(s.rope_original_context));
  }
  if (s.rope_scaling == RopeScaling::kLlama3) {
    w.tensor("rope_freqs.weight", 0, {static_cast<uint64_t>(s.head_dim / 2)}, llama3_divisors(s));
  }
}

std::string hf_config(const TinySpec& s) {
  JsonWriter w;
  const bool qwen = s.family == "qwen2";
  w.object().key("architectures").array().value(qwen ? "Qwen2ForCausalLM" : "LlamaForCausalLM").end();
  w.field("model_type", s.family).field("hidden_size", s.hidden).field("intermediate_size", s.ffn);
  w.field("num_hidden_layers", s.layers).field("num_attention_heads", s.heads).field("num_key_value_heads", s.kv_heads);
  w.field("head_dim", s.head_dim).field("vocab_size", s.vocab + s.padded_rows).field("max_position_embeddings", s.context);
  w.field("rms_norm_eps", 1e-5)
      .field("rope_theta", s.rope_theta)
      .field("tie_word_embeddings", s.tied)
      .field("hidden_act", "silu");
  w.field("attention_bias", false).field("mlp_bias", false).field("bos_token_id", 1).field("eos_token_id", 2);
  w.field("torch_dtype", s.dtype == Dtype::kF32 ? "float32" : s.dtype == Dtype::kF16 ? "float16" : "bfloat16");
  if (s.rope_scaling != RopeScaling::kNone) {
    static constexpr std::string_view kNames[] = {"", "linear", "llama3", "yarn"};
    w.key("rope_scaling").object().field("rope_type", kNames[static_cast<size_t>(s.rope_scaling)]).field("factor", s.rope_factor);
    w.field("original_max_position_embeddings", static_cast<int64_t>(s.rope_original_context));
    if (s.rope_scaling == RopeScaling::kLlama3) {
      w.field("low_freq_factor", s.rope_low_freq_factor).field("high_freq_factor", s.rope_high_freq_factor);
    }
    w.end();
  }
  w.end();
  return w.take();
}

std::string safetensors_image(const TinySpec& spec, std::span<const Plan> plans) {
  JsonWriter header;
  std::string data;
  header.object().key("__metadata__").object().field("format", "pt").end();
  for (const Plan& p : plans) {
    const size_t begin = data.size();
    data += tensor_bytes(spec, p, spec.dtype, false);
    header.key(p.hf).object().field("dtype", dtype_name(spec.dtype)).key("shape").array();
    if (!p.vector) header.value(p.rows);
    header.value(p.cols).end().key("data_offsets").array().value(begin).value(data.size()).end().end();
  }
  header.end();
  std::string text = header.take();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string out;
  GgufWriter::append<uint64_t>(out, text.size());
  return out + text + data;
}

Result<> write_safetensors(const std::string& directory, const TinySpec& spec) {
  const std::vector<Plan> plans = plan(spec);
  if (spec.shards == 1) return write_file(directory + "/model.safetensors", safetensors_image(spec, plans));
  JsonWriter index;
  index.object().key("metadata").object().field("total_size", 0).end().key("weight_map").object();
  const size_t shards = static_cast<size_t>(spec.shards);
  for (size_t i = 0; i < shards; i++) {
    const auto part =
        std::span(plans).subspan(plans.size() * i / shards, plans.size() * (i + 1) / shards - plans.size() * i / shards);
    const std::string name = cat("model-0000", i + 1, "-of-0000", shards, ".safetensors");
    for (const Plan& p : part) index.field(p.hf, name);
    BATON_OK(write_file(directory + "/" + name, safetensors_image(spec, part)));
  }
  index.end().end();
  return write_file(directory + "/model.safetensors.index.json", index.text());
}

}  // namespace

Result<std::string> tiny_gguf(const TinySpec& s) {
  BATON_OK(check_spec(s));
  GgufWriter w;
  const std::string arch = s.family + ".";
  w.string("general.architecture", s.family);
  w.string("general.name", "tiny");
  w.u32(arch + "block_count", static_cast<uint32_t>(s.layers));
  w.u32(arch + "embedding_length", static_cast<uint32_t>(s.hidden));
  w.u32(arch + "feed_forward_length", static_cast<uint32_t>(s.ffn));
  w.u32(arch + "context_length", static_cast<uint32_t>(s.context));
  w.u32(arch + "attention.head_count", static_cast<uint32_t>(s.heads));
  w.u32(arch + "attention.head_count_kv", static_cast<uint32_t>(s.kv_heads));
  w.u32(arch + "attention.key_length", static_cast<uint32_t>(s.head_dim));
  w.u32(arch + "attention.value_length", static_cast<uint32_t>(s.head_dim));
  w.f32(arch + "attention.layer_norm_rms_epsilon", 1e-5f);
  gguf_rope(w, s);
  gguf_tokenizer(w, s);
  for (const Plan& p : plan(s)) {
    const Dtype dtype = p.vector ? Dtype::kF32 : s.dtype;
    std::vector<uint64_t> dimensions{static_cast<uint64_t>(p.cols)};
    if (!p.vector) dimensions.push_back(static_cast<uint64_t>(p.rows));
    std::string bytes = tensor_bytes(s, p, dtype, s.family == "llama");
    if (s.expand) bytes = to_f32(bytes, dtype);
    w.tensor(p.gguf, ggml_type(s.expand ? Dtype::kF32 : dtype), dimensions, bytes);
  }
  return w.image();
}

Result<> write_tiny_gguf(const std::string& path, const TinySpec& spec) {
  BATON_TRY(const std::string image, tiny_gguf(spec));
  return write_file(path, image);
}

Result<> write_tiny_hf(const std::string& directory, const TinySpec& spec) {
  BATON_OK(check_spec(spec));
  if (dtype_block(spec.dtype) != 1) return fail(Code::kInvalidArgument, "tiny model: Hugging Face form is F32, F16 or BF16");
  if (spec.shards < 1 || spec.shards > 9) return fail(Code::kInvalidArgument, "tiny model: 1 to 9 shards");
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  BATON_OK(write_file(directory + "/config.json", hf_config(spec)));
  BATON_OK(write_file(directory + "/generation_config.json",
                      R"({"bos_token_id":1,"eos_token_id":[2,0],"temperature":0.7,"top_p":0.9})"));
  BATON_OK(write_file(directory + "/tokenizer.json", tiny_tokenizer_json(tiny_tokenizer(spec.vocab), spec.family)));
  BATON_OK(write_file(directory + "/tokenizer_config.json", tiny_tokenizer_config_json()));
  return write_safetensors(directory, spec);
}

}  // namespace baton::model::testing
