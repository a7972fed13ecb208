#pragma once
// Approximate prefix cache knowledge: which endpoint was sent which prompt prefix.
// ChainHasher turns prompt bytes into one hash a block, each covering everything before it, so equal hashes mean equal prefixes
// (up to 2^-64). PrefixIndex maps a hash to the set of endpoint slots that got it: one table, a 256-bit set an entry, bounded,
// least recently recorded entry goes first. It is optimistic: it never learns what an engine evicted; a wrong guess costs time,
// not answers. Threads: match() is const and may run beside itself; record() and forget() need the caller's exclusive lock.
#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "route/limits.h"

namespace baton::route {

class ChainHasher {
 public:
  // seed: per process, so that nobody can prepare prompts that collide. block_bytes > 0.
  ChainHasher(uint64_t seed, std::string_view model, size_t block_bytes);
  void feed(std::string_view bytes);                             // any split gives the same chain
  const std::vector<uint64_t>& chain() const { return chain_; }  // full blocks only, at most kPrefixBlocksMax
  size_t bytes() const { return bytes_; }

 private:
  void close_block(const char* block);
  uint64_t parent_;
  size_t block_bytes_, bytes_ = 0;
  std::string partial_;
  std::vector<uint64_t> chain_;
};

// matched[slot]: leading blocks of the chain that the endpoint was sent before.
using PrefixMatch = std::array<uint16_t, kEndpointsMax>;

class PrefixIndex {
 public:
  explicit PrefixIndex(size_t blocks_max = kIndexBlocksMax);
  PrefixMatch match(std::span<const uint64_t> chain) const;
  void record(std::span<const uint64_t> chain, int slot);
  void forget(int slot);  // the endpoint is gone or restarted; walks the whole table
  size_t size() const { return used_; }

 private:
  using Slots = std::bitset<kEndpointsMax>;
  struct Entry {
    uint64_t hash = 0;
    Slots slots;
    uint32_t chain = kNone;                 // next in the same bucket
    uint32_t newer = kNone, older = kNone;  // recency list
  };
  static constexpr uint32_t kNone = UINT32_MAX;
  uint32_t find(uint64_t hash) const;
  uint32_t take_entry();
  void unlink_recency(uint32_t i);
  void make_newest(uint32_t i);
  void unlink_bucket(uint32_t i);
  size_t bucket(uint64_t hash) const { return hash & (buckets_.size() - 1); }

  std::vector<uint32_t> buckets_;
  std::vector<Entry> entries_;  // grows to blocks_max, then entries are reused
  size_t blocks_max_, used_ = 0;
  uint32_t newest_ = kNone, oldest_ = kNone;
};

}  // namespace baton::route
