#include "route/prefix_index.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/prng.h"

namespace baton::route {
namespace {

// 64x64 -> 128 bit multiply folded to 64: one instruction a word, and every input bit reaches every output bit after mix64.
uint64_t fold(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t hash_bytes(uint64_t seed, const char* data, size_t n) {
  constexpr uint64_t kOdd = 0xa0761d6478bd642fULL;
  uint64_t h = seed ^ (n * kOdd);
  for (; n >= 8; data += 8, n -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    h = mix64(fold(h ^ word, kOdd) + word);
  }
  if (n > 0) {
    uint64_t word = 0;
    std::memcpy(&word, data, n);
    h = mix64(fold(h ^ word, kOdd) + word);
  }
  return mix64(h);
}

}  // namespace

ChainHasher::ChainHasher(uint64_t seed, std::string_view model, size_t block_bytes)
    : parent_(hash_bytes(seed, model.data(), model.size())), block_bytes_(block_bytes) {}

void ChainHasher::close_block(const char* block) {
  parent_ = hash_bytes(parent_, block, block_bytes_);
  chain_.push_back(parent_);
}

void ChainHasher::feed(std::string_view bytes) {
  bytes_ += bytes.size();
  if (chain_.size() >= kPrefixBlocksMax) return;
  if (!partial_.empty()) {
    const size_t n = std::min(bytes.size(), block_bytes_ - partial_.size());
    partial_ += bytes.substr(0, n);
    bytes.remove_prefix(n);
    if (partial_.size() < block_bytes_) return;
    close_block(partial_.data());
    partial_.clear();
  }
  while (bytes.size() >= block_bytes_ && chain_.size() < kPrefixBlocksMax) {
    close_block(bytes.data());
    bytes.remove_prefix(block_bytes_);
  }
  if (chain_.size() < kPrefixBlocksMax) partial_ = bytes;
}

PrefixIndex::PrefixIndex(size_t blocks_max)
    : buckets_(std::bit_ceil(std::max<size_t>(blocks_max, 16)), kNone), blocks_max_(std::max<size_t>(blocks_max, 1)) {}

uint32_t PrefixIndex::find(uint64_t hash) const {
  uint32_t i = buckets_[bucket(hash)];
  while (i != kNone && entries_[i].hash != hash) i = entries_[i].chain;
  return i;
}

PrefixMatch PrefixIndex::match(std::span<const uint64_t> chain) const {
  PrefixMatch matched{};
  Slots alive;
  uint16_t depth = 0;
  auto leave = [&](Slots gone) {  // these matched `depth` blocks and no more
    if (gone.none()) return;
    for (size_t slot = 0; slot < gone.size(); ++slot) {
      if (gone[slot]) matched[slot] = depth;
    }
  };
  for (uint64_t hash : chain) {
    const uint32_t i = find(hash);
    if (i == kNone || depth == UINT16_MAX) break;
    const Slots have = depth == 0 ? entries_[i].slots : alive & entries_[i].slots;
    leave(alive & ~have);
    alive = have;
    if (alive.none()) break;
    ++depth;
  }
  leave(alive);
  return matched;
}

void PrefixIndex::record(std::span<const uint64_t> chain, int slot) {
  if (slot < 0 || slot >= kEndpointsMax) return;
  // Backwards, so that the front of a prompt is newer than its tail: a chain is evicted from its end, and what is left still
  // matches.
  for (size_t k = chain.size(); k-- > 0;) {
    uint32_t i = find(chain[k]);
    if (i == kNone) {
      i = take_entry();
      entries_[i].hash = chain[k];
      entries_[i].slots.reset();
      uint32_t& head = buckets_[bucket(chain[k])];
      entries_[i].chain = head;
      head = i;
    } else {
      unlink_recency(i);
    }
    entries_[i].slots.set(static_cast<size_t>(slot));
    make_newest(i);
  }
}

void PrefixIndex::forget(int slot) {
  if (slot < 0 || slot >= kEndpointsMax) return;
  for (Entry& entry : entries_) entry.slots.reset(static_cast<size_t>(slot));
}

uint32_t PrefixIndex::take_entry() {
  if (used_ < blocks_max_) {
    entries_.emplace_back();
    return static_cast<uint32_t>(used_++);
  }
  const uint32_t i = oldest_;
  unlink_recency(i);
  unlink_bucket(i);
  return i;
}

void PrefixIndex::unlink_bucket(uint32_t i) {
  uint32_t* link = &buckets_[bucket(entries_[i].hash)];
  while (*link != i) link = &entries_[*link].chain;
  *link = entries_[i].chain;
}

void PrefixIndex::unlink_recency(uint32_t i) {
  Entry& entry = entries_[i];
  (entry.newer == kNone ? newest_ : entries_[entry.newer].older) = entry.older;
  (entry.older == kNone ? oldest_ : entries_[entry.older].newer) = entry.newer;
}

void PrefixIndex::make_newest(uint32_t i) {
  entries_[i].newer = kNone;
  entries_[i].older = newest_;
  if (newest_ != kNone) entries_[newest_].newer = i;
  newest_ = i;
  if (oldest_ == kNone) oldest_ = i;
}

}  // namespace baton::route
