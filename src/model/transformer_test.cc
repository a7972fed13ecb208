#include "model/transformer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>

#include "base/prng.h"
#include "model/testing/peaks.h"
#include "model/testing/reference.h"
#include "model/testing/tiny_file.h"

namespace baton::model {
namespace {

using testing::Doubles;
using testing::Reference;
using testing::relative_error;
using testing::TinyFile;
using testing::TinySpec;

std::vector<std::string> isas() {
  std::vector<std::string> out;
  for (const char* isa : {"plain", "avx2", "avx512"})
    if (tensor::find_ops(isa)) out.push_back(isa);
  return out;
}

// A model with its cache; the cache starts full of NaN, so touching an unwritten slot shows.
struct Engine {
  Engine(const std::string& path, const std::string& isa, int threads, int blocks = 64,
         kv::KvDtype kv_dtype = kv::KvDtype::kBf16) {
    auto loaded = Model::load(path, {.threads = threads, .isa = isa, .kv_dtype = kv_dtype, .progress = {}});
    EXPECT_TRUE(loaded) << loaded.error().message;
    model = *std::move(loaded);
    const size_t bytes = static_cast<size_t>(blocks) * model->kv_layout().block_bytes();
    std::memset(pool.resize(bytes), 0xff, bytes);
    EXPECT_TRUE(model->bind_kv({pool.get(), bytes}));
  }
  std::vector<float> step(const std::vector<SeqInput>& seqs) {
    auto out = model->step(seqs);
    EXPECT_TRUE(out) << out.error().message;
    testing::expect_peaks(*model, *out);
    return {out->begin(), out->end()};
  }
  std::unique_ptr<Model> model;
  Buffer<std::byte> pool;
};

// Of tests that are about numbers, which TSan does not judge: LogitsDoNotDependOnChunksBatchOrThreads runs their shapes and
// caches in one to three threads.
#if __has_feature(thread_sanitizer)
constexpr bool kNumbers = false;
#else
constexpr bool kNumbers = true;
#endif

std::vector<int32_t> random_tokens(Prng& prng, int n, int vocab) {
  std::vector<int32_t> out;
  for (int i = 0; i < n; ++i) out.push_back(static_cast<int32_t>(prng.below(vocab)));
  return out;
}

const TinySpec kShapes[] = {
    {.layers = 2, .hidden = 96, .heads = 3, .kv_heads = 1, .head_dim = 64, .ffn = 160, .dtype = Dtype::kQ4_1, .seed = 11},
    {.layers = 2, .hidden = 128, .heads = 4, .kv_heads = 4, .head_dim = 32, .ffn = 224, .dtype = Dtype::kQ8_0, .seed = 12},
    {.layers = 2,
     .hidden = 256,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 128,
     .ffn = 256,
     .dtype = Dtype::kF32,
     .family = "qwen2",
     .seed = 13},
    {.layers = 1,
     .hidden = 192,
     .heads = 9,
     .kv_heads = 3,
     .head_dim = 64,
     .ffn = 96,
     .dtype = Dtype::kBf16,
     .seed = 14,
     .tied = false},
    {.layers = 1,
     .hidden = 64,
     .heads = 8,
     .kv_heads = 1,
     .head_dim = 16,
     .ffn = 128,
     .vocab = 391,
     .dtype = Dtype::kF16,
     .seed = 15},
    {.layers = 2,
     .hidden = 96,
     .heads = 6,
     .kv_heads = 2,
     .head_dim = 32,
     .ffn = 96,
     .dtype = Dtype::kQ8_0,
     .family = "qwen3",
     .seed = 16},
    {.layers = 1,
     .hidden = 64,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 48,
     .ffn = 96,
     .dtype = Dtype::kF32,
     .family = "phi3",
     .seed = 17,
     .rope_scaling = RopeScaling::kLongRope,
     .window = 130,
     .rotated = 32},
    {.layers = 2,
     .hidden = 64,
     .heads = 4,
     .kv_heads = 1,
     .head_dim = 32,
     .ffn = 96,
     .dtype = Dtype::kQ4_1,
     .family = "gemma2",
     .seed = 18,
     .window = 50,
     .soft_cap = 3},
    {.layers = 3,
     .hidden = 64,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 16,
     .ffn = 96,
     .dtype = Dtype::kBf16,
     .family = "gemma3",
     .seed = 19,
     .window = 140},
    {.layers = 2,
     .hidden = 64,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 32,
     .ffn = 64,
     .dtype = Dtype::kMxfp4,
     .family = "gpt-oss",
     .seed = 23,
     .window = 60,
     .experts = 4,
     .experts_used = 3},
    {.layers = 1,
     .hidden = 64,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 16,
     .ffn = 96,
     .dtype = Dtype::kF16,
     .family = "qwen3moe",
     .seed = 22,
     .experts = 9,
     .experts_used = 3},
};

TEST(Transformer, AgreesWithTheDefinition) {
  if (!kNumbers) GTEST_SKIP() << "numbers alone";
  for (const TinySpec& spec : kShapes) {
    const TinyFile file(spec);
    auto weights = WeightFile::open(file.path);
    ASSERT_TRUE(weights) << weights.error().message;
    Prng prng(spec.seed);
    const std::vector<int32_t> tokens = random_tokens(prng, 150, spec.vocab), blocks = {7, 3, 11, 0, 9, 1, 2, 5, 4, 6};
    const Doubles want = Reference(**weights).logits(tokens);
    for (const std::string& isa : isas()) {
      Engine engine(file.path, isa, 2);
      const std::vector<float> got = engine.step({{.tokens = tokens, .blocks = blocks, .all_logits = true}});
      ASSERT_EQ(got.size(), want.size());
      const double error = relative_error(got, want);
      // i8 activations cost about 1 %, bf16 ones and the bf16 cache 0.5 %.
      EXPECT_LT(error, 0.03) << isa << " seed " << spec.seed;
      RecordProperty(cat("error_", isa, "_", spec.seed), std::to_string(error));
      printf("%s seed %d: relative error %.4f\n", isa.c_str(), static_cast<int>(spec.seed), error);
    }
  }
}

// What embeddings are made of: right, and the same bit for bit however the prompt is cut and whoever is beside it.
TEST(Transformer, HiddenStatesAreWhatTheHeadReads) {
  const TinySpec& spec = kShapes[0];
  const TinyFile file(spec);
  auto weights = WeightFile::open(file.path);
  ASSERT_TRUE(weights) << weights.error().message;
  Prng prng(5);
  const std::vector<int32_t> tokens = random_tokens(prng, 290, spec.vocab);
  std::vector<int32_t> blocks, other_blocks;
  for (int i = 0; i < 20; ++i) blocks.push_back(i), other_blocks.push_back(20 + i);
  const Doubles want = Reference(**weights).hidden(tokens);
  for (const std::string& isa : isas()) {
    Engine engine(file.path, isa, 2);
    EXPECT_TRUE(engine.step({{.tokens = tokens, .blocks = blocks, .hidden = true}}).empty());
    const std::vector<float> got(engine.model->hidden().begin(), engine.model->hidden().end());
    ASSERT_EQ(got.size(), want.size());
    EXPECT_LT(relative_error(got, want), 0.03) << isa;
    const SeqInput other{.tokens = std::span(tokens).first(7), .blocks = other_blocks, .last_logits = true};
    std::vector<float> cut;
    for (int at = 0; at < 290; at += 97) {
      const auto n = static_cast<size_t>(std::min(97, 290 - at));
      const SeqInput mine{.tokens = std::span(tokens).subspan(at, n), .first_position = at, .blocks = blocks, .hidden = true};
      EXPECT_EQ(engine.step({other, mine}).size(), static_cast<size_t>(spec.vocab));
      const std::span<const float> rows = engine.model->hidden();
      cut.insert(cut.end(), rows.begin(), rows.end());
    }
    EXPECT_EQ(cut, got) << isa;
  }
}

constexpr kv::KvDtype kCaches[] = {kv::KvDtype::kBf16, kv::KvDtype::kE4m3, kv::KvDtype::kE5m2, kv::KvDtype::kI8Scaled,
                                   kv::KvDtype::kE4m3Scaled};

// What a cache of 8 bits costs: logits against those of the bf16 cache, root mean square.
TEST(Transformer, EightBitCachesAreNear) {
  if (!kNumbers) GTEST_SKIP() << "numbers alone";
  const double most[] = {0, 0.06, 0.1, 0.03, 0.06};
  for (const TinySpec* spec : {&kShapes[0], &kShapes[2], &kShapes[7]}) {  // f32 weights among them, a window, soft caps
    const TinyFile file(*spec);
    Prng prng(spec->seed + 200);
    const std::vector<int32_t> tokens = random_tokens(prng, 290, spec->vocab);
    std::vector<int32_t> blocks;
    for (int i = 0; i < 20; ++i) blocks.push_back((i * 7) % 20);
    for (const std::string& isa : isas()) {
      std::vector<float> wide;
      for (size_t i = 0; i < std::size(kCaches); ++i) {
        Engine engine(file.path, isa, 2, 20, kCaches[i]);
        const std::vector<float> got = engine.step({{.tokens = tokens, .blocks = blocks, .all_logits = true}});
        if (i == 0) {
          wide = got;
          continue;
        }
        const double error = relative_error(got, Doubles(wide.begin(), wide.end()));
        const std::string id = engine.model->kv_layout().id();
        printf("%s seed %d %s: relative error %.4f\n", isa.c_str(), static_cast<int>(spec->seed), id.c_str(), error);
        EXPECT_LT(error, most[i]) << isa << " " << id;
        EXPECT_GT(error, 0) << isa << " " << id;
      }
    }
  }
}

// One sequence, however it is cut, batched and threaded, has the same logits bit for bit.
TEST(Transformer, LogitsDoNotDependOnChunksBatchOrThreads) {
  for (size_t shape = 0; shape < std::size(kShapes); ++shape) {
    const TinySpec& spec = kShapes[shape];
    const kv::KvDtype kv_dtype = kCaches[shape % std::size(kCaches)];  // each with two shapes or three
    const TinyFile file(spec);
    Prng prng(spec.seed + 100);
    const std::vector<int32_t> tokens = random_tokens(prng, 300, spec.vocab);
    std::vector<int32_t> blocks, other_blocks;
    for (int i = 0; i < 20; ++i) blocks.push_back((i * 7) % 20), other_blocks.push_back(20 + i);
    for (const std::string& isa : isas()) {
      const std::vector<float> want =
          Engine(file.path, isa, 1, 64, kv_dtype).step({{.tokens = tokens, .blocks = blocks, .all_logits = true}});
      for (int round = 0; round < 3; ++round) {
        Engine engine(file.path, isa, 1 + round % 3, 64, kv_dtype);
        std::vector<float> got;
        const std::vector<int32_t> others = random_tokens(prng, 300, spec.vocab);
        int other_at = 0;
        for (int at = 0; at < 300;) {
          const auto n = static_cast<int>(std::min<uint64_t>(300 - at, round == 0 ? 1 : 1 + prng.below(round == 1 ? 5 : 170)));
          const SeqInput mine{
              .tokens = std::span(tokens).subspan(at, n), .first_position = at, .blocks = blocks, .all_logits = true};
          const int m = std::min<int>(300 - other_at, static_cast<int>(prng.below(40)));
          const SeqInput other{.tokens = std::span(others).subspan(other_at, m),
                               .first_position = other_at,
                               .blocks = other_blocks,
                               .last_logits = m > 0};
          const bool first = prng.chance(0.5);
          const std::vector<float> out = round == 0 ? engine.step({mine})
                                         : first    ? engine.step({mine, other})
                                                    : engine.step({other, mine});
          const size_t skip = round == 0 || first || m == 0 ? 0 : spec.vocab;
          got.insert(got.end(), out.begin() + skip, out.begin() + skip + static_cast<size_t>(n) * spec.vocab);
          at += n;
          other_at += m;
        }
        ASSERT_EQ(got.size(), want.size());
        ASSERT_EQ(std::memcmp(got.data(), want.data(), got.size() * 4), 0) << isa << " seed " << spec.seed << " round " << round;
      }
    }
  }
}

TEST(Transformer, EveryQuantisationRunsAlikeInOneChunkAndInMany) {
  for (const Dtype dtype : {Dtype::kQ4_0, Dtype::kQ5_0, Dtype::kQ5_1, Dtype::kQ4_K, Dtype::kQ5_K, Dtype::kQ6_K, Dtype::kMxfp4}) {
    const TinySpec spec{
        .layers = 1, .hidden = 256, .heads = 4, .kv_heads = 2, .head_dim = 64, .ffn = 512, .dtype = dtype, .seed = 31};
    const TinyFile file(spec);
    auto weights = WeightFile::open(file.path);
    ASSERT_TRUE(weights) << weights.error().message;
    Prng prng(9);
    const std::vector<int32_t> tokens = random_tokens(prng, 40, spec.vocab), blocks = {2, 1, 0};
    const Doubles want = Reference(**weights).logits(tokens);
    for (const std::string& isa : isas()) {
      const std::vector<float> whole = Engine(file.path, isa, 2).step({{.tokens = tokens, .blocks = blocks, .all_logits = true}});
      EXPECT_LT(relative_error(whole, want), 0.03) << isa << " " << dtype_name(dtype);
      Engine engine(file.path, isa, 1);
      std::vector<float> pieces;
      for (int at = 0; at < 40; at += 10) {
        const auto out = engine.step(
            {{.tokens = std::span(tokens).subspan(at, 10), .first_position = at, .blocks = blocks, .all_logits = true}});
        pieces.insert(pieces.end(), out.begin(), out.end());
      }
      EXPECT_EQ(std::memcmp(whole.data(), pieces.data(), whole.size() * 4), 0) << isa << " " << dtype_name(dtype);
    }
  }
}

// A file with some of its configuration changed.
struct Changed final : WeightFile {
  Changed(std::unique_ptr<WeightFile> f, const std::function<void(ModelConfig&)>& change)
      : file(std::move(f)), c(file->config()) {
    change(c);
  }
  const ModelConfig& config() const override { return c; }
  const TensorRef* find(std::string_view name) const override { return file->find(name); }
  std::vector<std::string_view> names() const override { return file->names(); }
  bool rope_interleaved() const override { return file->rope_interleaved(); }
  std::string hf_tokenizer_json() const override { return {}; }
  std::string hf_tokenizer_config_json() const override { return {}; }
  const Vocab* gguf_vocab() const override { return file->gguf_vocab(); }
  std::string chat_template() const override { return {}; }
  std::unique_ptr<WeightFile> file;
  ModelConfig c;
};

TEST(Transformer, SlidingWindowHidesOldTokensAndBlocksMayBeLarge) {
  const TinySpec spec{
      .layers = 2, .hidden = 96, .heads = 6, .kv_heads = 2, .head_dim = 32, .ffn = 96, .dtype = Dtype::kQ8_0, .seed = 41};
  const TinyFile file(spec);
  Prng prng(10);
  const std::vector<int32_t> tokens = random_tokens(prng, 290, spec.vocab), blocks = {1, 0, 4, 3, 2};
  const auto open = [&] {
    return std::make_unique<Changed>(*WeightFile::open(file.path), [](ModelConfig& c) { c.sliding_window = 100; });
  };
  const auto reference = open();
  const Doubles want = Reference(*reference).logits(tokens);
  for (const std::string& isa : isas()) {
    std::vector<float> first;
    for (const int threads : {1, 2}) {
      auto model = Transformer::make(open(), {.threads = threads, .isa = isa, .block_tokens = 64, .progress = {}});
      ASSERT_TRUE(model) << model.error().message;
      Buffer<std::byte> pool;
      const size_t bytes = 5 * (*model)->kv_layout().block_bytes();
      std::memset(pool.resize(bytes), 0xff, bytes);
      ASSERT_TRUE((*model)->bind_kv({pool.get(), bytes}));
      std::vector<float> got;
      for (int at = 0; at < 290;) {
        const int n = threads == 1 ? 290 : std::min(290 - at, 1 + static_cast<int>(prng.below(60)));
        const SeqInput seq{
            .tokens = std::span(tokens).subspan(at, n), .first_position = at, .blocks = blocks, .all_logits = true};
        auto out = (*model)->step({&seq, 1});
        ASSERT_TRUE(out) << out.error().message;
        got.insert(got.end(), out->begin(), out->end());
        at += n;
      }
      EXPECT_LT(relative_error(got, want), 0.03) << isa;
      if (first.empty()) first = got;
      EXPECT_EQ(std::memcmp(got.data(), first.data(), got.size() * 4), 0) << isa;
    }
  }
}

TEST(Transformer, RefusesWhatItCannotRun) {
  const TinySpec spec{.seed = 51};
  const TinyFile file(spec);
  const auto refused = [&](const std::function<void(ModelConfig&)>& change, const LoadOptions& options, const char* says) {
    const auto model = Transformer::make(std::make_unique<Changed>(*WeightFile::open(file.path), change), options);
    ASSERT_FALSE(model);
    EXPECT_NE(model.error().message.find(says), std::string::npos) << model.error().message;
  };
  refused([](ModelConfig& c) { c.family = "mamba"; }, {.progress = {}}, "mamba");
  refused([](ModelConfig& c) { c.head_dim = 24; }, {.progress = {}}, "24 dims of a head");
  refused([](ModelConfig& c) { c.head_dim = 272; }, {.progress = {}}, "head_dim");
  refused([](ModelConfig& c) { c.rope_dims = 8; }, {.progress = {}}, "rotating 8 dims");
  refused([](ModelConfig& c) { c.layers = 3; }, {.progress = {}}, "layers.2.");
  refused([](ModelConfig& c) { c.ffn = 64; }, {.progress = {}}, "gate_proj");
  refused([](ModelConfig&) {}, {.block_tokens = 8, .progress = {}}, "block size 8");
  refused([](ModelConfig&) {}, {.isa = "mmx", .progress = {}}, "mmx");
  refused([](ModelConfig&) {}, {.kv_dtype = kv::KvDtype::kF16, .progress = {}}, "KV cache");
  EXPECT_FALSE(Model::load(file.path + ".absent", {.progress = {}}));
}

TEST(Transformer, ChecksEveryStep) {
  const TinySpec spec{.seed = 52};
  const TinyFile file(spec);
  Engine engine(file.path, "auto", 1, 4);
  const std::vector<int32_t> tokens(20, 5), bad_token = {-1}, past_vocab = {spec.vocab}, blocks = {0, 1}, one = {0},
                                            outside = {0, 4};
  const auto code = [&](const SeqInput& seq) {
    const auto out = engine.model->step({&seq, 1});
    return out ? Code::kOk : out.error().code;
  };
  EXPECT_EQ(code({.tokens = tokens, .blocks = blocks}), Code::kOk);
  EXPECT_EQ(code({.tokens = tokens, .blocks = one}), Code::kInvalidArgument);
  EXPECT_EQ(code({.tokens = tokens, .first_position = -1, .blocks = blocks}), Code::kInvalidArgument);
  EXPECT_EQ(code({.tokens = tokens, .blocks = outside}), Code::kInvalidArgument);
  EXPECT_EQ(code({.tokens = bad_token, .blocks = blocks}), Code::kInvalidArgument);
  EXPECT_EQ(code({.tokens = past_vocab, .blocks = blocks}), Code::kInvalidArgument);
  EXPECT_TRUE(engine.step({}).empty());
  EXPECT_TRUE(engine.step({{.tokens = {}, .blocks = blocks, .last_logits = true}}).empty());
  Buffer<std::byte> small;
  EXPECT_FALSE(engine.model->bind_kv({small.resize(64), 64}));
}

TEST(Transformer, PaddedVocabularyIsNeverLikely) {
  const TinySpec spec{.padded_rows = 32, .seed = 53};
  const TinyFile file(spec);
  Engine engine(file.path, "auto", 2);
  ASSERT_EQ(engine.model->config().vocab, spec.vocab + 32);
  const std::vector<int32_t> tokens = {1, 2, 3}, blocks = {0};
  const auto out = engine.step({{.tokens = tokens, .blocks = blocks, .all_logits = true}});
  ASSERT_EQ(out.size(), 3u * (spec.vocab + 32));
  for (size_t i = 0; i < out.size(); ++i)
    EXPECT_EQ(std::isinf(out[i]), static_cast<int32_t>(i % (spec.vocab + 32)) >= spec.vocab);
}

TEST(Transformer, FingerprintNamesTheWeightsAndProgressReachesOne) {
  const TinyFile a(TinySpec{.seed = 54}), b(TinySpec{.seed = 55});
  std::vector<double> seen;
  const auto of = [&](const TinyFile& f, const char* isa) {
    return (*Model::load(f.path, {.threads = 1, .isa = isa, .progress = [&](double fraction) { seen.push_back(fraction); }}))
        ->fingerprint();
  };
  EXPECT_EQ(of(a, "auto"), of(a, "plain"));
  EXPECT_NE(of(a, "auto"), of(b, "auto"));
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.begin() + static_cast<long>(seen.size() / 4)));
  EXPECT_EQ(seen.back(), 1.0);
}

TEST(Transformer, WeightsThatWereGivenBackAreReadAgainToTheSameBits) {
  const TinyFile file(TinySpec{.seed = 57});
  Engine engine(file.path, "auto", 2);
  const std::vector<int32_t> tokens = {1, 2, 3}, blocks = {0};
  const std::vector<SeqInput> seqs = {{.tokens = tokens, .blocks = blocks, .all_logits = true}};
  const auto before = engine.step(seqs);
  const size_t bytes = engine.model->weight_bytes();
  for (const bool keep : {true, false, false}) EXPECT_TRUE(engine.model->keep_weights(keep));
  EXPECT_FALSE(engine.model->step(seqs)) << "it has none";
  EXPECT_EQ(engine.model->weight_bytes(), bytes);
  EXPECT_TRUE(engine.model->keep_weights(true));
  EXPECT_EQ(engine.step(seqs), before);
}

TEST(Transformer, WeightsOfAFileThatWasOverwrittenAreNotTaken) {
  const TinyFile file(TinySpec{.seed = 58}), other(TinySpec{.seed = 59});
  Engine engine(file.path, "auto", 1);
  EXPECT_TRUE(engine.model->keep_weights(false));
  std::ifstream from(other.path, std::ios::binary);
  std::fstream to(file.path, std::ios::binary | std::ios::in | std::ios::out);  // in place
  to << from.rdbuf() << std::flush;
  const auto kept = engine.model->keep_weights(true);
  ASSERT_FALSE(kept);
  EXPECT_THAT(kept.error().message, ::testing::HasSubstr("overwritten"));
}

// Workers whose KV would differ must not take each other for the same: what a family adds counts, and LongRoPE's choice.
TEST(Transformer, FingerprintTellsWhatFamiliesAdd) {
  const TinyFile file(
      TinySpec{.layers = 2, .family = "phi3", .seed = 56, .rope_scaling = RopeScaling::kLongRope, .rope_original_context = 64});
  const auto of = [&](int32_t context, const std::function<void(ModelConfig&)>& change) {
    const auto model = Transformer::make(std::make_unique<Changed>(*WeightFile::open(file.path), change),
                                         {.threads = 1, .context = context, .progress = {}});
    EXPECT_TRUE(model) << model.error().message;
    return (*model)->fingerprint();
  };
  const auto as_it_is = [](ModelConfig&) {};
  const std::string whole = of(0, as_it_is);
  EXPECT_EQ(of(2048, as_it_is), whole);
  EXPECT_EQ(of(65, as_it_is), whole);
  EXPECT_NE(of(64, as_it_is), whole);
  const std::function<void(ModelConfig&)> changes[] = {
      [](ModelConfig& c) { c.layer_kinds = {{.window = 8}, {}}; },
      [](ModelConfig& c) { c.layer_kinds = {{}, {.window = 8}}; },
      [](ModelConfig& c) { c.layer_kinds = {{.rope = LayerRope::kNone}, {}}; },
      [](ModelConfig& c) { c.attention_soft_cap = 5; },
      [](ModelConfig& c) { c.attention_scale = 0.5f; },
      [](ModelConfig& c) { c.embed_scale = 2; },
      [](ModelConfig& c) { c.norm_offset = 1; },
      [](ModelConfig& c) { c.activation = tensor::GatedUnit::kGeluTanh; },
  };
  std::vector<std::string> seen{whole};
  for (const auto& change : changes) {
    seen.push_back(of(0, change));
    EXPECT_EQ(std::ranges::count(seen, seen.back()), 1) << "change " << seen.size() - 1;
  }
}

}  // namespace
}  // namespace baton::model
