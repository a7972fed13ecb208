#pragma once
// Resharder: from blocks of one shape to blocks of another. A pure function of where the tokens lie on both sides, giving strided
// copies: unequal tensor and pipeline parallelism (a part is a rectangle of layers and heads), unequal block sizes both ways, and
// other tile orders. Tokens are addressed by position, never by counting blocks from an end. Bytes of tokens outside the range
// are not touched. dtype is never converted; scales go with their tokens and heads. Copies come in token order; what is contiguous on both sides is one copy, across
// blocks too.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kv/shard.h"

namespace baton::kv {

// Where tokens lie in a pool of blocks of one shard: blocks[i] holds tokens [first_token + i * block_tokens, ...).
struct BlockMap {
  KvShard shard;
  std::span<const int32_t> blocks;  // >= 0; inside the pool is the caller's to know
  int32_t first_token = 0;          // multiple of the shard's block_tokens
};

// rows x length bytes; offsets from the beginning of the pools. rows = 1: the strides mean nothing.
struct Copy {
  uint64_t from = 0, to = 0, length = 0;
  uint64_t rows = 1, from_stride = 0, to_stride = 0;
  size_t source = 0;  // which rank's pool it is taken from
};
using CopyVisitor = std::function<void(const Copy&)>;

// Tokens [first_token, first_token + n_tokens) of `part`, from `from` into `to`. Requires that both maps hold the range, both
// shards cover the part, and check() and check_same_model() passed: else kOutOfRange and no copy.
Result<> reshard(const BlockMap& from, const BlockMap& to, const ShardPart& part, int32_t first_token, int32_t n_tokens,
                 const CopyVisitor& visit);

// From all ranks at once: parts_for() and the above.
Result<std::vector<Copy>> reshard(std::span<const BlockMap> sources, const BlockMap& to, int to_rank, int32_t first_token,
                                  int32_t n_tokens);

void run_copy(const Copy& copy, const std::byte* from_pool, std::byte* to_pool);

}  // namespace baton::kv
