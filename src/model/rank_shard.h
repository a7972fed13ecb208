#pragma once
// RankShard: the part of a model that one rank of a tensor-parallel group computes: query heads with their KV heads, columns of
// the feed-forward layer, rows of the vocabulary. Q, K, V, gate and up are cut by rows (outputs), O and down by columns (inputs),
// whose results the ranks add up (rank_group.h); norms and the embedding are whole on every rank. With more ranks than KV heads
// several ranks share one: the first of them computes and stores its K and V, the others read them. Pure values.
// Source: facts/engine.md 7.1.
#include <cstdint>

#include "base/result.h"
#include "model/config.h"

namespace baton::model {

struct RankShard {
  int32_t rank = 0, ranks = 1;
  int32_t head_first = 0, heads = 0;
  int32_t kv_head_first = 0, kv_heads = 0;
  bool stores_kv = true;  // false: another rank computes K and V of our KV head
  int32_t ffn_first = 0, ffn = 0;
  int32_t vocab_first = 0, vocab = 0;

  bool whole() const { return ranks == 1; }
};

// What cannot be cut into so many parts is an error that names it.
Result<RankShard> shard_of(const ModelConfig& config, int rank, int ranks);

}  // namespace baton::model
