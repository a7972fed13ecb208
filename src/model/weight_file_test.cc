#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "model/testing/tiny_model.h"
#include "model/weight_data.h"

namespace baton::model {
namespace {

using ::testing::HasSubstr;
using testing::TinySpec;

class WeightFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "baton_weights_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<WeightFile> open(const std::string& name) {
    auto file = WeightFile::open(dir_ + "/" + name);
    EXPECT_TRUE(file) << file.error().message;
    return file ? *std::move(file) : nullptr;
  }
  std::string open_error(const std::string& name) {
    auto file = WeightFile::open(dir_ + "/" + name);
    EXPECT_FALSE(file);
    return file ? "" : file.error().message;
  }
  void write(const std::string& name, std::string_view text) { std::ofstream(dir_ + "/" + name, std::ios::binary) << text; }
  std::string dir_;
};

std::vector<float> values(const TensorRef& t) {
  std::vector<float> out(static_cast<size_t>(t.rows * t.cols));
  dequantize(t.dtype, t.bytes, out);
  return out;
}

// The file's rows in half-split order, as the loader must arrange them (config.h).
std::vector<float> half_split(const TensorRef& t, int head_dim) {
  const std::vector<float> in = values(t);
  std::vector<float> out(in.size());
  const int64_t rows = t.rows == 1 ? t.cols : t.rows, width = t.rows == 1 ? 1 : t.cols;  // a bias is a column
  for (int64_t r = 0; r < rows; r++) {
    const int64_t h = r / head_dim, i = r % head_dim / 2, j = r % 2;
    const int64_t to = h * head_dim + j * (head_dim / 2) + i;
    std::copy_n(in.begin() + r * width, width, out.begin() + to * width);
  }
  return out;
}

void expect_same_model(const WeightFile& gguf, const WeightFile& hf) {
  const ModelConfig &a = gguf.config(), &b = hf.config();
  EXPECT_EQ(std::tie(a.family, a.layers, a.hidden, a.heads, a.kv_heads, a.head_dim, a.ffn, a.vocab, a.context),
            std::tie(b.family, b.layers, b.hidden, b.heads, b.kv_heads, b.head_dim, b.ffn, b.vocab, b.context));
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(std::tie(a.rms_eps, a.rope_theta, a.qkv_bias, a.tied_embeddings),
            std::tie(b.rms_eps, b.rope_theta, b.qkv_bias, b.tied_embeddings));
  EXPECT_EQ(
      std::tie(a.sliding_window, a.layer_kinds, a.rope_scaling, a.rope_dims, a.rope_local_theta, a.rope_short, a.rope_long),
      std::tie(b.sliding_window, b.layer_kinds, b.rope_scaling, b.rope_dims, b.rope_local_theta, b.rope_short, b.rope_long));
  EXPECT_EQ(
      std::tie(a.qk_norm, a.post_norms, a.embed_scale, a.attention_scale, a.attention_soft_cap, a.logit_soft_cap, a.activation),
      std::tie(b.qk_norm, b.post_norms, b.embed_scale, b.attention_scale, b.attention_soft_cap, b.logit_soft_cap, b.activation));
  EXPECT_EQ(std::tie(a.experts, a.experts_used, a.expert_norm), std::tie(b.experts, b.experts_used, b.expert_norm));
  ASSERT_EQ(gguf.names(), hf.names());
  for (const auto name : gguf.names()) {
    const TensorRef &x = *gguf.find(name), &y = *hf.find(name);
    EXPECT_EQ(x.name, name);
    ASSERT_EQ(std::tie(x.rows, x.cols), std::tie(y.rows, y.cols)) << name;
    const bool rotary = name.find(".q_proj.") != name.npos || name.find(".k_proj.") != name.npos;
    std::vector<float> ours = gguf.rope_interleaved() && rotary ? half_split(x, a.head_dim) : values(x), theirs = values(y);
    if (name.ends_with("norm.weight")) {
      for (float& f : ours) f += a.norm_offset;
      for (float& f : theirs) f += b.norm_offset;
    }
    EXPECT_EQ(ours, theirs) << name;
  }
}

TEST_F(WeightFileTest, BothFormsOfASpecAreOneModel) {
  const TinySpec specs[] = {{},
                            {.dtype = Dtype::kBf16, .seed = 2, .tied = false, .shards = 3},
                            {.dtype = Dtype::kF16, .family = "qwen2"},
                            {.padded_rows = 5, .family = "qwen2", .tied = false},
                            {.window = 100},
                            {.family = "qwen3"},
                            {.dtype = Dtype::kF16, .family = "qwen3moe"},
                            {.family = "phi3", .tied = false, .rope_scaling = RopeScaling::kLongRope, .shards = 2},
                            {.head_dim = 32, .family = "phi3", .rope_scaling = RopeScaling::kLongRope, .rotated = 16},
                            {.dtype = Dtype::kBf16, .family = "gemma2", .window = 50, .soft_cap = 3},
                            {.family = "gemma3", .window = 50},
                            {.layers = 4, .family = "smollm3"}};
  for (const TinySpec& spec : specs) {
    ASSERT_TRUE(testing::write_tiny_gguf(dir_ + "/m.gguf", spec));
    ASSERT_TRUE(testing::write_tiny_hf(dir_ + "/hf", spec));
    const auto gguf = open("m.gguf"), hf = open("hf");
    ASSERT_TRUE(gguf && hf);
    EXPECT_FALSE(hf->rope_interleaved());
    EXPECT_EQ(gguf->rope_interleaved(), spec.family == "llama" || spec.family == "smollm3");
    EXPECT_EQ(gguf->config().tokens, spec.vocab);
    EXPECT_EQ(gguf->config().vocab, spec.vocab + spec.padded_rows);
    expect_same_model(*gguf, *hf);
    std::filesystem::remove_all(dir_ + "/hf");
  }
}

// A model of pictures and text in the form its makers publish: the text model's names have a prefix, other tensors are for
// pictures.
TEST_F(WeightFileTest, TextModelOfOneThatSees) {
  const TinySpec spec{.family = "gemma3", .window = 50};
  ASSERT_TRUE(testing::write_tiny_hf(dir_ + "/hf", spec));
  ASSERT_TRUE(testing::write_tiny_gguf(dir_ + "/m.gguf", spec));
  const auto read = [&](const std::string& name) {
    std::ifstream in(dir_ + "/hf/" + name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  write("hf/config.json", cat(R"({"model_type":"gemma3","text_config":)", read("config.json"), "}"));
  std::string shard = read("model.safetensors");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, shard.data(), 8);
  std::string header = shard.substr(8, header_bytes), data = shard.substr(8 + header_bytes);
  for (size_t at = 0; (at = header.find("\"model.", at)) != header.npos; at += 10) header.insert(at + 1, "language_model.");
  header.insert(1,
                cat(R"("vision_tower.x":{"dtype":"F32","shape":[1],"data_offsets":[)", data.size(), ",", data.size() + 4, "]},"));
  header_bytes = header.size();
  write("hf/model.safetensors", cat(std::string(reinterpret_cast<const char*>(&header_bytes), 8), header, data, "1234"));
  const auto gguf = open("m.gguf"), hf = open("hf");
  ASSERT_TRUE(gguf && hf);
  expect_same_model(*gguf, *hf);
}

TEST_F(WeightFileTest, HuggingFaceTexts) {
  ASSERT_TRUE(testing::write_tiny_hf(dir_ + "/hf", {}));
  auto file = open("hf");
  EXPECT_EQ(file->config().name, "hf");
  EXPECT_EQ(file->gguf_vocab(), nullptr);
  EXPECT_THAT(file->hf_tokenizer_json(), HasSubstr("\"merges\""));
  EXPECT_THAT(file->hf_tokenizer_config_json(), HasSubstr("eos_token"));
  EXPECT_EQ(file->chat_template(), testing::tiny_chat_template());
  EXPECT_EQ(file->config().eos_ids, (std::vector<int32_t>{2, 0}));  // generation_config.json goes before config.json
  EXPECT_EQ(file->config().gen_temperature, 0.7);

  write("hf/tokenizer_config.json",
        R"({"chat_template":[{"name":"tool_use","template":"T"},{"name":"default","template":"D"}]})");
  EXPECT_EQ(open("hf")->chat_template(), "D");
  write("hf/chat_template.jinja", "J");
  EXPECT_EQ(open("hf/")->chat_template(), "J");
  write("hf/tokenizer_config.json", R"({"chat_template":7})");
  EXPECT_THAT(open_error("hf"), HasSubstr("chat_template must be a string or a list"));
}

TEST_F(WeightFileTest, GgufTexts) {
  ASSERT_TRUE(testing::write_tiny_gguf(dir_ + "/m.gguf", {.vocab = 400}));
  auto file = open("");  // a directory with one GGUF file
  ASSERT_NE(file->gguf_vocab(), nullptr);
  const WeightFile::Vocab& v = *file->gguf_vocab();
  EXPECT_EQ(v.model, "gpt2");
  EXPECT_EQ(v.pre, "smollm");
  EXPECT_EQ(v.tokens.size(), 400u);
  EXPECT_EQ(v.token_type.size(), 400u);
  EXPECT_FALSE(v.merges.empty());
  EXPECT_EQ(std::tie(v.bos, v.eos, v.eot, v.unknown, v.padding), std::make_tuple(1, 2, -1, 0, 2));
  EXPECT_EQ(file->config().eos_ids, (std::vector<int32_t>{2, 0}));  // <|im_end|> named, <|endoftext|> found by its text
  EXPECT_EQ(file->chat_template(), testing::tiny_chat_template());
  EXPECT_TRUE(file->hf_tokenizer_json().empty());
}

TEST_F(WeightFileTest, MissingThingsAreNamed) {
  EXPECT_THAT(open_error("nothing.gguf"), HasSubstr("nothing.gguf: cannot open"));
  EXPECT_THAT(open_error(""), HasSubstr("neither config.json nor a .gguf file"));
  ASSERT_TRUE(testing::write_tiny_gguf(dir_ + "/a.gguf", {}));
  ASSERT_TRUE(testing::write_tiny_gguf(dir_ + "/b.gguf", {}));
  EXPECT_THAT(open_error(""), HasSubstr("2 .gguf files"));
  ASSERT_TRUE(testing::write_tiny_hf(dir_ + "/hf", {.shards = 2}));
  EXPECT_THAT(open_error("hf/model-00001-of-00002.safetensors"), HasSubstr("give the directory"));
  std::filesystem::remove(dir_ + "/hf/model-00002-of-00002.safetensors");
  EXPECT_THAT(open_error("hf"), HasSubstr("model-00002-of-00002.safetensors is missing"));
  std::filesystem::remove(dir_ + "/hf/model.safetensors.index.json");
  EXPECT_THAT(open_error("hf"), HasSubstr("model.safetensors is missing"));
  std::filesystem::rename(dir_ + "/hf/model-00001-of-00002.safetensors", dir_ + "/hf/model.safetensors");
  EXPECT_THAT(open_error("hf"), HasSubstr("is missing; the file is incomplete"));
  std::filesystem::remove(dir_ + "/hf/tokenizer.json");
  EXPECT_THAT(open_error("hf"), HasSubstr("tokenizer.json is missing"));
  write("empty.gguf", "");
  EXPECT_THAT(open_error("empty.gguf"), HasSubstr("is empty"));
}

TEST_F(WeightFileTest, IndexMayNotLeaveTheDirectory) {
  for (const std::string_view bad : {"../x.safetensors", "/etc/x.safetensors", "x.bin", ""}) {
    const auto names = shard_names(cat(R"({"weight_map":{"a":")", bad, "\"}}"));
    ASSERT_FALSE(names) << bad;
    EXPECT_THAT(names.error().message, HasSubstr("same directory"));
  }
  EXPECT_FALSE(shard_names("{}"));
  EXPECT_FALSE(shard_names(R"({"weight_map":{"a":1}})"));
  EXPECT_EQ(shard_names(R"({"weight_map":{"a":"2.safetensors","b":"1.safetensors","c":"2.safetensors"}})").value(),
            (std::vector<std::string>{"1.safetensors", "2.safetensors"}));
}

}  // namespace
}  // namespace baton::model
