#pragma once
// A plain model of KV memory: what every element of every rank's pool must be, from layout.h's drawing alone and one element at a
// time. Judges the resharder.
#include <cstring>
#include <set>
#include <vector>

#include "base/prng.h"
#include "kv/reshard.h"

namespace baton::kv::testing {

inline size_t tile_offset(const KvLayout& l, int32_t block, int32_t layer, bool value, int32_t head) {
  auto u = [](auto n) { return static_cast<size_t>(n); };
  auto tile = ((u(block) * u(l.layers) + u(layer)) * 2 + (value ? 1 : 0)) * u(l.kv_heads) + u(head);
  return tile * (u(l.block_tokens) * (u(l.head_dim) * dtype_bytes(l.dtype) + scale_bytes(l.dtype)));
}

// Where an element lies in a pool. Written apart from the resharder: nothing of its arithmetic is used.
inline size_t element_offset(const KvLayout& l, int32_t block, int32_t layer, bool value, int32_t head, int32_t token,
                             int32_t dim) {
  auto u = [](auto n) { return static_cast<size_t>(n); };
  size_t in_tile = 0;
  if (l.tile_order == TileOrder::kTokenMajor) {
    in_tile = u(token) * u(l.head_dim) + u(dim);
  } else if (!value) {
    in_tile = (u(dim / 2) * u(l.block_tokens) + u(token)) * 2 + u(dim % 2);
  } else {
    in_tile = (u(token / 2) * u(l.head_dim) + u(dim)) * 2 + u(token % 2);
  }
  return tile_offset(l, block, layer, value, head) + in_tile * dtype_bytes(l.dtype);
}

// The bytes of one element of the model (dim -1: of a scale): different for every element, as far as its width allows.
inline uint32_t element(int32_t layer, bool value, int32_t head, int32_t token, int32_t dim) {
  uint64_t h = 0x9e3779b97f4a7c15ULL;
  for (uint64_t part : {uint64_t(layer), uint64_t(value), uint64_t(head), uint64_t(token), uint64_t(dim)})
    h = (h ^ (part + 0x632be59bd9b4e019ULL)) * 0xff51afd7ed558ccdULL, h ^= h >> 29;
  return static_cast<uint32_t>(h >> 16) | 1;  // never 0xEEEE...: even
}

struct Rank {
  KvShard shard;
  std::vector<int32_t> blocks;
  int32_t first_token = 0;
  std::vector<std::byte> pool;
  BlockMap map() const { return {shard, blocks, first_token}; }
};

constexpr auto kUntouched = std::byte{0xEE};

// A rank whose pool has room for `n_blocks` blocks from first_token on, in random places, with others between them.
inline Rank make_rank(Prng& prng, const KvShard& shard, int32_t first_token, size_t n_blocks) {
  Rank r{.shard = shard, .blocks = {}, .first_token = first_token, .pool = {}};
  std::set<int32_t> taken;
  auto room = static_cast<int32_t>(n_blocks + prng.below(4));
  int32_t at = 0;
  while (r.blocks.size() < n_blocks) {
    at = prng.chance(0.6) ? (at + 1) % room : static_cast<int32_t>(prng.below(static_cast<uint64_t>(room)));
    while (taken.contains(at)) at = (at + 1) % room;
    taken.insert(at);
    r.blocks.push_back(at);
  }
  r.pool.assign(static_cast<size_t>(room) * shard.layout.block_bytes(), kUntouched);
  return r;
}

template <class F>  // f(offset, what lies there, its bytes) for every element and scale of tokens [first, end) that the rank
                    // holds
                    void for_each_element(const Rank& r, int32_t first, int32_t end, F f) {
  const auto& l = r.shard.layout;
  for (int32_t t = first; t < end; ++t) {
    auto block = r.blocks[static_cast<size_t>((t - r.first_token) / l.block_tokens)];
    for (int32_t layer = 0; layer < l.layers; ++layer)
      for (bool value : {false, true})
        for (int32_t head = 0; head < l.kv_heads; ++head) {
          auto in_block = (t - r.first_token) % l.block_tokens;
          for (int32_t dim = 0; dim < l.head_dim; ++dim)
            f(element_offset(l, block, layer, value, head, in_block, dim),
              element(r.shard.layer_first + layer, value, r.shard.head_first + head, t, dim), dtype_bytes(l.dtype));
          if (scale_bytes(l.dtype) > 0)  // behind the tile's elements, one a token
            f(tile_offset(l, block, layer, value, head) +
                  static_cast<size_t>(l.block_tokens * l.head_dim) * dtype_bytes(l.dtype) + static_cast<size_t>(in_block) * 4,
              element(r.shard.layer_first + layer, value, r.shard.head_first + head, t, -1), scale_bytes(l.dtype));
        }
  }
}

inline void fill(Rank& r) {
  auto end = r.first_token + static_cast<int32_t>(r.blocks.size()) * r.shard.layout.block_tokens;
  for_each_element(r, r.first_token, end,
                   [&](size_t at, uint32_t value, size_t bytes) { std::memcpy(r.pool.data() + at, &value, bytes); });
}

// Runs the copies and judges every byte of the destination: right in [first, end), untouched elsewhere; written once; nothing
// read or written outside a pool. "" or what is wrong.
inline std::string judge(const std::vector<Copy>& copies, const std::vector<Rank>& sources, Rank to, int32_t first, int32_t end) {
  std::vector<uint8_t> written(to.pool.size());
  for (const auto& c : copies) {
    if (c.source >= sources.size() || c.rows == 0 || c.length == 0) return "a copy from nowhere or of nothing";
    const auto& from = sources[c.source].pool;
    auto last = c.rows - 1;
    if (c.from + last * c.from_stride + c.length > from.size() || c.to + last * c.to_stride + c.length > to.pool.size())
      return "a copy outside a pool";
    for (uint64_t row = 0; row < c.rows; ++row)
      for (uint64_t i = 0; i < c.length; ++i)
        if (written[c.to + row * c.to_stride + i]++ != 0) return cat("byte ", c.to + row * c.to_stride + i, " written twice");
    run_copy(c, from.data(), to.pool.data());
  }
  std::string wrong;
  std::vector<std::byte> expected(to.pool.size(), kUntouched);
  for_each_element(to, first, end,
                   [&](size_t at, uint32_t value, size_t bytes) { std::memcpy(expected.data() + at, &value, bytes); });
  for (size_t i = 0; i < expected.size() && wrong.empty(); ++i)
    if (expected[i] != to.pool[i]) wrong = cat("byte ", i, " of ", expected.size(), " differs");
  return wrong;
}

}  // namespace baton::kv::testing
