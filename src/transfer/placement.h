#pragma once
// Placement: how the blocks that one rank sends become blocks of ours. The producer sends its own blocks in order, each cut to
// the layers and heads that we asked for; where our blocks look the same they are landed as they are, else the resharder
// (kv/reshard.h) puts them into place from a buffer, after the checksum agreed. Pure but for take(), which writes our pool.
#include <span>

#include "kv/reshard.h"
#include "transfer/blocks.h"

namespace baton::transfer {

// Our side of one fetch.
struct Destination {
  std::span<const int32_t> blocks;  // of tokens first_token on
  int32_t first_token = 0, n_tokens = 0;
};

class Placement {
 public:
  // Requires: check() and check_same_model() passed, and both shards cover the part.
  Placement(const kv::KvShard& theirs, const kv::KvShard& ours, const kv::ShardPart& part, const Destination& to);

  const kv::ShardPart& part() const { return part_; }
  const Cut& cut() const { return cut_; }  // of their blocks
  bool direct() const { return direct_; }  // their block i is our block i, byte for byte
  size_t wire_block_bytes() const { return cut_.bytes(); }
  int32_t first_token() const { return first_token_; }                    // of their first block: not after ours
  int32_t n_tokens() const { return n_tokens_; }                          // from there on
  size_t blocks() const { return blocks_; }                               // of theirs
  int32_t valid_tokens(size_t blocks_here, const Destination& to) const;  // that so many of their blocks give us

  // Their blocks [first_block, + n_blocks) lie in `wire`: puts them into our pool if their checksum is `expected`, else false.
  bool take(std::span<const std::byte> wire, size_t first_block, size_t n_blocks, uint64_t expected, const Destination& to,
            BlockArray pool) const;

 private:
  kv::KvShard wire_, ours_;  // their shard, cut
  kv::ShardPart part_;
  Cut cut_;
  bool direct_ = false;
  int32_t first_token_ = 0, n_tokens_ = 0;
  size_t blocks_ = 0;
};

}  // namespace baton::transfer
