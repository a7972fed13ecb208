#pragma once
// BlockPool: ids, reference counts and the prefix cache of KV blocks; it never touches their bytes.
// vLLM's semantics (facts sheet "engine" 3.4): block 0 is a reserved null block; a full computed block gets a hash; freeing
// appends to an intrusive free list, tail blocks first, so eviction is LRU with longest-prefix preference; a hit on a free block
// unlinks it in O(1). Pure: no I/O, no clock. Owner and only caller: the engine's step thread.
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/sha256.h"

namespace baton::kv {

using BlockId = int32_t;
using BlockHash = Digest;
constexpr BlockId kNullBlock = 0;

// hash(block) = SHA-256(CBOR [parent, [tokens...], null | [extra...]]), canonical CBOR: vLLM's sha256_cbor.
BlockHash root_hash(std::string_view seed);  // SHA-256(CBOR text string of seed)
BlockHash block_hash(const BlockHash& parent, std::span<const int32_t> tokens, std::span<const std::string_view> extra = {});
// The LoRA adapter that KV was computed with. It is in every block's hash: its name, as vLLM has it, and its weights' digest, so
// that nothing is shared between adapters, nor between two that bore one name.
struct Adapter {
  int32_t id = 0;  // from 1; another one for every loading: vLLM's lora_int_id
  std::string name, digest;
};
// The extra keys of a block, in vLLM's order: the adapter, and of a sequence's first block the salt (cache_salt).
class ExtraKeys {
 public:
  ExtraKeys(const Adapter* adapter, std::string_view salt) {
    if (adapter) keys_[n_++] = adapter->name, keys_[n_++] = adapter->digest;
    if (!salt.empty()) keys_[n_++] = salt;
  }
  operator std::span<const std::string_view>() const { return {keys_.data(), n_}; }

 private:
  std::array<std::string_view, 3> keys_;
  size_t n_ = 0;
};
// Hashes of all full blocks of tokens.
std::vector<BlockHash> hash_chain(const BlockHash& root, std::span<const int32_t> tokens, int block_tokens,
                                  std::string_view salt = {}, const Adapter* adapter = nullptr);

// What changed in the prefix cache, in order: what the engine's KV events say.
struct CacheChange {
  enum class Kind : uint8_t { kStored, kRemoved, kCleared } kind = Kind::kStored;
  BlockHash hash{};
  BlockHash parent{};  // kStored, of a block that has one before it
  bool has_parent = false;
  std::vector<int32_t> tokens{};  // kStored: the block's
  std::string salt{};             // kStored, of a request's first block
  std::shared_ptr<const Adapter> adapter{};  // kStored; nullptr: the base model's
};

class BlockPool {
 public:
  struct From {  // where a cached block comes from; only looked at while changes are recorded
    const BlockHash* parent = nullptr;
    std::span<const int32_t> tokens{};
    std::string_view salt{};
    std::shared_ptr<const Adapter> adapter{};
  };
  BlockPool(int32_t blocks, bool prefix_caching);  // blocks >= 2, the null block included
  BlockPool(BlockPool&&) noexcept = default;
  BlockPool& operator=(BlockPool&&) noexcept = default;

  int32_t total() const { return static_cast<int32_t>(blocks_.size()) - 1; }  // usable blocks: all but the null block
  int32_t available() const { return free_; }                                 // free, cached or not
  double usage() const { return 1.0 - static_cast<double>(available()) / total(); }
  bool prefix_caching() const { return prefix_caching_; }

  // All or nothing; blocks come with one reference and no hash. Evicts cached free blocks in LRU order.
  std::optional<std::vector<BlockId>> allocate(int32_t n);
  // Longest run of hashes present, in order; takes no references.
  std::vector<BlockId> lookup(std::span<const BlockHash> hashes) const;
  // How many of these blocks are on the free list now (taking them lowers available() by that many).
  int32_t free_among(std::span<const BlockId> blocks) const;
  void ref(std::span<const BlockId> blocks);
  // Drops one reference of each, in reverse order; blocks at zero go to the free list and stay findable until evicted.
  void unref(std::span<const BlockId> blocks);
  // block is full and computed; no-op if it has a hash or caching is off
  void cache(BlockId block, const BlockHash& hash, const From& from);
  void cache(BlockId block, const BlockHash& hash) { cache(block, hash, {}); }
  // Blocks [begin, end) of a sequence, whose chain is `hashes`; all: its tokens, salt and adapter.
  void cache_chain(std::span<const BlockId> blocks, std::span<const BlockHash> hashes, size_t begin, size_t end, const From& all,
                   int block_tokens);
  // What changed since the last call; the first one starts it. A hash is stored with its first block and removed with its last.
  std::vector<CacheChange> take_changes() {
    recording_ = true;
    return std::exchange(changes_, {});
  }
  int32_t ref_count(BlockId block) const { return at(block).refs; }
  int32_t cached() const { return cached_; }  // blocks that carry a hash
  bool reset_prefix_cache();                  // false if any block is referenced
  uint64_t evictions() const { return evictions_; }

 private:
  // Links are block ids; kNullBlock ends a list. The null block is never free, so it is the free list's sentinel.
  struct Block {
    int32_t refs = 0;
    BlockId free_prev = kNullBlock, free_next = kNullBlock;
    BlockId twin_prev = kNullBlock, twin_next = kNullBlock;  // blocks with the same hash; the table knows the first
    bool has_hash = false;
  };

  const Block& at(BlockId block) const { return blocks_[static_cast<size_t>(block)]; }
  Block& at(BlockId block) { return blocks_[static_cast<size_t>(block)]; }
  void push_free(BlockId block);
  void unlink_free(BlockId block);
  size_t home(const BlockHash& hash) const;
  size_t find_slot(const BlockHash& hash) const;  // the slot with this hash, or the empty slot where it would go
  void drop_hash(BlockId block);
  void erase_slot(size_t slot);

  std::vector<Block> blocks_;
  std::vector<BlockHash> hashes_;  // by block id; valid where has_hash
  std::vector<BlockId> table_;     // open addressing, linear probing; kNullBlock = empty; at most half full
  int32_t free_ = 0;
  int32_t cached_ = 0;
  uint64_t evictions_ = 0;
  bool prefix_caching_ = true, recording_ = false;
  std::vector<CacheChange> changes_;
};

}  // namespace baton::kv
