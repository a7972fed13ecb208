#pragma once
// RankShard: the part of a model that one rank of a tensor-parallel group computes: query heads with their KV heads, columns of
// the feed-forward layer or of every expert of a mixture, rows of the vocabulary. Q, K, V, gate and up are cut by rows (outputs),
// O and down by columns (inputs), whose results the ranks add up (rank_group.h); norms, the embedding and a mixture's router are
// whole on every rank. With more ranks than KV heads several ranks share one: the first of them computes and stores its K and V,
// the others read them. Pure values. Source: facts/engine.md 7.1.
#include <cstdint>

#include "base/result.h"
#include "model/config.h"

namespace baton::model {

struct RankShard {
  int32_t rank = 0, ranks = 1;
  int32_t head_first = 0, heads = 0;
  int32_t kv_head_first = 0, kv_heads = 0;
  bool stores_kv = true;  // false: another rank computes K and V of our KV head
  int32_t vocab_first = 0, vocab = 0;

  struct Columns {
    int32_t first, n;
  };

  bool whole() const { return ranks == 1; }
  // Of a feed-forward layer of that size: ModelConfig::ffn, which of a mixture is an expert's, or dense_ffn. Panels hold inputs
  // by the record, so a cut falls between records; ranks' parts differ by one at most.
  Columns columns(int32_t ffn) const;
};

// What cannot be cut into so many parts is an error that names it.
Result<RankShard> shard_of(const ModelConfig& config, int rank, int ranks);

}  // namespace baton::model
