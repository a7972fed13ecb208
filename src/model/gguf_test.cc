#include "model/gguf.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace baton::model {
namespace {

TEST(GgufDemo, MatchesTheModelCard) {
  const std::string path = BATON_SOURCE_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "the demo model is not here";
  auto file = WeightFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  const ModelConfig& c = (*file)->config();
  EXPECT_EQ(c.family, "llama");
  EXPECT_EQ(c.layers, 30);
  EXPECT_EQ(c.hidden, 576);
  EXPECT_EQ(c.heads, 9);
  EXPECT_EQ(c.kv_heads, 3);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.ffn, 1536);
  EXPECT_EQ(c.vocab, 49152);
  EXPECT_EQ(c.context, 8192);
  EXPECT_FLOAT_EQ(c.rms_eps, 1e-5f);
  EXPECT_EQ(c.rope_theta, 100000);
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_FALSE(c.qkv_bias);
  EXPECT_TRUE((*file)->rope_interleaved());
  ASSERT_NE((*file)->gguf_vocab(), nullptr);
  EXPECT_EQ((*file)->gguf_vocab()->pre, "smollm");
  EXPECT_EQ((*file)->gguf_vocab()->tokens.size(), 49152u);
  EXPECT_NE((*file)->chat_template().find("im_start"), std::string::npos);
}

}  // namespace
}  // namespace baton::model
