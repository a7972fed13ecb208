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
#include "model/testing/tiny_plan.h"
#include "model/testing/tiny_quantised.h"
#include "model/testing/tiny_stacks.h"

namespace baton::model::testing {
namespace {

constexpr int32_t kPattern = 2;  // of sliding layers: every second sees all

const TinyFamily& family_of(const TinySpec& s) { return *find_tiny_family(s.family); }

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
constexpr BlockShape kBlocks[] = {
    {Dtype::kQ8_0, 0, 0, 0, 73.9},   {Dtype::kQ4_0, 0, 0, 0, 4.61},     {Dtype::kQ4_1, 0, 2, -7.5, 4.61},
    {Dtype::kQ5_0, 0, 0, 0, 9.23},   {Dtype::kQ5_1, 0, 2, -15.5, 9.23}, {Dtype::kQ4_K, 0, 2, 7.5, 255},
    {Dtype::kQ5_K, 0, 2, 15.5, 521}, {Dtype::kQ6_K, 208, 208, 0, 1366}, {Dtype::kMxfp4, 0, 0, 0, 2.93}};

void append_block(std::string& out, const BlockShape& shape, double spread, Prng& prng) {
  std::string block;
  while (block.size() < dtype_block_bytes(shape.dtype)) GgufWriter::append(block, prng.next());
  block.resize(dtype_block_bytes(shape.dtype));
  const double scale = spread / shape.spread;
  if (shape.dtype == Dtype::kMxfp4) {  // its scale is a power of two in one byte
    block[0] = static_cast<char>(127 + std::lround(std::log2(scale)));
    out += block;
    return;
  }
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

// F32 values, each plus `offset`.
std::string shifted(const std::string& bytes, float offset) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += sizeof(float)) {
    float f;
    std::memcpy(&f, bytes.data() + i, sizeof f);
    GgufWriter::append(out, f + offset);
  }
  return out;
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
    case Dtype::kMxfp4:
      return 39;
    default:
      break;  // not in GGUF
  }
  return 0;
}

Result<> check_spec(const TinySpec& s) {
  if (!find_tiny_family(s.family)) return fail(Code::kInvalidArgument, "tiny model: family ", s.family, " is not known");
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
  w.string("tokenizer.ggml.pre", spec.family.starts_with("qwen") ? "qwen2" : "smollm");
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

std::vector<double> longrope_divisors(const TinySpec& s, bool long_ones) {
  std::vector<double> out;
  for (int i = 0; i < (s.rotated > 0 ? s.rotated : s.head_dim) / 2; i++) out.push_back(1 + i * (long_ones ? 0.5 : 0.0625));
  return out;
}
double longrope_magnitude(const TinySpec& s) {
  const double factor = s.context / s.rope_original_context;
  return factor > 1 ? std::sqrt(1 + std::log(factor) / std::log(s.rope_original_context)) : 1;
}

void gguf_rope(GgufWriter& w, const TinySpec& s) {
  const std::string key = s.family + ".rope.";
  w.f32(key + "freq_base", static_cast<float>(s.rope_theta));
  w.u32(key + "dimension_count", static_cast<uint32_t>(s.rotated > 0 ? s.rotated : s.head_dim));
  if (s.rope_scaling == RopeScaling::kLinear || s.rope_scaling == RopeScaling::kYarn) {
    w.string(key + "scaling.type", s.rope_scaling == RopeScaling::kYarn ? "yarn" : "linear");
    w.f32(key + "scaling.factor", static_cast<float>(s.rope_factor));
    w.u32(key + "scaling.original_context_length", static_cast<uint32_t>(s.rope_original_context));
  }
  if (s.rope_scaling == RopeScaling::kLongRope) {
    w.u32(key + "scaling.original_context_length", static_cast<uint32_t>(s.rope_original_context));
    w.f32(key + "scaling.attn_factor", static_cast<float>(longrope_magnitude(s)));
    for (const bool long_ones : {false, true}) {
      std::string bytes;
      for (const double d : longrope_divisors(s, long_ones)) GgufWriter::append(bytes, static_cast<float>(d));
      w.tensor(long_ones ? "rope_factors_long.weight" : "rope_factors_short.weight", 0, {bytes.size() / sizeof(float)}, bytes);
    }
  }
  if (s.rope_scaling == RopeScaling::kLlama3) {
    w.tensor("rope_freqs.weight", 0, {static_cast<uint64_t>(s.head_dim / 2)}, llama3_divisors(s));
  }
}

// Keys that some families have beyond the common ones.
void gguf_features(GgufWriter& w, const TinySpec& s) {
  const TinyFamily& f = family_of(s);
  const std::string key = s.family + ".";
  if (s.window > 0) w.u32(key + "attention.sliding_window", static_cast<uint32_t>(s.window));
  if (f.gemma) w.u32(key + "attention.sliding_window_pattern", kPattern);
  if (s.family == "gemma2") w.f32(key + "attn_logit_softcapping", static_cast<float>(s.soft_cap));
  if (s.family == "gemma2") w.f32(key + "final_logit_softcapping", static_cast<float>(2 * s.soft_cap));
  if (!f.experts) return;
  w.u32(key + "expert_count", static_cast<uint32_t>(s.experts));
  w.u32(key + "expert_used_count", static_cast<uint32_t>(s.experts_used));
  w.u32(key + "expert_feed_forward_length", static_cast<uint32_t>(s.ffn));
}

void hf_rope(JsonWriter& w, const TinySpec& s) {
  if (s.rotated > 0) w.field("partial_rotary_factor", static_cast<double>(s.rotated) / s.head_dim);
  if (s.rope_scaling == RopeScaling::kNone) return;
  static constexpr std::string_view kNames[] = {"", "linear", "llama3", "yarn", "longrope"};
  if (s.rope_scaling == RopeScaling::kLongRope) {
    w.field("original_max_position_embeddings", static_cast<int64_t>(s.rope_original_context));
    w.key("rope_scaling").object().field("rope_type", "longrope");
    for (const bool long_ones : {false, true}) {
      w.key(long_ones ? "long_factor" : "short_factor").array();
      for (const double d : longrope_divisors(s, long_ones)) w.value(d);
      w.end();
    }
    w.end();
    return;
  }
  w.key("rope_scaling").object().field("rope_type", kNames[static_cast<size_t>(s.rope_scaling)]).field("factor", s.rope_factor);
  w.field("original_max_position_embeddings", static_cast<int64_t>(s.rope_original_context));
  if (s.rope_scaling == RopeScaling::kLlama3) {
    w.field("low_freq_factor", s.rope_low_freq_factor).field("high_freq_factor", s.rope_high_freq_factor);
  }
  if (family_of(s).oss) w.field("truncate", false);
  w.end();
}

void hf_features(JsonWriter& w, const TinySpec& s) {
  const TinyFamily& f = family_of(s);
  if (s.window > 0) w.field("sliding_window", s.window);
  if (f.gemma) {
    w.field("hidden_activation", "gelu_pytorch_tanh").field("query_pre_attn_scalar", s.head_dim);
    w.field("sliding_window_pattern", kPattern);
  }
  if (s.family == "gemma2") w.field("attn_logit_softcapping", s.soft_cap).field("final_logit_softcapping", 2 * s.soft_cap);
  if (f.oss) {
    w.field("num_local_experts", s.experts).field("num_experts_per_tok", s.experts_used).field("swiglu_limit", 7.0);
  } else if (f.experts) {
    w.field("num_experts", s.experts).field("num_experts_per_tok", s.experts_used).field("moe_intermediate_size", s.ffn);
    w.field("norm_topk_prob", true).field("decoder_sparse_step", s.sparse_step).key("mlp_only_layers").array();
    if (s.dense_layer >= 0) w.value(s.dense_layer);
    w.end();
  }
}

std::string hf_config(const TinySpec& s) {
  JsonWriter w;
  const TinyFamily& f = family_of(s);
  const bool mistral = s.family == "llama" && s.window > 0;
  w.object().key("architectures").array().value(mistral ? "MistralForCausalLM" : f.hf_class).end();
  w.field("model_type", mistral ? "mistral" : f.hf_type).field("hidden_size", s.hidden).field("intermediate_size", s.dense_ffn > 0 ? s.dense_ffn : s.ffn);
  w.field("num_hidden_layers", s.layers).field("num_attention_heads", s.heads).field("num_key_value_heads", s.kv_heads);
  w.field("head_dim", s.head_dim).field("vocab_size", s.vocab + s.padded_rows).field("max_position_embeddings", s.context);
  w.field("rms_norm_eps", 1e-5).field("rope_theta", s.rope_theta).field("tie_word_embeddings", s.tied);
  if (!f.gemma) w.field("hidden_act", "silu");
  w.field("attention_bias", f.oss).field("mlp_bias", false).field("bos_token_id", 1).field("eos_token_id", 2);
  w.field("pad_token_id", 2);
  w.field("torch_dtype", s.dtype == Dtype::kF32 ? "float32" : s.dtype == Dtype::kF16 ? "float16" : "bfloat16");
  hf_features(w, s);
  hf_rope(w, s);
  if (!s.quant.empty() && !s.expand) w.key("quantization_config").raw(quantisation_config(s.quant));
  w.end();
  return w.take();
}

// A tensor of the plan as the file has it: several if it is quantised.
std::vector<StoredTensor> stored(const TinySpec& spec, const Plan& p) {
  std::string bytes = tensor_bytes(spec, p, spec.dtype, false);
  const std::vector<int64_t> shape = p.vector ? std::vector{p.cols} : std::vector{p.rows, p.cols};
  constexpr std::string_view kSuffix = ".weight";
  if (spec.quant.empty() || family_of(spec).oss || !p.hf.ends_with("_proj.weight"))  // routers stay plain, as packers leave them
    return {{p.hf, std::string(dtype_name(spec.dtype)), shape, std::move(bytes)}};
  std::vector<float> values(static_cast<size_t>(p.rows * p.cols));
  dequantize(spec.dtype, std::as_bytes(std::span(bytes)), values);
  QuantisedLinear q = quantise_linear(spec.quant, p.hf.substr(0, p.hf.size() - kSuffix.size()), p.rows, p.cols, values);
  for (const char c : {'k', 'v'}) {  // in two of the places where packers put them
    const std::string module = "self_attn.", end = cat(c, "_proj.weight");
    if (spec.cache_scale == 0 || spec.expand || !p.hf.ends_with(module + end)) continue;
    q.tensors.push_back({cat(p.hf.substr(0, p.hf.size() - end.size()), c == 'v' ? "attn." : "", c, "_scale"), "F32",
                         c == 'k' ? std::vector<int64_t>{1} : std::vector<int64_t>{},
                         {reinterpret_cast<const char*>(&spec.cache_scale), sizeof(float)}});
  }
  if (!spec.expand) return std::move(q.tensors);
  return {{p.hf, "F32", shape, {reinterpret_cast<const char*>(q.values.data()), q.values.size() * sizeof(float)}}};
}

std::vector<StoredTensor> stored(const TinySpec& spec) {
  std::vector<StoredTensor> out;
  for (const Plan& p : plan(spec))
    for (StoredTensor& t : stored(spec, p)) out.push_back(std::move(t));
  return family_of(spec).oss ? stack_experts(spec, std::move(out)) : out;
}

std::string safetensors_image(std::span<const StoredTensor> tensors) {
  JsonWriter header;
  std::string data;
  header.object().key("__metadata__").object().field("format", "pt").end();
  for (const StoredTensor& t : tensors) {
    const size_t begin = data.size();
    data += t.bytes;
    header.key(t.name).object().field("dtype", t.dtype).key("shape").array();
    for (const int64_t n : t.shape) header.value(n);
    header.end().key("data_offsets").array().value(begin).value(data.size()).end().end();
  }
  header.end();
  std::string text = header.take();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string out;
  GgufWriter::append<uint64_t>(out, text.size());
  return out + text + data;
}

Result<> write_safetensors(const std::string& directory, const TinySpec& spec) {
  const std::vector<StoredTensor> tensors = stored(spec);
  if (spec.shards == 1) return write_file(directory + "/model.safetensors", safetensors_image(tensors));
  JsonWriter index;
  index.object().key("metadata").object().field("total_size", 0).end().key("weight_map").object();
  const size_t shards = static_cast<size_t>(spec.shards);
  for (size_t i = 0; i < shards; i++) {
    const size_t begin = tensors.size() * i / shards;
    const auto part = std::span(tensors).subspan(begin, tensors.size() * (i + 1) / shards - begin);
    const std::string name = cat("model-0000", i + 1, "-of-0000", shards, ".safetensors");
    for (const StoredTensor& t : part) index.field(t.name, name);
    BATON_OK(write_file(directory + "/" + name, safetensors_image(part)));
  }
  index.end().end();
  return write_file(directory + "/model.safetensors.index.json", index.text());
}

}  // namespace

Result<std::string> tiny_gguf(const TinySpec& s) {
  BATON_OK(check_spec(s));
  if (s.hf_only()) return fail(Code::kInvalidArgument, "tiny model: GGUF has no such form");
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
  gguf_features(w, s);
  const std::vector<Plan> plans = plan(s);
  for (size_t i = 0; i < plans.size();) {
    const Plan& p = plans[i];
    const Dtype dtype = p.vector ? Dtype::kF32 : s.dtype;
    std::vector<uint64_t> dimensions{static_cast<uint64_t>(p.cols)};
    if (!p.vector) dimensions.push_back(static_cast<uint64_t>(p.rows));
    std::string bytes;
    uint64_t stacked = 0;
    for (; i < plans.size() && plans[i].gguf == p.gguf; i++, stacked++) {
      bytes += tensor_bytes(s, plans[i], dtype, family_of(s).interleaved);
    }
    if (stacked > 1) dimensions.push_back(stacked);
    if (p.gguf_offset != 0) bytes = shifted(bytes, p.gguf_offset);
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
  if (!spec.quant.empty() && (!known_scheme(spec.quant) || (spec.quant == "mxfp4") != family_of(spec).oss))
    return fail(Code::kInvalidArgument, "tiny model: unknown scheme ", spec.quant);
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
