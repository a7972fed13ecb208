#include "model/rank_shard.h"

#include <gtest/gtest.h>

#include <set>

namespace baton::model {
namespace {

ModelConfig config(int32_t heads, int32_t kv_heads, int32_t ffn = 3072) {
  ModelConfig c;
  c.family = "llama";
  c.heads = heads, c.kv_heads = kv_heads, c.head_dim = 64, c.ffn = ffn, c.vocab = 1000;
  return c;
}

TEST(RankShard, EveryHeadColumnAndWordBelongsToOneRank) {
  for (const auto& [heads, kv_heads, ranks] :
       {std::tuple{9, 3, 3}, {14, 2, 2}, {24, 8, 4}, {32, 8, 8}, {8, 2, 4}, {8, 1, 8}, {6, 3, 1}}) {
    ModelConfig c = config(heads, kv_heads, 32 * (ranks * 3 + 1));  // which gives one rank a record more
    c.experts = 8, c.dense_ffn = 32 * ranks;
    int32_t head = 0, ffn = 0, dense = 0, word = 0;
    std::multiset<int32_t> stored;
    for (int rank = 0; rank < ranks; ++rank) {
      const auto s = shard_of(c, rank, ranks);
      ASSERT_TRUE(s) << s.error().message;
      EXPECT_EQ(s->head_first, head);
      EXPECT_EQ(s->columns(c.ffn).first, ffn);
      EXPECT_EQ(s->columns(c.dense_ffn).first, dense);
      EXPECT_EQ(s->vocab_first, word);
      EXPECT_EQ(s->columns(c.ffn).n % 32, 0);
      EXPECT_EQ(s->columns(c.dense_ffn).n, 32);
      head += s->heads, word += s->vocab;
      ffn += s->columns(c.ffn).n, dense += s->columns(c.dense_ffn).n;
      for (int32_t h = s->head_first; h < s->head_first + s->heads; ++h) {  // its own KV head is among ours
        EXPECT_GE(h / (heads / kv_heads), s->kv_head_first);
        EXPECT_LT(h / (heads / kv_heads), s->kv_head_first + s->kv_heads);
      }
      EXPECT_EQ(s->heads % s->kv_heads, 0);
      for (int32_t k = 0; s->stores_kv && k < s->kv_heads; ++k) stored.insert(s->kv_head_first + k);
    }
    EXPECT_EQ(head, heads);
    EXPECT_EQ(ffn, c.ffn);
    EXPECT_EQ(dense, c.dense_ffn);
    EXPECT_EQ(word, c.vocab);
    EXPECT_EQ(stored.size(), static_cast<size_t>(kv_heads));
    EXPECT_EQ(std::set<int32_t>(stored.begin(), stored.end()).size(), static_cast<size_t>(kv_heads));
  }
}

TEST(RankShard, WhatCannotBeCutIsNamed) {
  const auto refused = [](const ModelConfig& c, int ranks, std::string_view why) {
    const auto shard = shard_of(c, 0, ranks);
    ASSERT_FALSE(shard) << why;
    EXPECT_NE(shard.error().message.find(why), std::string::npos) << shard.error().message;
    EXPECT_EQ(shard.error().code, Code::kInvalidArgument);
  };
  refused(config(9, 3), 2, "9 attention heads");
  refused(config(12, 3), 2, "3 key/value heads");
  refused(config(8, 8, 48), 2, "feed-forward size 48");
  refused(config(8, 8), 0, "ranks");
  refused(config(128, 128), 128, "ranks");
  ModelConfig c = config(4, 4, 768);
  c.experts = 8;
  EXPECT_TRUE(shard_of(c, 0, 4));
  c.ffn = 80;
  refused(c, 2, "experts' feed-forward size 80");
  EXPECT_TRUE(shard_of(c, 0, 1));
  c.ffn = 768, c.dense_ffn = 96;
  refused(c, 4, "dense layers' feed-forward size 96");
  c = config(4, 4);
  c.head_dim = 16;
  refused(c, 4, "heads of 16");
  c = config(4, 4);
  c.vocab = 20;
  refused(c, 2, "vocabulary");
}

}  // namespace
}  // namespace baton::model
