#include "kv/block_pool.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/result.h"

namespace baton::kv {

BlockPool::BlockPool(int32_t blocks, bool prefix_caching) : prefix_caching_(prefix_caching) {
  BATON_CHECK(blocks >= 2);
  size_t count = static_cast<size_t>(blocks);
  blocks_.resize(count);
  if (prefix_caching) {
    hashes_.resize(count);
    table_.assign(std::bit_ceil(2 * count), kNullBlock);
  }
  for (BlockId b = 1; b < blocks; ++b) push_free(b);
}

std::optional<std::vector<BlockId>> BlockPool::allocate(int32_t n) {
  BATON_CHECK(n >= 0);
  if (n > free_) return std::nullopt;
  std::vector<BlockId> out(static_cast<size_t>(n));
  for (BlockId& block : out) {
    block = at(kNullBlock).free_next;  // the least recently freed
    unlink_free(block);
    if (at(block).has_hash) {
      drop_hash(block);
      ++evictions_;
    }
    at(block).refs = 1;
  }
  return out;
}

std::vector<BlockId> BlockPool::lookup(std::span<const BlockHash> hashes) const {
  std::vector<BlockId> found;
  if (!prefix_caching_) return found;
  for (const BlockHash& hash : hashes) {
    BlockId block = table_[find_slot(hash)];
    if (block == kNullBlock) break;
    found.push_back(block);
  }
  return found;
}

int32_t BlockPool::free_among(std::span<const BlockId> blocks) const {
  return static_cast<int32_t>(std::ranges::count_if(blocks, [&](BlockId b) { return at(b).refs == 0; }));
}

void BlockPool::ref(std::span<const BlockId> blocks) {
  for (BlockId block : blocks) {
    if (at(block).refs++ == 0) unlink_free(block);
  }
}

void BlockPool::unref(std::span<const BlockId> blocks) {
  for (size_t i = blocks.size(); i-- > 0;) {
    Block& block = at(blocks[i]);
    BATON_CHECK(block.refs > 0);
    if (--block.refs == 0) push_free(blocks[i]);
  }
}

// The first block with a hash stays first, so a lookup's answer does not depend on later duplicates.
void BlockPool::cache(BlockId block, const BlockHash& hash, const From& from) {
  BATON_CHECK(block > kNullBlock && block <= total() && at(block).refs > 0);
  if (!prefix_caching_ || at(block).has_hash) return;
  at(block).has_hash = true;
  hashes_[static_cast<size_t>(block)] = hash;
  ++cached_;
  BlockId& first = table_[find_slot(hash)];
  if (first == kNullBlock) {
    first = block;
    if (recording_) {
      changes_.push_back({.hash = hash,
                          .parent = from.parent != nullptr ? *from.parent : BlockHash{},
                          .has_parent = from.parent != nullptr,
                          .tokens = {from.tokens.begin(), from.tokens.end()},
                          .salt = std::string(from.salt),
                          .adapter = from.adapter});
    }
    return;
  }
  BlockId second = at(first).twin_next;
  at(block).twin_prev = first;
  at(block).twin_next = second;
  at(first).twin_next = block;
  if (second != kNullBlock) at(second).twin_prev = block;
}

void BlockPool::cache_chain(std::span<const BlockId> blocks, std::span<const BlockHash> hashes, size_t begin, size_t end,
                            const From& all, int block_tokens) {
  const auto width = static_cast<size_t>(block_tokens);
  for (size_t i = begin; i < end; ++i) {
    cache(blocks[i], hashes[i],
          {.parent = i > 0 ? &hashes[i - 1] : nullptr,
           .tokens = all.tokens.subspan(i * width, width),
           .salt = i > 0 ? std::string_view() : all.salt,
           .adapter = all.adapter});
  }
}

bool BlockPool::reset_prefix_cache() {
  if (free_ != total()) return false;
  for (Block& block : blocks_) {
    block.has_hash = false;
    block.twin_prev = block.twin_next = kNullBlock;
  }
  std::ranges::fill(table_, kNullBlock);
  cached_ = 0;
  if (recording_) changes_.push_back({.kind = CacheChange::Kind::kCleared});
  return true;
}

void BlockPool::push_free(BlockId block) {
  Block& sentinel = at(kNullBlock);
  at(block).free_prev = sentinel.free_prev;
  at(block).free_next = kNullBlock;
  at(sentinel.free_prev).free_next = block;
  sentinel.free_prev = block;
  ++free_;
}

void BlockPool::unlink_free(BlockId block) {
  Block& b = at(block);
  at(b.free_prev).free_next = b.free_next;
  at(b.free_next).free_prev = b.free_prev;
  b.free_prev = b.free_next = kNullBlock;
  --free_;
}

// SHA-256 is uniform already: any eight of its bytes are a good table hash.
size_t BlockPool::home(const BlockHash& hash) const {
  uint64_t word;
  std::memcpy(&word, hash.data(), sizeof word);
  return static_cast<size_t>(word) & (table_.size() - 1);
}

size_t BlockPool::find_slot(const BlockHash& hash) const {
  size_t slot = home(hash);
  while (table_[slot] != kNullBlock && hashes_[static_cast<size_t>(table_[slot])] != hash)
    slot = (slot + 1) & (table_.size() - 1);
  return slot;
}

void BlockPool::drop_hash(BlockId block) {
  Block& b = at(block);
  if (b.twin_next != kNullBlock) at(b.twin_next).twin_prev = b.twin_prev;
  if (b.twin_prev != kNullBlock) {
    at(b.twin_prev).twin_next = b.twin_next;
  } else {
    size_t slot = find_slot(hashes_[static_cast<size_t>(block)]);
    if (b.twin_next != kNullBlock) {
      table_[slot] = b.twin_next;
    } else {
      if (recording_) changes_.push_back({.kind = CacheChange::Kind::kRemoved, .hash = hashes_[static_cast<size_t>(block)]});
      erase_slot(slot);
    }
  }
  b.twin_prev = b.twin_next = kNullBlock;
  b.has_hash = false;
  --cached_;
}

// Backward shift: later members of the run move up unless they would leave the range that starts at their home. No tombstones.
void BlockPool::erase_slot(size_t hole) {
  size_t mask = table_.size() - 1;
  for (size_t slot = (hole + 1) & mask; table_[slot] != kNullBlock; slot = (slot + 1) & mask) {
    size_t from_home = (slot - home(hashes_[static_cast<size_t>(table_[slot])])) & mask;
    if (from_home >= ((slot - hole) & mask)) {
      table_[hole] = table_[slot];
      hole = slot;
    }
  }
  table_[hole] = kNullBlock;
}

}  // namespace baton::kv
