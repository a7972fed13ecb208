#pragma once
// Pools as equal blocks, and the piece of a block that travels. Values; bounds are the caller's to check with has().
#include <cstddef>
#include <cstdint>
#include <span>

#include "kv/shard.h"

namespace baton::transfer {

// Our own pool as equal blocks.
struct BlockArray {
  std::span<std::byte> bytes;
  size_t block_bytes = 0;
  int32_t count() const { return static_cast<int32_t>(bytes.size() / block_bytes); }
  bool has(int32_t block) const { return block >= 0 && block < count(); }
  std::span<std::byte> operator[](int32_t block) const {
    return bytes.subspan(static_cast<size_t>(block) * block_bytes, block_bytes);
  }
};

// What of a block a consumer wants: some rows of equal length. A whole block is one row.
struct Cut {
  size_t first = 0, length = 0, rows = 1, stride = 0;
  size_t bytes() const { return rows * length; }
  template <class F>  // f(offset in the block, length)
  void for_each(F f) const {
    for (size_t i = 0; i < rows; ++i) f(first + i * stride, length);
  }
};
inline Cut whole_block(size_t block_bytes) { return {.length = block_bytes}; }

// Layers follow one another, in each the K heads and then the V heads: of some heads, two rows a layer. Requires covers().
inline Cut cut_of(const kv::KvShard& shard, const kv::ShardPart& part) {
  const auto& l = shard.layout;
  auto half = l.layer_bytes() / 2, layers = static_cast<size_t>(part.layers), heads = static_cast<size_t>(part.heads);
  auto first = l.k_offset(part.layer_first - shard.layer_first, part.head_first - shard.head_first);
  if (part.heads == l.kv_heads) return {.first = first, .length = layers * l.layer_bytes()};
  return {.first = first, .length = heads * l.tile_bytes(), .rows = 2 * layers, .stride = half};
}

}  // namespace baton::transfer
