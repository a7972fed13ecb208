#include "model/gguf.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "model/families/family.h"
#include "model/testing/gguf_writer.h"
#include "model/testing/tiny_model.h"
#include "model/weight_data.h"

namespace baton::model {
namespace {

using testing::GgufWriter;
using ::testing::HasSubstr;

std::span<const std::byte> bytes_of(const std::string& s) { return std::as_bytes(std::span(s)); }

std::string parse_error(const std::string& image) {
  const auto gguf = parse_gguf(bytes_of(image));
  return gguf ? "no error" : gguf.error().message;
}

std::string u64(uint64_t n) {
  std::string out;
  GgufWriter::append(out, n);
  return out;
}
std::string u32(uint32_t n) {
  std::string out;
  GgufWriter::append(out, n);
  return out;
}

TEST(Gguf, ValuesOfEveryKind) {
  GgufWriter w;
  w.raw("u8", 0, "\xff");
  w.raw("i8", 1, "\xff");
  w.raw("u16", 2, "\xff\xff");
  w.raw("i16", 3, "\xff\xff");
  w.u32("u32", 4000000000u);
  w.raw("i32", 5, "\xfe\xff\xff\xff");
  w.f32("f32", 1.5f);
  w.boolean("yes", true);
  w.string("text", "h\xc3\xa9");
  w.strings("list", {"a", "", "ccc"});
  w.ints("ints", {-1, 7});
  w.raw("u64", 10, u64(1ull << 63));
  w.raw("i64", 11, u64(static_cast<uint64_t>(-5)));
  w.raw("f64", 12, u64(0x3fe0000000000000ull));
  for (const uint32_t version : {2u, 3u}) {
    const std::string image = w.image(version);
    const auto gguf = parse_gguf(bytes_of(image));
    ASSERT_TRUE(gguf) << gguf.error().message;
    EXPECT_EQ(gguf->version, version);
    EXPECT_EQ(gguf->find("u8")->as_int(), 255);
    EXPECT_EQ(gguf->find("i8")->as_int(), -1);
    EXPECT_EQ(gguf->find("u16")->as_int(), 65535);
    EXPECT_EQ(gguf->find("i16")->as_int(), -1);
    EXPECT_EQ(gguf->find("u32")->as_int(), 4000000000);
    EXPECT_EQ(gguf->find("i32")->as_int(), -2);
    EXPECT_EQ(gguf->find("f32")->as_double(), 1.5);
    EXPECT_EQ(gguf->find("f32")->as_int(), std::nullopt);
    EXPECT_EQ(gguf->find("yes")->as_bool(), true);
    EXPECT_EQ(gguf->find("text")->as_string(), "h\xc3\xa9");
    EXPECT_EQ(gguf->find("text")->as_int(), std::nullopt);
    EXPECT_EQ(gguf->find("list")->as_strings(), (std::vector<std::string_view>{"a", "", "ccc"}));
    EXPECT_EQ(gguf->find("list")->as_string(), std::nullopt);
    EXPECT_EQ(gguf->find("ints")->as_ints(), (std::vector<int64_t>{-1, 7}));
    EXPECT_EQ(gguf->find("u64")->as_int(), std::nullopt);  // does not fit
    EXPECT_EQ(gguf->find("i64")->as_int(), -5);
    EXPECT_EQ(gguf->find("f64")->as_double(), 0.5);
    EXPECT_EQ(gguf->find("absent"), nullptr);
  }
}

TEST(Gguf, HeaderLies) {
  EXPECT_THAT(parse_error(""), HasSubstr("truncated"));
  EXPECT_THAT(parse_error("GGML" + u32(3)), HasSubstr("not a GGUF file"));
  EXPECT_THAT(parse_error("GGUF" + u32(1)), HasSubstr("versions 2 and 3"));
  EXPECT_THAT(parse_error("GGUF" + u32(0x03000000)), HasSubstr("big-endian"));
  EXPECT_THAT(parse_error("GGUF" + u32(3) + u64(1ull << 60) + u64(0)), HasSubstr("the limits are"));
  EXPECT_THAT(parse_error("GGUF" + u32(3) + u64(0) + u64(5)), HasSubstr("name of key 0"));
}

TEST(Gguf, KeyLies) {
  struct Case {
    uint32_t type;
    std::string value, expected;
  };
  const Case cases[] = {{13, "", "key k: has unknown value type 13"},
                        {8, u64(1000), "key k: needs 1000 bytes"},
                        {8, u64(1ull << 63), "the limit is"},
                        {9, u32(9) + u64(1), "array of arrays"},
                        {9, u32(77) + u64(1), "unknown value type 77"},
                        {9, u32(4) + u64(1ull << 62), "the limit is"},
                        {9, u32(4) + u64(100000), "needs 400000 bytes"},
                        {9, u32(8) + u64(2) + u64(1) + "a" + u64(99), "needs 99 bytes"}};
  for (const Case& c : cases) {
    GgufWriter w;
    w.raw("k", c.type, c.value);
    EXPECT_THAT(parse_error(w.image()), HasSubstr(c.expected));
  }
  GgufWriter twice;
  twice.u32("k", 1);
  twice.u32("k", 2);
  EXPECT_THAT(parse_error(twice.image()), HasSubstr("key k occurs twice"));
  for (const uint32_t bad : {0u, 3u, 1u << 20}) {
    GgufWriter w;
    w.u32("general.alignment", bad);
    EXPECT_THAT(parse_error(w.image()), HasSubstr("general.alignment must be a power of two"));
  }
}

TEST(Gguf, TensorLies) {
  struct Case {
    uint32_t type;
    std::vector<uint64_t> dimensions;
    uint64_t offset;
    std::string expected;
  };
  const Case cases[] = {{0, {}, 0, "tensor t: has 0 dimensions"},
                        {0, {1, 1, 1, 1, 1}, 0, "has 5 dimensions"},
                        {0, {0}, 0, "dimension of 0"},
                        {0, {1ull << 63}, 0, "cannot be right"},
                        {0, {1ull << 32, 1ull << 32}, 0, "cannot be right"},
                        {0, {1ull << 20, 1ull << 20, 2}, 0, "cannot be right"},
                        {0, {16}, 64, "truncated or damaged"},
                        {0, {16}, 1ull << 63, "truncated or damaged"},
                        {0, {17}, 0, "truncated or damaged"},
                        {0, {4}, 4, "is not aligned to 32"},
                        {2, {16}, 0, "not a multiple of the 32 of a Q4_0 block"},
                        {12, {32}, 0, "not a multiple of the 256 of a Q4_K block"},
                        {10, {256}, 0, "quantised as Q2_K, which is not supported"},
                        {99, {256}, 0, "quantised as type 99"}};
  for (const Case& c : cases) {
    GgufWriter w;
    w.tensor_at("t", c.type, c.dimensions, c.offset);
    EXPECT_THAT(parse_error(w.image() + std::string(64, 'x')), HasSubstr(c.expected));
  }
  GgufWriter overlap;
  overlap.tensor("a", 0, {16}, std::string(64, 'x'));
  overlap.tensor_at("b", 0, {8}, 32);
  EXPECT_THAT(parse_error(overlap.image()), HasSubstr("tensors a and b overlap"));
  GgufWriter twice;
  twice.tensor("a", 0, {8}, std::string(32, 'x'));
  twice.tensor("a", 0, {8}, std::string(32, 'x'));
  EXPECT_THAT(parse_error(twice.image()), HasSubstr("tensor a occurs twice"));
}

TEST(Gguf, EveryTruncationIsAnError) {
  const auto image = testing::tiny_gguf({.layers = 1, .hidden = 32, .heads = 2, .kv_heads = 1, .ffn = 32, .vocab = 259});
  ASSERT_TRUE(image);
  for (size_t n = 0; n < image->size(); n += n < 24000 ? 7 : 997) {
    EXPECT_FALSE(read_gguf(bytes_of(image->substr(0, n)))) << n;
  }
  EXPECT_TRUE(read_gguf(bytes_of(*image)));
}

// A tiny file's bytes with the first occurrence of `from` after its key replaced.
std::string patched(const std::string& image, std::string_view key, size_t skip, std::string_view to) {
  std::string out = image;
  const size_t at = out.find(key);
  EXPECT_NE(at, out.npos) << key;
  out.replace(at + key.size() + skip, to.size(), to);
  return out;
}

TEST(GgufWeights, WrongKeysAreNamed) {
  const auto image = testing::tiny_gguf({.vocab = 259});
  ASSERT_TRUE(image);
  constexpr size_t kType = 4, kString = 12;  // bytes between a key and its number, its string
  const std::pair<std::string, std::string> cases[] = {
      {patched(*image, "general.architecture", kString, "mamba"), "architecture \"mamba\" is not supported; supported: llama"},
      {patched(*image, "llama.block_count", kType, u32(3)), "tensor layers.2.attn_norm.weight is missing"},
      {patched(*image, "llama.block_count", kType, u32(1)), "tensor layers.1.attn_norm.weight is no part of"},
      {patched(*image, "llama.block_count", kType, u32(1u << 31)), "key llama.block_count must be a 32-bit integer"},
      {patched(*image, "llama.block_count", kType, u32(0)), "the number of layers is 0"},
      {patched(*image, "llama.embedding_length", kType, u32(96)), "tensor embed.weight is 259 x 64"},
      {patched(*image, "attention.head_count_kv", kType, u32(3)), "cannot share 3 key/value heads"},
      {patched(*image, "attention.head_count_kv", kType, u32(1)), "tensor layers.0.k_proj.weight is 32 x 64"},
      {patched(*image, "attention.value_length", kType, u32(8)), "attention.value_length differs"},
      {patched(*image, "rope.dimension_count", kType, u32(8)), "only rotating the whole head"},
      {patched(*image, "rope.freq_base", kType, u32(0x7fc00000)), "rope theta is nan"},
      {patched(*image, "llama.feed_forward_length", 0, u32(6)), "key llama.feed_forward_length must be a 32-bit integer"},
      {patched(*image, "llama.context_length", kType, u32(0)), "the context length is 0"},
      {patched(*image, "blk.1.attn_q", 0, "_weight"), "tensor blk.1.attn_q_weight is no part of"},
      {patched(*image, "blk.1.attn_", 0, "z"), "tensor blk.1.attn_z"},
      {patched(*image, "tokenizer.ggml.bos_token_id", kType, u32(259)), "a special token id of tokenizer.ggml is 259"},
      {patched(*image, "llama.block_coun", 0, "x"), "key llama.block_count is missing"},
  };
  for (const auto& [file, expected] : cases) {
    const auto data = read_gguf(bytes_of(file));
    ASSERT_FALSE(data) << expected;
    EXPECT_THAT(data.error().message, HasSubstr(expected));
  }
}

TEST(GgufWeights, RopeScaling) {
  const auto config = [](testing::TinySpec spec) {
    const auto image = testing::tiny_gguf(spec);
    auto data = read_gguf(bytes_of(*image));
    EXPECT_TRUE(data) << data.error().message;
    return data->config;
  };
  EXPECT_EQ(config({}).rope_scaling, RopeScaling::kNone);
  EXPECT_EQ(config({}).rope_factor, 1);
  const auto linear = config({.rope_scaling = RopeScaling::kLinear, .rope_factor = 2.5});
  EXPECT_EQ(linear.rope_scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear.rope_factor, 2.5);
  const auto yarn = config({.rope_scaling = RopeScaling::kYarn});
  EXPECT_EQ(yarn.rope_scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn.rope_original_context, 64);
  EXPECT_EQ(yarn.rope_attention_factor, 0);
  const auto llama3 = config({.rope_scaling = RopeScaling::kLlama3});
  EXPECT_EQ(llama3.rope_scaling, RopeScaling::kNone);  // GGUF bakes it into divisors
  ASSERT_EQ(llama3.rope_divisors.size(), 8u);
  EXPECT_EQ(llama3.rope_divisors.front(), 1);
  EXPECT_EQ(llama3.rope_divisors.back(), 4);
}

TEST(GgufWeights, SlidingLayersByNumberOrByFlags) {
  const auto layers = [](const std::function<void(testing::GgufWriter&)>& keys, int32_t pattern) {
    testing::GgufWriter w;
    w.u32("x.attention.sliding_window", 7);
    keys(w);
    const std::string image = w.image();
    const auto gguf = parse_gguf(bytes_of(image));
    EXPECT_TRUE(gguf) << gguf.error().message;
    GgufKeys read(*gguf, "x");
    ModelConfig c;
    c.layers = 3;
    gguf_layers(read, c, pattern, LayerRope::kLocal);
    EXPECT_TRUE(read.status()) << read.status().error().message;
    return c.layer_kinds;
  };
  const LayerKind slides{7, LayerRope::kLocal}, all{};
  EXPECT_EQ(layers([](auto&) {}, 2), (std::vector<LayerKind>{slides, all, slides}));
  EXPECT_EQ(layers([](auto& w) { w.u32("x.attention.sliding_window_pattern", 3); }, 2),
            (std::vector<LayerKind>{slides, slides, all}));
  EXPECT_EQ(layers([](auto& w) { w.ints("x.attention.sliding_window_pattern", {0, 1, 1}); }, 2),
            (std::vector<LayerKind>{all, slides, slides}));
  EXPECT_EQ(layers([](auto&) {}, 0), (std::vector<LayerKind>{slides, slides, slides}));
}

// What SentencePiece vocabularies need beyond byte-level ones.
TEST(GgufWeights, ScoresAndSpacePrefix) {
  testing::GgufWriter w;
  w.string("tokenizer.ggml.model", "llama");
  w.strings("tokenizer.ggml.tokens", {"a", "b"});
  w.floats("tokenizer.ggml.scores", {-1, 0.5f});
  w.boolean("tokenizer.ggml.add_space_prefix", false);
  const auto files = read_gguf_tokenizer(bytes_of(w.image()));
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_EQ(files->vocab->scores, (std::vector<float>{-1, 0.5f}));
  EXPECT_FALSE(files->vocab->add_space_prefix);
}

TEST(GgufDemo, MatchesTheModelCard) {
  const std::string path = BATON_SOURCE_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "the demo model is not here";
  auto file = WeightFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  const ModelConfig& c = (*file)->config();
  EXPECT_EQ(c.family, "llama");
  EXPECT_EQ(std::tie(c.layers, c.hidden, c.heads, c.kv_heads, c.head_dim, c.ffn), std::make_tuple(30, 576, 9, 3, 64, 1536));
  EXPECT_EQ(std::tie(c.vocab, c.tokens, c.context), std::make_tuple(49152, 49152, 8192));
  EXPECT_FLOAT_EQ(c.rms_eps, 1e-5f);
  EXPECT_EQ(c.rope_theta, 100000);
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_FALSE(c.qkv_bias);
  EXPECT_TRUE((*file)->rope_interleaved());
  EXPECT_EQ((*file)->names().size(), 2u + 30u * 9u);
  EXPECT_EQ((*file)->find("layers.29.down_proj.weight")->dtype, Dtype::kQ4_1);
  ASSERT_NE((*file)->gguf_vocab(), nullptr);
  EXPECT_EQ((*file)->gguf_vocab()->pre, "smollm");
  EXPECT_THAT((*file)->chat_template(), HasSubstr("im_start"));
}

}  // namespace
}  // namespace baton::model
