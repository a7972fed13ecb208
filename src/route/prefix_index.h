#pragma once
// Approximate prefix cache knowledge: which endpoint was sent which prompt prefix.
// ChainHasher turns prompt bytes into one hash a block, each covering everything before it, so equal hashes mean equal prefixes
// (up to 2^-64). PrefixIndex maps a hash to the endpoint slots that got it. It is optimistic: it never learns what an engine
// evicted; a wrong guess costs time, not answers. Bounded twice. Each endpoint holds at most its capacity of blocks, least
// recently recorded out first, exactly; the front of a prompt counts as newer than its tail, so what it holds of a prompt is its
// front. The whole holds at most blocks_max distinct hashes, about; where that is full an arbitrary block goes, and match() may
// still count it before a block that is known. Otherwise match() is exact, also after remove(), which makes it look at every
// block from then on.
//   entry: | hash 64 | holder 32, holder 32 |   holder = node 21 | slot + 1 in 11;   three holders and more lie in a node beside
// Threads: all functions may be called from any; match() takes no lock that a writer holds while it writes. Writers wait for each
// other. Cost: 48 bytes a block with one holder. match() looks at one block in 16; record() asks the table once for each run of
// blocks recorded together before, and twice for a new block where another has to go. Requires: chains begin at the first block.
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
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
  explicit PrefixIndex(size_t blocks_max = kIndexBlocksMax, size_t endpoint_blocks = kEndpointBlocks);
  ~PrefixIndex();
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  PrefixMatch match(std::span<const uint64_t> chain) const;
  size_t match(std::span<const uint64_t> chain, PrefixMatch& out) const;  // returns the longest match
  void record(std::span<const uint64_t> chain, int slot);
  // What an endpoint holds, newest first, at most `max`; and the same put behind all it holds there, as far as there is room: how
  // a replica that joins learns what the others know. Requires: lists are passed on whole and in order; they begin with the
  // newest.
  std::vector<uint64_t> newest(int slot, size_t max) const;
  void append_older(std::span<const uint64_t> list, int slot);
  void remove(std::span<const uint64_t> hashes, int slot);
  void forget(int slot);                       // the endpoint is gone or restarted; walks its own blocks
  void set_capacity(int slot, size_t blocks);  // what its engine holds; at most kEndpointBlocksMax
  size_t size() const;                         // distinct hashes
  size_t blocks(int slot) const;               // that this endpoint holds
  size_t bytes() const;                        // memory taken

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::route
