#include "transfer/placement.h"

#include <algorithm>

#include "transfer/checksum.h"

namespace baton::transfer {

Placement::Placement(const kv::KvShard& theirs, const kv::KvShard& ours, const kv::ShardPart& part, const Destination& to)
    : wire_(theirs), ours_(ours), part_(part), cut_(cut_of(theirs, part)) {
  part_.source = 0;
  wire_.layout.layers = part.layers;
  wire_.layout.kv_heads = part.heads;
  wire_.layer_first = part.layer_first;
  wire_.head_first = part.head_first;
  direct_ = wire_ == ours_;
  auto bt = wire_.layout.block_tokens;
  first_token_ = to.first_token / bt * bt;
  n_tokens_ = to.first_token + to.n_tokens - first_token_;
  blocks_ = static_cast<size_t>((n_tokens_ + bt - 1) / bt);
}

int32_t Placement::valid_tokens(size_t blocks_here, const Destination& to) const {
  auto end = first_token_ + static_cast<int64_t>(blocks_here) * wire_.layout.block_tokens;
  return static_cast<int32_t>(std::clamp<int64_t>(end - to.first_token, 0, to.n_tokens));
}

bool Placement::take(std::span<const std::byte> wire, size_t first_block, size_t n_blocks, uint64_t expected,
                     const Destination& to, BlockArray pool) const {
  if (direct_) {
    Checksum sum;
    for (size_t i = 0; i < n_blocks; ++i)
      sum.copy(pool[to.blocks[first_block + i]].data(), wire.subspan(i * pool.block_bytes, pool.block_bytes));
    return sum.value() == expected;
  }
  if (checksum(wire) != expected) return false;
  std::vector<int32_t> lie(n_blocks);  // one after the other
  for (size_t i = 0; i < n_blocks; ++i) lie[i] = static_cast<int32_t>(i);
  auto bt = wire_.layout.block_tokens;
  auto chunk_first = first_token_ + static_cast<int32_t>(first_block) * bt;
  auto first = std::max(chunk_first, to.first_token);
  auto end = std::min<int64_t>(chunk_first + static_cast<int64_t>(n_blocks) * bt, int64_t{to.first_token} + to.n_tokens);
  auto placed = kv::reshard({wire_, lie, chunk_first}, {ours_, to.blocks, to.first_token}, part_, first,
                            static_cast<int32_t>(std::max<int64_t>(0, end - first)),
                            [&](const kv::Copy& c) { kv::run_copy(c, wire.data(), pool.bytes.data()); });
  BATON_CHECK(placed.has_value());  // the constructor's requirements
  return true;
}

}  // namespace baton::transfer
