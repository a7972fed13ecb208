#pragma once
// KvShard: which part of a model's KV the blocks of one rank hold: a range of its layers (pipeline parallelism) and a range of
// its KV heads (tensor parallelism; with more ranks than heads several ranks hold the same ones). Pure values.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "kv/layout.h"

namespace baton::kv {

struct KvShard {
  KvLayout layout;                            // of this rank's blocks: its layers and its heads
  int32_t layer_first = 0, head_first = 0;    // in the model
  int32_t model_layers = 0, model_heads = 0;  // of the whole model
  std::string id() const;                     // layout.id(), and the ranges where they are not everything
  bool operator==(const KvShard&) const = default;
};

KvShard whole_shard(const KvLayout& model);  // the only rank

// The ranks of an engine, tensor parallel innermost: rank = stage * tp + tp_rank. Heads are dealt as vLLM does: kv_heads / tp
// each, or one of them to tp / kv_heads neighbours. Layers: evenly, the first stages take the rest.
Result<std::vector<KvShard>> shards_of(const KvLayout& model, int tp, int pp);

// For what a stranger sent: every number positive and below 2^16, ranges inside the model, block sizes fit for their tile order.
Result<> check(const KvShard& shard);
// Whether one's blocks can be made of the other's: same model, head size and dtype. The reason if not.
Result<> check_same_model(const KvShard& a, const KvShard& b);

// A rectangle of the model's layers and heads, and which of several sources it is taken from.
struct ShardPart {
  size_t source = 0;
  int32_t layer_first = 0, layers = 0, head_first = 0, heads = 0;
  bool operator==(const ShardPart&) const = default;
};
bool covers(const KvShard& shard, const ShardPart& part);

// Who gives what to `to`, which is rank `rank` of its engine: disjoint parts that together are all of it. Of replicas, ranks take
// turns. Fails if the sources do not cover it or overlap other than as replicas.
Result<std::vector<ShardPart>> parts_for(std::span<const KvShard> sources, const KvShard& to, int rank);
// How many of the ranks in `to` read from sources[source].
Result<int> readers_of(std::span<const KvShard> sources, size_t source, std::span<const KvShard> to);

}  // namespace baton::kv
