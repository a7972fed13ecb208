#include "model/lora.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "base/file.h"
#include "base/prng.h"
#include "model/activation_buffer.h"
#include "model/lora_config.h"
#include "model/model.h"
#include "model/safetensors.h"
#include "model/testing/reference.h"
#include "model/testing/tiny_lora.h"

namespace baton::model {
namespace {

using testing::Doubles;
using testing::relative_error;
using testing::TinyLora;
using testing::TinySpec;
using ::testing::HasSubstr;

std::string scratch(std::string_view name) {
  return (std::filesystem::path(::testing::TempDir()) / cat("lora_", getpid(), "_", name)).string();
}

// A tiny model of either form, loaded, with a cache that starts full of NaN.
struct Base {
  Base(const TinySpec& spec, bool gguf, const std::string& isa = "auto", int threads = 2) {
    const std::string path = scratch("base");
    EXPECT_TRUE(gguf ? testing::write_tiny_gguf(path, spec) : testing::write_tiny_hf(path, spec));
    auto opened = WeightFile::open(path);
    auto loaded = Model::load(path, {.threads = threads, .isa = isa, .progress = {}});
    std::filesystem::remove_all(path);  // the mapping lives on
    EXPECT_TRUE(opened && loaded) << (loaded ? "" : loaded.error().message);
    file = *std::move(opened);
    model = *std::move(loaded);
    const size_t bytes = kBlocks * model->kv_layout().block_bytes();
    std::memset(pool.resize(bytes), 0xff, bytes);
    EXPECT_TRUE(model->bind_kv({pool.get(), bytes}));
    blocks.resize(kBlocks);
    std::iota(blocks.begin(), blocks.end(), 0);
  }
  std::shared_ptr<const LoraAdapter> adapter(const TinyLora& lora, const TinySpec& spec) const {
    const std::string path = scratch("adapter");
    EXPECT_TRUE(testing::write_tiny_lora(path, lora, spec));
    auto out = model->load_lora(path, 64);
    std::filesystem::remove_all(path);
    EXPECT_TRUE(out) << out.error().message;
    return out ? *out : nullptr;
  }
  std::vector<float> step(const std::vector<SeqInput>& seqs) {
    auto out = model->step(seqs);
    EXPECT_TRUE(out) << out.error().message;
    return {out->begin(), out->end()};
  }
  std::vector<float> logits(std::span<const int32_t> tokens, const LoraAdapter* lora) {
    return step({{.tokens = tokens, .blocks = blocks, .all_logits = true, .lora = lora}});
  }

  static constexpr size_t kBlocks = 64;
  std::unique_ptr<WeightFile> file;
  std::unique_ptr<Model> model;
  Buffer<std::byte> pool;
  std::vector<int32_t> blocks;
};

std::vector<int32_t> random_tokens(Prng& prng, int n) {
  std::vector<int32_t> out;
  for (int i = 0; i < n; ++i) out.push_back(static_cast<int32_t>(prng.below(384)));
  return out;
}

// What PEFT defines, in double: out += scale * B (A x), of the tensors as they lie in the file.
void adapt_by_definition(testing::Reference& reference, const TinyLora& lora, const TinySpec& spec) {
  auto file = std::make_shared<std::string>(testing::tiny_lora_tensors(lora, spec));
  auto tensors = std::make_shared<std::vector<Safetensor>>(*parse_safetensors(std::as_bytes(std::span(*file))));
  const auto config = *parse_peft_config(testing::tiny_lora_config(lora, spec));
  reference.adapt = [file, tensors, config](const std::string& name, const Doubles& x, Doubles& out) {
    ASSERT_FALSE(file->empty());  // the tensors lie in it
    const std::string ours = name.substr(name.rfind('.') + 1);
    std::string layer = name.substr(0, name.rfind('.') + 1);  // "layers.0." or "layers.0.experts.3."
    if (const size_t experts = layer.find("experts."); experts != std::string::npos) layer.insert(experts, "mlp.");
    for (const Safetensor& a : *tensors) {
      const size_t at = a.name.find(cat(".", ours, ".lora_A"));
      if (at == std::string::npos || !a.name.starts_with(cat("base_model.model.model.", layer))) continue;
      const Safetensor& b = *std::ranges::find(*tensors, a.name.substr(0, a.name.size() - 8) + "B.weight", &Safetensor::name);
      const auto values = [](const Safetensor& t) {
        std::vector<float> f(static_cast<size_t>(t.shape[0] * t.shape[1]));
        dequantize(*t.dtype, t.bytes, f);
        return Doubles(f.begin(), f.end());
      };
      const int64_t rank = a.shape[0], cols = a.shape[1], rows = b.shape[0], n = static_cast<int64_t>(x.size()) / cols;
      const Doubles y = testing::ref::linear(values(b), testing::ref::linear(values(a), x, rank, cols, n), rows, rank, n);
      const double scale = config.scale_of(a.name.substr(17, at + ours.size() + 1 - 17));
      for (size_t i = 0; i < out.size(); ++i) out[i] += scale * y[i];
    }
  };
}

// The base's K and V are kept in bf16, and BF16 matrices meet bf16 inputs: what that costs is the bound.
TEST(Lora, IsWhatPeftDefines) {
  const std::pair<TinySpec, TinyLora> cases[] = {
      {{.dtype = Dtype::kF32, .seed = 71}, {.rank = 4, .seed = 1}},
      {{.dtype = Dtype::kF32, .seed = 72}, {.rank = 20, .alpha = 10, .rslora = true, .ranks = {{"q_proj", 3}, {"1.mlp.down_proj", 40}}, .seed = 2}},
      {{.hidden = 96, .heads = 3, .kv_heads = 1, .head_dim = 64, .ffn = 160, .dtype = Dtype::kBf16, .seed = 73},
       {.rank = 8, .dtype = Dtype::kBf16, .targets = {"q_proj", "v_proj"}, .seed = 3}},
      {{.dtype = Dtype::kF16, .family = "qwen2", .seed = 74}, {.rank = 5, .dtype = Dtype::kF16, .targets = {"o_proj", "gate_proj"}}},
      {{.head_dim = 32, .family = "qwen3", .seed = 75}, {.rank = 6}},
      {{.family = "gemma2", .seed = 76, .window = 24, .soft_cap = 2}, {.rank = 6}},
      {{.family = "qwen3moe", .seed = 77}, {.rank = 6, .targets = {"q_proj", "k_proj", "v_proj", "o_proj"}}},
      {{.family = "qwen3moe", .seed = 78, .experts = 6}, {.rank = 6, .experts = "each"}},
      // All experts take part: which are the best is not for roundings to decide.
      {{.family = "gpt-oss", .seed = 79, .experts = 3, .experts_used = 3},
       {.rank = 3, .dtype = Dtype::kBf16, .targets = {"gate_proj", "down_proj"}, .experts = "each"}}};
  Prng prng(5);
  for (const auto& [spec, lora] : cases) {
    for (const std::string isa : {"plain", "avx2", "avx512"}) {
      if (!tensor::find_ops(isa)) continue;
      SCOPED_TRACE(cat(spec.family, " seed ", spec.seed, " ", isa));
      Base base(spec, false, isa);
      const auto adapter = base.adapter(lora, spec);
      ASSERT_TRUE(adapter);
      const auto tokens = random_tokens(prng, 40);
      testing::Reference reference(*base.file);
      const Doubles bare = reference.logits(tokens);
      adapt_by_definition(reference, lora, spec);
      const Doubles want = reference.logits(tokens);
      const auto error = [&](const std::vector<float>& got, const Doubles& wanted) {
        return spec.family == "qwen3moe" ? testing::typical_error(got, wanted, want.size() / tokens.size()) : relative_error(got, wanted);
      };
      EXPECT_LT(error(base.logits(tokens, adapter.get()), want), 0.02);
      EXPECT_LT(error(base.logits(tokens, nullptr), bare), 0.02);
      EXPECT_GT(relative_error(base.logits(tokens, adapter.get()), bare), 0.05) << "the adapter does nothing";
    }
  }
}

// A GGUF's interleaved rows of Q and K, quantised weights, matrices that another family's files hold fused: the same adapter means
// the same on any of them.
TEST(Lora, MeansTheSameOnEveryFormOfTheBase) {
  Prng prng(6);
  for (const std::string family : {"llama", "smollm3", "phi3"}) {
    SCOPED_TRACE(family);
    const TinySpec spec{.family = family, .seed = 81};
    const TinyLora lora{.rank = 7, .seed = 9};
    Base hf(spec, false), gguf(spec, true);
    const auto on_hf = hf.adapter(lora, spec), on_gguf = gguf.adapter(lora, spec);
    ASSERT_TRUE(on_hf && on_gguf);
    EXPECT_EQ(on_hf->digest(), on_gguf->digest());
    const auto tokens = random_tokens(prng, 50);
    const auto a = hf.logits(tokens, on_hf.get()), b = gguf.logits(tokens, on_gguf.get());
    const Doubles want(a.begin(), a.end());
    EXPECT_LT(relative_error(b, want), 1e-5);
    EXPECT_GT(relative_error(hf.logits(tokens, nullptr), want), 0.2);
  }
  const TinySpec small{.hidden = 64, .heads = 4, .head_dim = 16, .ffn = 128, .dtype = Dtype::kQ8_0, .seed = 82};
  TinySpec exact = small;
  exact.expand = true;
  Base quantised(small, true), wide(exact, true);
  const auto lora = quantised.adapter({.rank = 8, .dtype = Dtype::kBf16}, small), same = wide.adapter({.rank = 8, .dtype = Dtype::kBf16}, small);
  const auto tokens = random_tokens(prng, 50);
  const auto want = wide.logits(tokens, same.get());
  EXPECT_LT(relative_error(quantised.logits(tokens, lora.get()), Doubles(want.begin(), want.end())), 0.03);
}

// Every sequence of a mixed batch, cut into chunks anyhow, gives bit for bit what it gives alone; those without an adapter what they
// give where none is loaded.
TEST(Lora, CompanyChangesNothing) {
  for (const std::string isa : {"plain", "avx2", "avx512"}) {
    if (!tensor::find_ops(isa)) continue;
    const TinySpec spec{.layers = 2, .dtype = Dtype::kQ8_0, .seed = 91};
    Base base(spec, true, isa, 3);
    const std::shared_ptr<const LoraAdapter> adapters[] = {nullptr, base.adapter({.rank = 4, .seed = 1}, spec),
                                                           base.adapter({.rank = 24, .dtype = Dtype::kBf16, .targets = {"q_proj", "down_proj"}, .seed = 2}, spec),
                                                           base.adapter({.rank = 9, .dtype = Dtype::kF16, .targets = {"v_proj", "up_proj"}, .seed = 3}, spec)};
    Prng prng(17);
    for (int round = 0; round < 6; ++round) {
      SCOPED_TRACE(cat(isa, " round ", round));
      struct Seq {
        std::vector<int32_t> tokens, blocks;
        const LoraAdapter* lora;
        size_t cut;
        std::vector<float> alone;
      };
      std::vector<Seq> seqs(round == 0 ? 2 : static_cast<size_t>(prng.between(2, 7)));
      int32_t block = 0;
      for (Seq& s : seqs) {
        s.tokens = random_tokens(prng, static_cast<int>(prng.between(1, 130)));
        s.lora = adapters[round == 0 ? 1 : prng.below(4)].get();
        s.cut = prng.below(s.tokens.size());
        for (size_t i = 0; i * 16 < s.tokens.size(); ++i) s.blocks.push_back(block++);
        s.alone = base.step({{.tokens = s.tokens, .blocks = s.blocks, .last_logits = true, .lora = s.lora}});
      }
      ASSERT_LE(static_cast<size_t>(block), Base::kBlocks);
      std::memset(base.pool.get(), 0xff, Base::kBlocks * base.model->kv_layout().block_bytes());
      std::vector<SeqInput> first, rest;
      for (const Seq& s : seqs) {
        const auto tokens = std::span(s.tokens);
        if (s.cut > 0) first.push_back({.tokens = tokens.first(s.cut), .blocks = s.blocks, .lora = s.lora});
        rest.push_back({.tokens = tokens.subspan(s.cut), .first_position = static_cast<int32_t>(s.cut), .blocks = s.blocks, .last_logits = true, .lora = s.lora});
      }
      if (!first.empty()) base.step(first);
      const std::vector<float> together = base.step(rest);
      const size_t width = seqs[0].alone.size();
      ASSERT_EQ(together.size(), seqs.size() * width);
      for (size_t i = 0; i < seqs.size(); ++i)
        EXPECT_EQ(std::memcmp(together.data() + i * width, seqs[i].alone.data(), width * sizeof(float)), 0) << "sequence " << i;
    }
  }
}

// Of mixtures: adapters of all experts, stacked and one by one, of attention alone, and none, whose tokens meet in the same experts.
TEST(Lora, CompanyChangesNothingInMixtures) {
  for (const std::string family : {"qwen3moe", "gpt-oss"}) {
    const TinySpec spec{.layers = 2, .family = family, .seed = 92, .experts = 4};
    Base base(spec, false, "auto", 3);
    const std::shared_ptr<const LoraAdapter> adapters[] = {nullptr, base.adapter({.rank = 4, .experts = "stacked", .seed = 1}, spec),
                                                           base.adapter({.rank = 20, .dtype = Dtype::kBf16, .experts = "each", .seed = 2}, spec),
                                                           base.adapter({.rank = 4, .targets = {"q_proj"}, .seed = 3}, spec)};
    Prng prng(18);
    std::vector<std::vector<int32_t>> tokens, blocks;
    std::vector<std::vector<float>> alone;
    std::vector<SeqInput> together;
    for (size_t i = 0; i < 8; ++i) {
      tokens.push_back(random_tokens(prng, static_cast<int>(prng.between(1, 60))));
      blocks.push_back({});
      for (int32_t b = 0; b < 4; ++b) blocks.back().push_back(static_cast<int32_t>(4 * i) + b);
    }
    for (size_t i = 0; i < 8; ++i) {
      together.push_back({.tokens = tokens[i], .blocks = blocks[i], .last_logits = true, .lora = adapters[i % 4].get()});
      alone.push_back(base.step({together.back()}));
    }
    const auto bare = base.step({{.tokens = tokens[1], .blocks = blocks[1], .last_logits = true}});
    EXPECT_NE(bare, alone[1]) << "the adapter does nothing";
    const std::vector<float> got = base.step(together);
    for (size_t i = 0; i < 8; ++i)
      EXPECT_EQ(std::memcmp(got.data() + i * bare.size(), alone[i].data(), bare.size() * sizeof(float)), 0) << family << " sequence " << i;
  }
}

std::string refusal(const std::string& config, const std::string& tensors, const TinySpec& spec, int32_t rank_max = 16) {
  ModelConfig c;
  c.family = spec.family;
  c.layers = spec.layers, c.hidden = spec.hidden, c.heads = spec.heads, c.kv_heads = spec.kv_heads;
  c.head_dim = spec.head_dim, c.ffn = spec.ffn, c.experts = spec.family == "qwen3moe" ? spec.experts : 0;
  const auto adapter = LoraAdapter::read(config, std::as_bytes(std::span(tensors)), c, rank_max);
  return adapter ? "" : adapter.error().message;
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  EXPECT_EQ(from.size(), to.size()) << "lengths of the file's header stay";
  return text.replace(at, from.size(), to);
}

TEST(Lora, RefusesByNameWhatItDoesNotApply) {
  const TinySpec spec{.layers = 1};
  const std::string config = testing::tiny_lora_config({}, spec), good = testing::tiny_lora_tensors({}, spec);
  EXPECT_EQ(refusal(config, good, spec), "");
  const auto with = [&](const std::string& more) { return testing::tiny_lora_config({.more = more}, spec); };
  EXPECT_EQ(refusal(with(R"(,"layer_replication":null,"modules_to_save":[],"use_dora":false,"corda_config":null,"peft_version":"0.18.0")"), good, spec), "");
  EXPECT_THAT(refusal(with(R"(,"modules_to_save":["lm_head"])"), good, spec), HasSubstr("modules_to_save"));
  EXPECT_THAT(refusal(with(R"(,"use_dora":true)"), good, spec), HasSubstr("use_dora"));
  EXPECT_THAT(refusal(with(R"(,"bias":"all")"), good, spec), HasSubstr("bias"));
  EXPECT_THAT(refusal(with(R"(,"a_new_idea":{"x":1})"), good, spec), HasSubstr("a_new_idea"));
  EXPECT_THAT(refusal(with(R"(,"fan_in_fan_out":true)"), good, spec), HasSubstr("fan_in_fan_out"));
  EXPECT_THAT(refusal(with(R"(,"peft_type":"IA3")"), good, spec), HasSubstr("IA3"));
  EXPECT_THAT(refusal(with(R"(,"rank_pattern":{"(q|k)_proj":2})"), good, spec), HasSubstr("(q|k)_proj"));
  EXPECT_THAT(refusal(with(R"(,"rank_pattern":{"q_proj":2})"), good, spec), HasSubstr("self_attn.q_proj.lora_A.weight is 4 x 64"));
  EXPECT_THAT(refusal(with(R"(,"target_modules":["q_proj","lm_head"])"), good, spec), HasSubstr("lm_head"));
  EXPECT_THAT(refusal(with(R"(,"r":0)"), good, spec), HasSubstr("\"r\""));
  EXPECT_THAT(refusal(with(R"(,"lora_alpha":"much")"), good, spec), HasSubstr("lora_alpha"));
  EXPECT_THAT(refusal("[]", good, spec), HasSubstr("adapter_config.json"));
  EXPECT_EQ(refusal(testing::tiny_lora_config({.rank = 64}, spec), testing::tiny_lora_tensors({.rank = 64}, spec), spec),
            "LoRA rank 64 is greater than max_lora_rank 16.");

  EXPECT_THAT(refusal(config, replaced(good, "layers.0.self_attn.q_proj.lora_A", "layers.7.self_attn.q_proj.lora_A"), spec), HasSubstr("has 1 layers"));
  EXPECT_THAT(refusal(config, replaced(good, "q_proj.lora_A.weight", "q_proj.lora_C.weight"), spec), HasSubstr("unsupported LoRA weight"));
  EXPECT_THAT(refusal(config, replaced(good, "self_attn.q_proj.lora_A", "self_attn.z_proj.lora_A"), spec), HasSubstr("z_proj"));
  EXPECT_THAT(refusal(config, replaced(good, "layers.0.self_attn.q_proj.lora_A", "layers.0.self_attn.v_proj.lora_A"), spec), HasSubstr("v_proj"));
  std::string nan = good;
  std::memset(nan.data() + nan.size() - 4, 0xff, 4);
  EXPECT_THAT(refusal(config, nan, spec), HasSubstr("no numbers"));
  EXPECT_THAT(refusal(config, good.substr(0, good.size() - 1), spec), HasSubstr("truncated"));
  EXPECT_THAT(refusal(config, testing::tiny_lora_tensors({.targets = {"q_proj", "up_proj"}}, spec), spec), HasSubstr("target_modules"));
  EXPECT_THAT(refusal(config, good, {.layers = 2}), HasSubstr("target_modules")) << "a layer without tensors";
  EXPECT_EQ(refusal(with(R"(,"layers_to_transform":[0])"), good, {.layers = 2}), "");
  EXPECT_THAT(refusal(config, good, {.layers = 1, .hidden = 96}), HasSubstr("x 96"));
  EXPECT_THAT(refusal(config, good, {.layers = 1, .family = "qwen3moe"}), HasSubstr("mixture"));
  const TinySpec moe{.layers = 1, .family = "qwen3moe"};
  const std::string each = testing::tiny_lora_config({.experts = "each"}, moe), experts = testing::tiny_lora_tensors({.experts = "each"}, moe);
  EXPECT_EQ(refusal(each, experts, moe), "");
  EXPECT_THAT(refusal(each, replaced(experts, "experts.1.up_proj.lora_A", "experts.9.up_proj.lora_A"), moe), HasSubstr("has 4 experts"));
  EXPECT_THAT(refusal(each, replaced(experts, "experts.1.up_proj.lora_A", "experts.1.zz_proj.lora_A"), moe), HasSubstr("unsupported LoRA weight"));
  TinySpec fewer = moe;
  fewer.experts = 3;
  EXPECT_THAT(refusal(each, testing::tiny_lora_tensors({.experts = "each"}, fewer), moe), HasSubstr("3 of 4 experts"));
  EXPECT_THAT(refusal(each, experts, {.layers = 1}), HasSubstr("unsupported LoRA weight")) << "a base without experts";
  const std::string stacks = testing::tiny_lora_config({.experts = "stacked"}, moe), stacked = testing::tiny_lora_tensors({.experts = "stacked"}, moe);
  EXPECT_EQ(refusal(stacks, stacked, moe), "");
  EXPECT_THAT(refusal(each, stacked, moe), HasSubstr("mlp.experts.base_layer.lora_A.weight")) << "which parameter it is of is not said";
  EXPECT_THAT(refusal(stacks, stacked, fewer), HasSubstr("16 x 64; the base model and the adapter's configuration say 12 x 64"));
  EXPECT_THAT(refusal(stacks, testing::tiny_lora_tensors({.targets = {"q_proj", "k_proj", "v_proj", "o_proj"}}, moe), moe), HasSubstr("target_parameters"));
  const TinySpec phi{.layers = 1, .family = "phi3"};
  EXPECT_THAT(refusal(testing::tiny_lora_config({}, phi), testing::tiny_lora_tensors({}, phi), spec), HasSubstr("qkv_proj")) << "Llama has no such module";
}

TEST(Lora, ADirectoryWithoutAnAdapterIsNotFound) {
  const std::string path = scratch("none");
  const ModelConfig c;
  const auto none = LoraAdapter::load(path, c, 16);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::kNotFound);
  EXPECT_EQ(none.error().message, "No adapter found for " + path);
  std::filesystem::create_directories(path);
  ASSERT_TRUE(write_file(path + "/adapter_config.json", "{}"));
  ASSERT_TRUE(write_file(path + "/adapter_model.bin", "x"));
  const auto pickle = LoraAdapter::load(path, c, 16);
  std::filesystem::remove_all(path);
  ASSERT_FALSE(pickle);
  EXPECT_THAT(pickle.error().message, HasSubstr("adapter_model.safetensors"));
}

TEST(Lora, PatternsNameEndsOfModules) {
  const auto config = parse_peft_config(R"({"r":8,"lora_alpha":16,"target_modules":"all-linear","rank_pattern":{"mlp.up_proj":4,"proj":2},"alpha_pattern":{"v_proj":1}})");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->rank_of("model.layers.0.mlp.up_proj"), 4);
  EXPECT_EQ(config->rank_of("model.layers.0.xmlp.up_proj"), 8);
  EXPECT_EQ(config->rank_of("model.layers.0.self_attn.q_proj"), 8);
  EXPECT_EQ(config->scale_of("model.layers.0.mlp.up_proj"), 4);
  EXPECT_EQ(config->scale_of("model.layers.0.self_attn.v_proj"), 0.125);
}

}  // namespace
}  // namespace baton::model
