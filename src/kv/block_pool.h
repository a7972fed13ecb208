#pragma once
// BlockPool: ids, reference counts and the prefix cache of KV blocks; it never touches their bytes.
// vLLM's semantics (facts sheet "engine" 3.4): block 0 is a reserved null block; a full computed block gets a hash; freeing appends to
// an intrusive free list, tail blocks first, so eviction is LRU with longest-prefix preference; a hit on a free block unlinks it in O(1).
// Pure: no I/O, no clock. Owner and only caller: the engine's step thread.
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/sha256.h"

namespace baton::kv {

using BlockId = int32_t;
using BlockHash = Digest;
constexpr BlockId kNullBlock = 0;

// hash(block) = SHA-256(CBOR [parent, [tokens...], null | [extra...]]), canonical CBOR: vLLM's sha256_cbor.
BlockHash root_hash(std::string_view seed);   // SHA-256(CBOR text string of seed)
BlockHash block_hash(const BlockHash& parent, std::span<const int32_t> tokens, std::span<const std::string_view> extra = {});
// Hashes of all full blocks of tokens; salt (cache_salt) goes into the first block's extra keys.
std::vector<BlockHash> hash_chain(const BlockHash& root, std::span<const int32_t> tokens, int block_tokens, std::string_view salt = {});

class BlockPool {
 public:
  BlockPool(int32_t blocks, bool prefix_caching);   // blocks >= 2, the null block included
  ~BlockPool();
  BlockPool(BlockPool&&) noexcept;

  int32_t total() const;      // usable blocks: all but the null block
  int32_t available() const;  // free, cached or not
  double usage() const { return 1.0 - static_cast<double>(available()) / total(); }

  // All or nothing; blocks come with one reference and no hash. Evicts cached free blocks in LRU order.
  std::optional<std::vector<BlockId>> allocate(int32_t n);
  // Longest run of hashes present, in order; takes no references.
  std::vector<BlockId> lookup(std::span<const BlockHash> hashes) const;
  // How many of these blocks are on the free list now (taking them lowers available() by that many).
  int32_t free_among(std::span<const BlockId> blocks) const;
  void ref(std::span<const BlockId> blocks);
  // Drops one reference of each, in reverse order; blocks at zero go to the free list and stay findable until evicted.
  void unref(std::span<const BlockId> blocks);
  void cache(BlockId block, const BlockHash& hash);   // block is full and computed; no-op if it has a hash or caching is off
  int32_t ref_count(BlockId block) const;
  bool reset_prefix_cache();                          // false if any block is referenced
  uint64_t evictions() const;

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace baton::kv
