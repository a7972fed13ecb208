// A model in parts beside the whole one: in threads that play the ranks' processes.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/prng.h"
#include "model/lora.h"
#include "model/testing/peaks.h"
#include "model/testing/reference.h"
#include "model/testing/tiny_file.h"
#include "model/testing/tiny_lora.h"
#include "model/testing/tiny_plan.h"
#include "model/transformer.h"

namespace baton::model {
namespace {

using testing::relative_error;
using testing::TinyFile;
using testing::TinySpec;

constexpr int kBlocks = 48;

// A model of so many ranks, 1: the whole. The pool, one for all, starts full of NaN: touching what nobody wrote shows.
class Ranked {
 public:
  Ranked(const std::string& path, int ranks, int threads = 1, std::vector<std::string> adapters = {})
      : paths_(std::move(adapters)) {
    auto file = WeightFile::open(path);
    EXPECT_TRUE(file) << file.error().message;
    const ModelConfig c = (*file)->config();
    if (ranks > 1) group_ = *RankGroup::create({.ranks = ranks, .hidden = c.hidden, .vocab = c.vocab, .order_words = 4000});
    options_ = {.threads = threads, .ranks = group_.get(), .progress = {}};
    auto model = Transformer::make(*std::move(file), options_);
    EXPECT_TRUE(model) << model.error().message;
    model_ = *std::move(model);
    adapters_ = load_adapters(*model_);
    bytes_ = kBlocks * model_->kv_layout().block_bytes();
    std::memset(pool_.resize(bytes_), 0xff, bytes_);
    EXPECT_TRUE(model_->bind_kv(pool()));
    for (int rank = 1; rank < ranks; ++rank) others_.emplace_back([this, path, rank] { serve(path, rank); });
  }
  ~Ranked() {
    if (group_) group_->fail();
    for (std::thread& t : others_) t.join();
  }
  std::vector<float> step(const std::vector<SeqInput>& seqs) {
    const auto out = model_->step(seqs);
    EXPECT_TRUE(out) << out.error().message;
    if (!out) return {};
    testing::expect_peaks(*model_, *out);
    return {out->begin(), out->end()};
  }
  Model& model() { return *model_; }
  const LoraAdapter* adapter(size_t i) const { return adapters_[i].get(); }
  RankGroup& group() { return *group_; }
  std::span<std::byte> pool() { return {pool_.get(), bytes_}; }

 private:
  using Adapters = std::vector<std::shared_ptr<const LoraAdapter>>;
  Adapters load_adapters(const Model& model) const {  // numbered from 1
    Adapters out;
    for (const std::string& path : paths_) {
      auto adapter = model.load_lora(path, 64, static_cast<int32_t>(out.size()) + 1);
      EXPECT_TRUE(adapter) << adapter.error().message;
      out.push_back(adapter ? *adapter : nullptr);
    }
    return out;
  }
  void serve(const std::string& path, int rank) {
    const auto seat = group_->beside(rank);
    LoadOptions options = options_;
    options.ranks = seat.get();
    auto file = WeightFile::open(path);
    auto model = file ? Transformer::make(*std::move(file), options) : std::unexpected(file.error());
    if (!model || !(*model)->bind_kv(pool())) return seat->fail();
    const Adapters adapters = load_adapters(**model);
    while (seat->await_order()) {
      const auto seqs = seat->step([&](int32_t number) { return adapters[static_cast<size_t>(number) - 1].get(); });
      const auto done = seqs ? (*model)->step(*seqs) : std::unexpected(seqs.error());
      if (!done && !seat->failed()) ADD_FAILURE() << done.error().message;
      if (done) {
        EXPECT_TRUE(done->empty());
      }
    }
  }
  const std::vector<std::string> paths_;
  std::unique_ptr<RankGroup> group_;
  LoadOptions options_;
  Adapters adapters_;
  std::unique_ptr<Model> model_;
  Buffer<std::byte> pool_;
  size_t bytes_ = 0;
  std::vector<std::thread> others_;
};

std::vector<int32_t> random_tokens(Prng& prng, int n, int vocab) {
  std::vector<int32_t> out;
  for (int i = 0; i < n; ++i) out.push_back(static_cast<int32_t>(prng.below(static_cast<uint64_t>(vocab))));
  return out;
}

struct Case {
  TinySpec spec;
  std::vector<int> ranks;
};

// A Hugging Face checkpoint of packed weights.
TinySpec packed(const char* quant, uint64_t seed) {
  return {.layers = 1,
          .hidden = 64,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 32,
          .ffn = 128,
          .dtype = Dtype::kF32,
          .seed = seed,
          .quant = quant};
}

// Numbers of KV heads above, at and below the ranks; columns that give no equal parts; quantised blocks that a cut goes through;
// what families add.
const Case kCases[] = {
    {{.layers = 2, .hidden = 96, .heads = 8, .kv_heads = 2, .head_dim = 32, .ffn = 256, .dtype = Dtype::kQ4_1, .seed = 61},
     {2, 4}},
    {{.layers = 2,
      .hidden = 64,
      .heads = 4,
      .kv_heads = 4,
      .head_dim = 32,
      .ffn = 416,
      .vocab = 391,
      .dtype = Dtype::kF32,
      .seed = 63,
      .tied = false},
     {2, 4}},
    {{.layers = 1, .hidden = 192, .heads = 9, .kv_heads = 3, .head_dim = 64, .ffn = 96, .dtype = Dtype::kBf16, .seed = 64}, {3}},
    {{.layers = 1, .hidden = 256, .heads = 4, .kv_heads = 2, .head_dim = 64, .ffn = 768, .dtype = Dtype::kQ4_K, .seed = 65},
     {2, 4}},
    {{.layers = 1, .hidden = 256, .heads = 4, .kv_heads = 2, .head_dim = 64, .ffn = 256, .dtype = Dtype::kQ6_K, .seed = 66}, {2}},
    {{.layers = 2,
      .hidden = 64,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 32,
      .ffn = 128,
      .dtype = Dtype::kF16,
      .family = "qwen2",
      .seed = 67},
     {2, 4}},
    {{.layers = 2,
      .hidden = 96,
      .heads = 6,
      .kv_heads = 2,
      .head_dim = 32,
      .ffn = 128,
      .dtype = Dtype::kQ8_0,
      .family = "qwen3",
      .seed = 68},
     {2}},
    {{.layers = 2,
      .hidden = 64,
      .heads = 4,
      .kv_heads = 1,
      .head_dim = 32,
      .ffn = 128,
      .dtype = Dtype::kQ4_1,
      .family = "gemma2",
      .seed = 69,
      .window = 50,
      .soft_cap = 3},
     {2}},
    {packed("fp8-block", 70), {2}},
    {packed("int8", 71), {2}},
    {packed("gptq-asym", 72), {2}},
    {packed("awq", 73), {2}},
};

// A mixture of experts.
TinySpec mixture(const char* family, Dtype dtype, uint64_t seed, const char* quant = "") {
  return {.layers = 2,
          .hidden = 64,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 32,
          .ffn = 192,
          .dtype = dtype,
          .family = family,
          .seed = seed,
          .window = std::string_view(family) == "gpt-oss" ? 50 : 0,
          .experts = 5,
          .experts_used = 3,
          .quant = quant};
}

// Of K-quants, whose blocks of 256 a cut goes through.
TinySpec wide_mixture(Dtype dtype, uint64_t seed) {
  TinySpec spec = mixture("qwen3moe", dtype, seed);
  spec.hidden = spec.ffn = 256, spec.heads = 8;
  return spec;
}

// Of which layers are dense, and wider than an expert.
TinySpec partly_dense(uint64_t seed, const char* quant = "") {
  TinySpec spec = mixture("qwen3moe", Dtype::kF32, seed, quant);
  spec.layers = 3, spec.ffn = 128, spec.sparse_step = 2, spec.dense_ffn = 256;
  return spec;
}

// Each family, in each form that its files have; biases; stacks of experts and experts one by one; parts that are not equal.
const Case kMixtures[] = {
    {mixture("qwen3moe", Dtype::kF32, 101), {2}},
    {mixture("gpt-oss", Dtype::kF32, 102), {2}},
    {mixture("qwen3moe", Dtype::kQ8_0, 103), {2}},
    {mixture("gpt-oss", Dtype::kMxfp4, 104), {2}},
    {mixture("gpt-oss", Dtype::kBf16, 105, "mxfp4"), {2, 4}},
    {mixture("qwen3moe", Dtype::kF16, 106), {2}},
    {mixture("qwen3moe", Dtype::kQ4_1, 107), {2}},
    {wide_mixture(Dtype::kQ4_K, 108), {2, 4}},
    {wide_mixture(Dtype::kQ6_K, 109), {4}},
    {mixture("qwen3moe", Dtype::kF32, 110, "fp8-block"), {2}},
    {mixture("qwen3moe", Dtype::kF32, 111, "fp8-channel"), {2}},
    {mixture("qwen3moe", Dtype::kF32, 112, "int8"), {2}},
    {mixture("qwen3moe", Dtype::kF32, 113, "gptq-asym"), {2}},
    {mixture("qwen3moe", Dtype::kF32, 114, "gptq-actorder"), {2}},
    {mixture("qwen3moe", Dtype::kF32, 115, "awq"), {2}},
    {mixture("qwen3moe", Dtype::kF32, 116, "w4a16"), {2}},
    {partly_dense(117), {2, 4}},
    {partly_dense(118, "w8a16"), {2}},
};

std::vector<int32_t> some_blocks(int first, int n) {
  std::vector<int32_t> out;
  for (int i = 0; i < n; ++i) out.push_back(first + (i * 7) % n);
  return out;
}

// Sums in another order differ in their last bits, which a rounding of activations may make more of.
TEST(TransformerRanks, LogitsAreThoseOfTheWholeModel) {
  for (const Case& one : kCases) {
    const TinyFile file(one.spec);
    Prng prng(one.spec.seed);
    const std::vector<int32_t> tokens = random_tokens(prng, 270, one.spec.vocab), blocks = some_blocks(0, 20);
    const std::vector<SeqInput> seqs = {{.tokens = tokens, .blocks = blocks, .all_logits = true}};
    const std::vector<float> want = Ranked(file.path, 1).step(seqs);
    for (const int ranks : one.ranks) {
      const std::vector<float> got = Ranked(file.path, ranks).step(seqs);
      ASSERT_EQ(got.size(), want.size());
      EXPECT_LT(relative_error(got, want), 0.01) << "seed " << one.spec.seed << ", " << ranks << " ranks";
    }
  }
}

// Of F32 every row; of the others a rounding may choose another expert for a token now and then.
TEST(TransformerRanks, LogitsOfMixturesAreThoseOfTheWholeModel) {
  for (const Case& one : kMixtures) {
    const TinyFile file(one.spec);
    Prng prng(one.spec.seed);
    const std::vector<int32_t> tokens = random_tokens(prng, 150, one.spec.vocab), blocks = some_blocks(0, 10);
    const std::vector<SeqInput> seqs = {{.tokens = tokens, .blocks = blocks, .all_logits = true}};
    const std::vector<float> want = Ranked(file.path, 1).step(seqs);
    const bool exact = one.spec.dtype == Dtype::kF32 && one.spec.quant.empty();
    for (const int ranks : one.ranks) {
      const std::vector<float> got = Ranked(file.path, ranks).step(seqs);
      ASSERT_EQ(got.size(), want.size());
      const double off =
          exact ? relative_error(got, want) : testing::typical_error(got, want, static_cast<size_t>(one.spec.vocab));
      EXPECT_LT(off, 0.01) << "seed " << one.spec.seed << ", " << ranks << " ranks";
    }
  }
}

// Bit for bit: whatever the threads of a rank, the chunks and the company, in every run.
TEST(TransformerRanks, LogitsOfANumberOfRanksAreAlwaysTheSame) {
  for (const Case* one : {&kCases[0], &kCases[7], &kMixtures[2], &kMixtures[4], &kMixtures[17]}) {
    const TinySpec& spec = one->spec;
    const TinyFile file(spec);
    Prng prng(spec.seed);
    const std::vector<int32_t> tokens = random_tokens(prng, 300, spec.vocab), others = random_tokens(prng, 300, spec.vocab);
    const std::vector<int32_t> blocks = some_blocks(0, 20), other_blocks = some_blocks(20, 20);
    const int ranks = one->ranks.back();
    const std::vector<float> want = Ranked(file.path, ranks).step({{.tokens = tokens, .blocks = blocks, .all_logits = true}});
    for (const int threads : {1, 2}) {
      Ranked ranked(file.path, ranks, threads);
      std::vector<float> got;
      for (int at = 0; at < 300;) {
        const int n = std::min(300 - at, 1 + static_cast<int>(prng.below(120)));
        const auto part = [&](const std::vector<int32_t>& of) {
          return std::span(of).subspan(static_cast<size_t>(at), static_cast<size_t>(n));
        };
        const std::vector<float> out =
            ranked.step({{.tokens = part(tokens), .first_position = at, .blocks = blocks, .all_logits = true},
                         {.tokens = part(others), .first_position = at, .blocks = other_blocks}});
        got.insert(got.end(), out.begin(), out.end());
        at += n;
      }
      ASSERT_EQ(got.size(), want.size());
      EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0)
          << "seed " << spec.seed << ", " << threads << " threads";
    }
  }
}

// Prefill by one number of ranks, decode by another: the pool means the same to both.
TEST(TransformerRanks, KvOfAnyNumberOfRanksIsKvForAnyOther) {
  TinySpec dense{
      .layers = 2, .hidden = 96, .heads = 8, .kv_heads = 2, .head_dim = 32, .ffn = 256, .dtype = Dtype::kQ8_0, .seed = 81};
  TinySpec experts = mixture("qwen3moe", Dtype::kF32, 84);
  experts.ffn = 128;
  for (const TinySpec& spec : {dense, experts}) {
    const TinyFile file(spec);
    Prng prng(7);
    const std::vector<int32_t> tokens = random_tokens(prng, 61, spec.vocab), blocks = some_blocks(3, 4);
    const std::vector<SeqInput> prompt = {{.tokens = std::span(tokens).first(60), .blocks = blocks}},
                                next = {{.tokens = std::span(tokens).last(1),
                                         .first_position = 60,
                                         .blocks = blocks,
                                         .last_logits = true}};
    Ranked whole(file.path, 1);
    EXPECT_EQ(whole.model().kv_layout().id(), Ranked(file.path, 4).model().kv_layout().id());
    EXPECT_EQ(whole.model().fingerprint(), Ranked(file.path, 2).model().fingerprint());
    whole.step(prompt);
    const std::vector<float> want = whole.step(next);
    for (const auto& [from, to] : {std::pair{1, 2}, {1, 4}, {2, 1}, {4, 2}}) {
      Ranked prefill(file.path, from), decode(file.path, to);
      prefill.step(prompt);
      std::memcpy(decode.pool().data(), prefill.pool().data(), prefill.pool().size());
      EXPECT_LT(relative_error(decode.step(next), want), 0.01) << from << " to " << to;
    }
  }
}

// Adapters' directories; gone with the object.
struct LoraFiles {
  LoraFiles(const TinySpec& spec, const std::vector<testing::TinyLora>& loras) {
    for (const testing::TinyLora& lora : loras) {
      paths.push_back(cat(::testing::TempDir(), "ranks_lora_", getpid(), "_", spec.seed, "_", paths.size()));
      const auto written = testing::write_tiny_lora(paths.back(), lora, spec);
      EXPECT_TRUE(written) << written.error().message;
    }
  }
  ~LoraFiles() {
    for (const std::string& path : paths) std::filesystem::remove_all(path);
  }
  std::vector<std::string> paths;
};

// Every matrix of every kind of cut, also where the file holds several in one, and where another rank has our K and V; of experts
// one by one and as stacks, in whose B gate's and up's outputs follow each other or alternate.
TEST(TransformerRanks, LoraAdaptersMeanTheSameInParts) {
  const Case cases[] = {
      kCases[0],
      kCases[1],
      kCases[2],
      kCases[5],
      {{.layers = 2, .hidden = 64, .heads = 8, .kv_heads = 2, .head_dim = 32, .ffn = 256, .family = "phi3", .seed = 83}, {2, 4}},
      kMixtures[0],
      kMixtures[1],
      kMixtures[16]};
  for (const Case& one : cases) {
    const TinyFile file(one.spec);
    const bool sparse = testing::find_tiny_family(one.spec.family)->experts;
    const std::vector<std::string> attention = {"q_proj", "o_proj"};
    const LoraFiles adapters(one.spec, {{.rank = 5, .experts = sparse ? "each" : "", .seed = 1},
                                        {.rank = 40,
                                         .dtype = Dtype::kBf16,
                                         .targets = sparse ? attention : std::vector<std::string>(),
                                         .experts = sparse ? "stacked" : "",
                                         .seed = 2}});
    Prng prng(one.spec.seed);
    const std::vector<int32_t> tokens = random_tokens(prng, 40, one.spec.vocab), blocks = some_blocks(0, 3);
    const auto logits = [&](Ranked& ranked, const LoraAdapter* lora) {
      return ranked.step({{.tokens = tokens, .blocks = blocks, .all_logits = true, .lora = lora}});
    };
    Ranked whole(file.path, 1, 1, adapters.paths);
    const std::vector<float> bare = logits(whole, nullptr);
    for (const int ranks : one.ranks) {
      Ranked ranked(file.path, ranks, 1, adapters.paths);
      for (size_t i = 0; i < 2; ++i) {
        const std::vector<float> want = logits(whole, whole.adapter(i)), got = logits(ranked, ranked.adapter(i));
        EXPECT_EQ(ranked.adapter(i)->digest(), whole.adapter(i)->digest());
        EXPECT_LT(relative_error(got, want), 0.02) << "seed " << one.spec.seed << ", " << ranks << " ranks, adapter " << i;
        EXPECT_GT(relative_error(bare, want), 0.1) << "the adapter does nothing";
      }
      EXPECT_LT(relative_error(logits(ranked, nullptr), bare), 0.02);
    }
  }
}

// Bit for bit, for a number of ranks: with two adapters and none in one step, in chunks, by more threads.
TEST(TransformerRanks, AdaptersAnswerInCompanyAsAlone) {
  for (const auto& [one, experts] : {std::pair(&kCases[0], ""), {&kMixtures[16], "each"}}) {
    const TinySpec& spec = one->spec;
    const TinyFile file(spec);
    const LoraFiles adapters(spec, {{.rank = 5, .experts = experts, .seed = 1},
                                    {.rank = 9, .targets = {"v_proj", "down_proj"}, .experts = experts, .seed = 2}});
    Prng prng(12);
    const std::vector<int32_t> tokens = random_tokens(prng, 40, spec.vocab);
    Ranked first(file.path, 4, 1, adapters.paths), second(file.path, 4, 2, adapters.paths);
    std::vector<std::vector<float>> alone;
    std::vector<std::vector<int32_t>> blocks;
    std::vector<SeqInput> heads, tails;
    for (int i = 0; i < 3; ++i) {
      blocks.push_back(some_blocks(3 * i, 3));
      const auto lora = [&](const Ranked& r) { return i < 2 ? r.adapter(static_cast<size_t>(i)) : nullptr; };
      alone.push_back(first.step({{.tokens = tokens, .blocks = blocks[0], .last_logits = true, .lora = lora(first)}}));
      heads.push_back({.tokens = std::span(tokens).first(7 + 9 * static_cast<size_t>(i)), .blocks = {}, .lora = lora(second)});
    }
    for (size_t i = 0; i < 3; ++i) {
      heads[i].blocks = blocks[i];
      tails.push_back(heads[i]);
      tails[i].tokens = std::span(tokens).subspan(heads[i].tokens.size());
      tails[i].first_position = static_cast<int32_t>(heads[i].tokens.size());
      tails[i].last_logits = true;
    }
    second.step(heads);
    const std::vector<float> together = second.step(tails);
    ASSERT_EQ(together.size(), 3 * alone[0].size());
    for (size_t i = 0; i < 3; ++i)
      EXPECT_EQ(std::memcmp(together.data() + i * alone[i].size(), alone[i].data(), alone[i].size() * sizeof(float)), 0) << i;
  }
}

TEST(TransformerRanks, HiddenStatesComeFromRankZero) {
  const TinySpec& spec = kCases[5].spec;
  const TinyFile file(spec);
  Prng prng(8);
  const std::vector<int32_t> tokens = random_tokens(prng, 20, spec.vocab), blocks = {0, 1};
  Ranked whole(file.path, 1), ranked(file.path, 2);
  for (Ranked* r : {&whole, &ranked}) EXPECT_TRUE(r->step({{.tokens = tokens, .blocks = blocks, .hidden = true}}).empty());
  ASSERT_EQ(ranked.model().hidden().size(), 20u * static_cast<size_t>(spec.hidden));
  EXPECT_LT(relative_error(ranked.model().hidden(), whole.model().hidden()), 0.01);
}

TEST(TransformerRanks, ALostRankFailsEveryStepAndABadOneDisturbsNobody) {
  const TinySpec& spec = kCases[0].spec;
  const TinyFile file(spec);
  const std::vector<int32_t> tokens = {1, 2, 3}, blocks = {0}, outside = {kBlocks};
  Ranked ranked(file.path, 2);
  const SeqInput good{.tokens = tokens, .blocks = blocks, .last_logits = true}, bad{.tokens = tokens, .blocks = outside};
  EXPECT_EQ(ranked.model().step({&bad, 1}).error().code, Code::kInvalidArgument);  // the other rank does not hear of it
  EXPECT_TRUE(ranked.step({}).empty());
  EXPECT_EQ(ranked.step({good}).size(), static_cast<size_t>(spec.vocab));
  ranked.group().fail();
  for (int i = 0; i < 2; ++i) {
    const auto lost = ranked.model().step({&good, 1});
    ASSERT_FALSE(lost);
    EXPECT_EQ(lost.error().code, Code::kUnavailable);
  }
}

TEST(TransformerRanks, WhatCannotBeCutIsRefused) {
  const TinyFile file(TinySpec{.heads = 3, .kv_heads = 1, .head_dim = 32, .seed = 82});
  const auto group = RankGroup::create({.ranks = 2, .hidden = 64, .vocab = 384, .order_words = 100});
  ASSERT_TRUE(group);
  const auto model = Model::load(file.path, {.threads = 1, .ranks = group->get(), .progress = {}});
  ASSERT_FALSE(model);
  EXPECT_NE(model.error().message.find("3 attention heads"), std::string::npos) << model.error().message;
}

}  // namespace
}  // namespace baton::model
