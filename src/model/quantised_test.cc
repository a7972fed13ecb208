// Checkpoints in every quantised form, written by the formats' own packing rules (testing/tiny_quantised.cc), against the same
// model with its weights dequantised to F32.
#include "model/quantised.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/prng.h"
#include "model/model.h"
#include "model/testing/reference.h"
#include "model/testing/tiny_model.h"
#include "model/weight_data.h"
#include "tensor/ops.h"

namespace baton::model {
namespace {

using ::testing::HasSubstr;
using testing::relative_error;
using testing::TinySpec;

constexpr const char* kSchemes[] = {"fp8",   "fp8-channel", "fp8-block", "int8",  "w4a16", "w4a16-asym",    "w8a16",
                                    "gptq",  "gptq-asym",   "gptq8",     "awq",   "gptq-actorder", "mxfp4"};

TinySpec spec_of(const std::string& scheme, bool expand = false) {
  return {.layers = 2,
          .hidden = 128,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 32,
          .ffn = 192,
          .dtype = Dtype::kBf16,
          .expand = expand,
          .family = scheme == "mxfp4" ? "gpt-oss" : "llama",
          .seed = 61,
          .quant = scheme};
}

// A checkpoint in the test's directory, removed with the object.
struct TinyDirectory {
  explicit TinyDirectory(const TinySpec& spec) {
    path = (std::filesystem::path(::testing::TempDir()) /
            cat("tiny_", getpid(), "_", spec.quant, spec.expand ? "_float" : "", "_", spec.layers))
               .string();
    const auto written = testing::write_tiny_hf(path, spec);
    EXPECT_TRUE(written) << written.error().message;
  }
  ~TinyDirectory() { std::filesystem::remove_all(path); }
  std::string path;
};

std::vector<float> values(const WeightFile& file, std::string_view name) {
  const TensorRef* t = file.find(name);
  EXPECT_TRUE(t) << name;
  std::vector<float> out(t ? static_cast<size_t>(t->rows * t->cols) : 0);
  if (t) dequantize(*t, out);
  return out;
}

TEST(QuantisedCheckpoints, HoldTheValuesThatTheirPackersMeant) {
  std::vector<std::pair<std::string, std::string>> cases;
  for (const char* scheme : kSchemes) cases.emplace_back(scheme, spec_of(scheme).family);
  for (const char* scheme : {"fp8", "fp8-channel", "fp8-block", "int8", "w4a16-asym"}) cases.emplace_back(scheme, "phi3");  // cut
  for (const char* scheme : {"fp8-channel", "gptq", "awq"}) cases.emplace_back(scheme, "qwen3moe");
  for (const auto& [scheme, family] : cases) {
    TinySpec spec = spec_of(scheme), floats = spec_of(scheme, true);
    spec.family = floats.family = family;
    const TinyDirectory quantised(spec), expanded(floats);
    const auto a = WeightFile::open(quantised.path), b = WeightFile::open(expanded.path);
    ASSERT_TRUE(a) << scheme << ": " << a.error().message;
    ASSERT_TRUE(b) << scheme << ": " << b.error().message;
    for (const std::string_view name : (*b)->names()) {
      const TensorRef* t = (*a)->find(name);
      ASSERT_TRUE(t) << scheme << " " << name;
      const std::vector<float> want = values(**b, name), got = values(**a, name);
      ASSERT_EQ(got, want) << scheme << " " << name;
      // The packer of the kernels reads them alike.
      const tensor::Matrix m = t->matrix();
      std::vector<float> row(static_cast<size_t>(t->cols));
      for (int64_t r = 0; r < t->rows; ++r) {
        tensor::decode_row(m, r, row.data());
        ASSERT_EQ(std::memcmp(row.data(), want.data() + r * t->cols, row.size() * 4), 0) << scheme << " " << name << " row " << r;
      }
    }
  }
}

// A model with its cache.
struct Engine {
  Engine(const std::string& path, const std::string& isa, int threads, std::optional<kv::KvDtype> kv_dtype = kv::KvDtype::kBf16) {
    auto loaded = Model::load(path, {.threads = threads, .isa = isa, .kv_dtype = kv_dtype, .progress = {}});
    EXPECT_TRUE(loaded) << loaded.error().message;
    if (!loaded) return;
    model = *std::move(loaded);
    const size_t bytes = 16 * model->kv_layout().block_bytes();
    pool.reset(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{64})));
    std::fill_n(pool.get(), bytes, std::byte{0});
    EXPECT_TRUE(model->bind_kv({pool.get(), bytes}));
  }
  // Logits of every token, computed `chunk` tokens a step.
  std::vector<float> logits(std::span<const int32_t> tokens, int chunk) {
    const std::vector<int32_t> blocks = {3, 0, 2, 1, 4};
    std::vector<float> out;
    for (int at = 0; at < static_cast<int>(tokens.size()); at += chunk) {
      const SeqInput seq{.tokens = tokens.subspan(at, std::min<size_t>(chunk, tokens.size() - at)),
                         .first_position = at,
                         .blocks = blocks,
                         .all_logits = true};
      const auto step = model->step({&seq, 1});
      EXPECT_TRUE(step) << step.error().message;
      if (step) out.insert(out.end(), step->begin(), step->end());
    }
    return out;
  }
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte, Free> pool;
  std::unique_ptr<Model> model;
};

TEST(QuantisedCheckpoints, LogitsAgreeWithTheDequantisedModelAndDoNotDependOnChunks) {
  Prng prng(62);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 60; ++i) tokens.push_back(static_cast<int32_t>(prng.below(384)));
  for (const char* scheme : kSchemes) {
    const TinyDirectory quantised(spec_of(scheme)), expanded(spec_of(scheme, true));
    for (const char* isa : {"plain", "avx2", "avx512"}) {
      if (!tensor::find_ops(isa)) continue;
      const std::vector<float> want = Engine(expanded.path, isa, 2).logits(tokens, 60);
      const std::vector<float> got = Engine(quantised.path, isa, 2).logits(tokens, 60);
      ASSERT_EQ(got.size(), want.size());
      const double error = relative_error(got, want);
      printf("%s %s: relative error %.5f\n", isa, scheme, error);
      // FP8 weights are exact and meet bf16 activations; integers meet 8-bit ones, in blocks of 32 inputs.
      EXPECT_LT(error, std::string_view(scheme).starts_with("fp8") ? 0.01 : 0.03) << isa << " " << scheme;
      EXPECT_GT(error, 0) << isa << " " << scheme << ": the quantised kernels did not run";
      const std::vector<float> pieces = Engine(quantised.path, isa, 1).logits(tokens, 7);
      EXPECT_EQ(std::memcmp(got.data(), pieces.data(), got.size() * 4), 0) << isa << " " << scheme;
    }
  }
}

// k_scale and v_scale of a checkpoint: an FP8 cache holds values over them, other caches do not ask. Small values keep their bits.
TEST(QuantisedCheckpoints, ScalesOfTheCacheAreTheCheckpoints) {
  Prng prng(63);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 60; ++i) tokens.push_back(static_cast<int32_t>(prng.below(384)));
  const auto logits = [&](float scale, kv::KvDtype dtype) {
    TinySpec spec = spec_of("fp8");
    spec.cache_scale = scale;
    const TinyDirectory directory(spec);
    return Engine(directory.path, "auto", 2, dtype).logits(tokens, 60);
  };
  const auto wide = logits(0, kv::KvDtype::kBf16), plain = logits(0, kv::KvDtype::kE4m3);
  const auto error = [&](float scale) { return relative_error(logits(scale, kv::KvDtype::kE4m3), wide); };
  EXPECT_EQ(logits(0.01f, kv::KvDtype::kBf16), wide);
  EXPECT_EQ(logits(0.01f, kv::KvDtype::kI8Scaled), logits(0, kv::KvDtype::kI8Scaled));
  EXPECT_EQ(logits(1, kv::KvDtype::kE4m3), plain);
  EXPECT_LE(error(0x1p-6f), relative_error(plain, wide)) << "a power of two only moves values out of the coarse range";
  EXPECT_GT(error(0x1p-6f), 0);
  EXPECT_LT(error(0.013f), 0.05);
  EXPECT_GT(error(0x1p-16f), 0.1) << "far too small: everything saturates";
}

// A cache whose dtype nobody names is the one that the checkpoint was made for.
TEST(QuantisedCheckpoints, MayAskForAnFp8Cache) {
  Prng prng(64);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 60; ++i) tokens.push_back(static_cast<int32_t>(prng.below(384)));
  TinySpec spec = spec_of("fp8-channel-kv"), silent = spec_of("fp8-channel");
  spec.cache_scale = silent.cache_scale = 0.013f;
  const TinyDirectory asks(spec), says_nothing(silent);
  Engine automatic(asks.path, "auto", 2, std::nullopt), fp8(asks.path, "auto", 2, kv::KvDtype::kE4m3),
      named(asks.path, "auto", 2, kv::KvDtype::kBf16), plain(says_nothing.path, "auto", 2, std::nullopt);
  EXPECT_EQ(automatic.model->kv_layout().dtype, kv::KvDtype::kE4m3);
  EXPECT_EQ(named.model->kv_layout().dtype, kv::KvDtype::kBf16);
  EXPECT_EQ(plain.model->kv_layout().dtype, kv::KvDtype::kBf16);
  EXPECT_EQ(automatic.logits(tokens, 60), fp8.logits(tokens, 60));
  EXPECT_EQ(named.logits(tokens, 60), plain.logits(tokens, 60));
  EXPECT_NE(automatic.logits(tokens, 60), named.logits(tokens, 60));
}

TEST(QuantisedCheckpoints, WhichSchemesOfTheCacheAreKept) {
  const std::pair<std::string_view, bool> cases[] = {
      {R"("quant_method":"compressed-tensors","config_groups":{},"kv_cache_scheme":null)", false},
      {R"("quant_method":"compressed-tensors","config_groups":{},"kv_cache_scheme":{"num_bits":8,"type":"float"})", true},
      {R"("quant_method":"compressed-tensors","config_groups":{},"kv_cache_scheme":{"num_bits":8,"type":"float","strategy":"tensor",)"
       R"("symmetric":true,"dynamic":false,"group_size":null})",
       true},
      {R"("quant_method":"compressed-tensors","config_groups":{},"kv_cache_scheme":{"num_bits":8,"type":"int"})", false},
      {R"("quant_method":"compressed-tensors","config_groups":{},"kv_cache_scheme":{"num_bits":4,"type":"float"})", false},
      {R"("quant_method":"compressed-tensors","config_groups":{},"kv_cache_scheme":{"num_bits":8,"type":"float","dynamic":true})", false},
      {R"("quant_method":"compressed-tensors","config_groups":{},"kv_cache_scheme":{"num_bits":8,"type":"float","symmetric":false})",
       false},
      {R"("quant_method":"compressed-tensors","config_groups":{},"kv_cache_scheme":{"num_bits":8,"type":"float","strategy":"attn_head"})",
       false},
      {R"("quant_method":"modelopt","quant_algo":"FP8")", false},
      {R"("quant_method":"modelopt","quant_algo":"FP8","kv_cache_quant_algo":"FP8")", true},
      {R"("quant_method":"modelopt","quantization":{"quant_algo":"FP8","kv_cache_quant_algo":"FP8"})", true},
      {R"("quant_method":"modelopt","quant_algo":"FP8","kv_cache_scheme":{"dynamic":false,"num_bits":8,"type":"float"})", true},
      {R"("quant_method":"fp8")", false},
      {R"("quant_method":"mxfp4")", false}};
  for (const auto& [fields, fp8] : cases) {
    const auto q = parse_quantisation(*parse_json(cat(R"({"quantization_config":{)", fields, "}}")));
    ASSERT_TRUE(q) << fields << ": " << q.error().message;
    EXPECT_EQ(q->fp8_cache, fp8) << fields;
  }
}

TEST(QuantisedTensors, ScalesOfTheCacheAreFoundWherePackersPutThem) {
  const float half = 0.5f;
  const auto neutral = [](std::string_view name) {
    return name == "m.0.self_attn.k_proj.weight" ? std::string("layers.0.k_proj.weight") : std::string();
  };
  for (const char* name : {"m.0.self_attn.v_scale", "m.0.self_attn.attn.v_scale", "m.0.self_attn.v_proj.v_scale",
                           "m.0.self_attn.v_proj.output_scale"}) {
    QuantisedTensors tensors({.method = Quantisation::Method::kScaled});
    const Safetensor t{.name = name, .dtype_text = "F32", .dtype = Dtype::kF32, .shape = {}, .bytes = std::as_bytes(std::span(&half, 1))};
    EXPECT_TRUE(*tensors.take(t, neutral));
    EXPECT_FALSE(tensors.take(t, neutral)) << "twice";
    std::map<std::string, TensorRef, std::less<>> out;
    ASSERT_TRUE(tensors.finish(out));
    EXPECT_TRUE(out.contains("layers.0.v_scale")) << name;
  }
}

// Resident bytes of this process's mappings of files below `directory`.
size_t resident(const std::string& directory) {
  std::ifstream in("/proc/self/smaps");
  size_t total = 0;
  bool ours = false;
  for (std::string line; std::getline(in, line);) {
    if (line.find('-') < line.find(' ')) ours = line.find(directory) != line.npos;
    if (ours && line.starts_with("Rss:")) total += std::stoul(line.substr(4)) * 1024;
  }
  return total;
}

TEST(QuantisedCheckpoints, WeightsAreResidentOnceAndStaySmall) {
  const std::pair<const char*, double> schemes[] = {
      {"fp8-channel", 1.02}, {"int8", 1.02}, {"fp8-block", 1.13}, {"gptq", 0.57}, {"awq", 0.63}};
  for (const auto& [scheme, bytes_a_weight] : schemes) {
    TinySpec spec = spec_of(scheme);
    spec.layers = 3;
    spec.hidden = 256;
    spec.ffn = 512;
    const TinyDirectory directory(spec);
    const auto model = Model::load(directory.path, {.threads = 1, .progress = {}});
    ASSERT_TRUE(model) << model.error().message;
    const int64_t weights = 3 * (256 * 128 * 2 + 256 * 64 * 2 + 3 * 256 * 512), head = 384 * 256;
    EXPECT_LE((*model)->weight_bytes(), static_cast<double>(weights) * bytes_a_weight + head * 2 + 7 * 256 * 4) << scheme;
    const size_t file = std::filesystem::file_size(directory.path + "/model.safetensors");
    EXPECT_LT(resident(directory.path), file / 2) << scheme << " of " << file << " bytes";
  }
}

TEST(QuantisedCheckpoints, UnknownSchemesAreRefusedByName) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {R"({"quant_method":"bitsandbytes"})", "quant_method \"bitsandbytes\" is not supported; supported: fp8"},
      {R"({"quant_method":"modelopt","quant_algo":"NVFP4"})", "modelopt's quant_algo \"NVFP4\""},
      {R"({"bits":4})", "quant_method \"\" is not supported"},
      {R"({"quant_method":"fp8","weight_block_size":[128,100]})", "multiple of 32"},
      {R"({"quant_method":"compressed-tensors","format":"nvfp4-pack-quantized","config_groups":{}})", "nvfp4-pack-quantized"},
      {R"({"quant_method":"compressed-tensors","format":"float-quantized"})", "\"config_groups\" is missing"},
      {R"({"quant_method":"compressed-tensors","config_groups":{"a":{"weights":{"num_bits":4,"type":"float"}}}})",
       "4 bits, type \"float\""},
      {R"({"quant_method":"compressed-tensors","config_groups":{"a":{"weights":{"num_bits":3,"type":"int"}}}})",
       "3 bits, type \"int\""},
      {R"({"quant_method":"compressed-tensors","config_groups":{},"sparsity_config":{"format":"sparse-24-bitmask"}})",
       "sparse-24-bitmask"},
      {R"({"quant_method":"compressed-tensors","config_groups":{},"transform_config":{"config_groups":{}}})", "transform_config"},
      {R"({"quant_method":"gptq","bits":3})", "gptq with 3 bits"},
      {R"({"quant_method":"gptq","bits":4,"group_size":48})", "groups of 48"},
      {R"({"quant_method":"gptq","bits":4,"checkpoint_format":"marlin"})", "marlin"},
      {R"({"quant_method":"awq","bits":8})", "awq with 8 bits"},
      {R"({"quant_method":"awq","bits":4,"version":"gemv"})", "\"gemv\""},
      {R"({"quant_method":"quark","global_quant_config":{"weight":{"dtype":"int4"}}})", "\"int4\""},
  };
  for (const auto& [config, says] : cases) {
    const auto json = parse_json(cat(R"({"quantization_config":)", config, "}"));
    ASSERT_TRUE(json) << config;
    const auto q = parse_quantisation(*json);
    ASSERT_FALSE(q) << config;
    EXPECT_THAT(q.error().message, HasSubstr(says)) << config;
  }
  EXPECT_EQ(parse_quantisation(*parse_json("{}"))->method, Quantisation::Method::kNone);
  EXPECT_EQ(parse_quantisation(*parse_json(R"({"quantization_config":null})"))->method, Quantisation::Method::kNone);
  EXPECT_EQ(parse_quantisation(*parse_json(R"({"quantization_config":{"quant_method":"gptq","group_size":-1}})"))->group, 0);
}

// Parts that do not fit each other are errors, never reads outside a tensor.
TEST(QuantisedTensors, PartsMustFit) {
  using Method = Quantisation::Method;
  const std::vector<std::byte> zeros(1 << 16);
  const auto tensor = [&](const char* part, const char* dtype, std::vector<int64_t> shape) {
    const bool is_float = std::string_view(dtype) == "F32";
    return Safetensor{.name = cat("m.", part),
                      .dtype_text = dtype,
                      .dtype = is_float ? std::optional(Dtype::kF32) : std::nullopt,
                      .shape = std::move(shape),
                      .bytes = zeros};
  };
  const auto error = [&](const Quantisation& q, const std::vector<Safetensor>& parts) {
    QuantisedTensors tensors(q);
    for (const Safetensor& t : parts) {
      const auto taken = tensors.take(t, [](std::string_view name) { return std::string(name); });
      if (!taken) return taken.error().message;
      EXPECT_TRUE(*taken) << t.name;
    }
    std::map<std::string, TensorRef, std::less<>> out;
    const auto done = tensors.finish(out);
    return done ? std::string() : done.error().message;
  };
  const Quantisation scaled{.method = Method::kScaled}, gptq{.method = Method::kGptq, .group = 32},
      awq{.method = Method::kAwq, .group = 32};
  const auto fp8 = tensor("weight", "F8_E4M3", {16, 64});
  EXPECT_EQ(error(scaled, {fp8, tensor("weight_scale", "F32", {})}), "");
  EXPECT_EQ(error(scaled, {fp8, tensor("weight_scale", "F32", {16, 1})}), "");
  EXPECT_EQ(error(scaled, {fp8, tensor("weight_scale", "F32", {16, 2})}), "");
  EXPECT_THAT(error(scaled, {fp8}), HasSubstr("has no weight_scale"));
  EXPECT_THAT(error(scaled, {tensor("weight_scale", "F32", {})}), HasSubstr("no weight beside it"));
  EXPECT_THAT(error(scaled, {fp8, fp8}), HasSubstr("occurs twice"));
  EXPECT_THAT(error(scaled, {fp8, tensor("weight_scale", "F32", {15, 1})}), HasSubstr("no scales of 16 x 64"));
  EXPECT_THAT(error(scaled, {fp8, tensor("weight_scale", "F32", {16, 3})}), HasSubstr("no scales of 16 x 64"));
  EXPECT_THAT(error(scaled, {fp8, tensor("weight_scale", "F32", {16, 4})}), HasSubstr("groups of 16"));
  EXPECT_THAT(error(scaled, {fp8, tensor("weight_scale", "F8_E8M0", {16, 1})}), HasSubstr("F8_E8M0"));
  EXPECT_THAT(error(scaled, {tensor("weight", "F8_E5M2", {16, 64}), tensor("weight_scale", "F32", {})}), HasSubstr("F8_E5M2"));
  EXPECT_THAT(error(scaled, {tensor("weight", "I8", {16, 60}), tensor("weight_scale", "F32", {})}), HasSubstr("multiple of 32"));
  EXPECT_THAT(
      error({.method = Method::kScaled, .block_rows = 8, .block_cols = 32}, {fp8, tensor("weight_scale_inv", "F32", {2, 1})}),
      HasSubstr("no scales"));
  const auto qweight = tensor("qweight", "I32", {8, 16}), scales = tensor("scales", "F32", {2, 16}),
             qzeros = tensor("qzeros", "I32", {2, 2});
  EXPECT_EQ(error(gptq, {qweight, scales, qzeros}), "");
  EXPECT_THAT(error(gptq, {qweight, scales}), HasSubstr("lacks"));
  EXPECT_THAT(error(gptq, {qweight, scales, tensor("qzeros", "I32", {2, 1})}), HasSubstr("do not fit"));
  EXPECT_THAT(error(gptq, {qweight, tensor("scales", "F32", {1, 16}), qzeros}), HasSubstr("do not fit"));
  EXPECT_THAT(error(gptq, {qweight, scales, qzeros, tensor("g_idx", "I32", {63})}), HasSubstr("g_idx"));
  EXPECT_EQ(error(gptq, {qweight, scales, qzeros, tensor("g_idx", "I32", {64})}), "");  // all of group 0
  Safetensor beyond = tensor("g_idx", "I32", {64});
  const std::vector<std::byte> ones(256, std::byte{1});
  beyond.bytes = ones;
  EXPECT_THAT(error(gptq, {qweight, scales, qzeros, beyond}), HasSubstr("names group 16843009 of 2"));
  EXPECT_EQ(error(awq, {tensor("qweight", "I32", {64, 2}), scales, qzeros}), "");
  EXPECT_THAT(error(awq, {qweight, scales, qzeros}), HasSubstr("multiple of 32"));
  const auto packed = tensor("weight_packed", "I32", {16, 8});
  EXPECT_THAT(error(scaled, {packed, tensor("weight_scale", "F32", {16, 2})}), HasSubstr("weight_shape"));
  EXPECT_THAT(error(scaled, {packed, tensor("weight_scale", "F32", {16, 2}), tensor("weight_shape", "I64", {2})}),
              HasSubstr("0 x 0"));
}

}  // namespace
}  // namespace baton::model
