#pragma once
// KvEventIndex: which endpoint holds which prompt blocks, as the engines themselves say. Events name blocks by the engine's own
// hashes; they are mapped to keys made from the token ids (kv_event_keys.h), which a prompt can be asked by. Duplicate stores are
// counted, per tier. Engines with a block size that is a multiple of ours give several keys a block; any other size has a grid of
// its own, and prompts are looked up in each grid. A block whose parent is not known waits for it.
// Bounded: blocks over all endpoints, waiting events per endpoint; over it the new one is dropped and counted.
// Threads: any; one lock inside, shared by look-ups. Pure otherwise: the clock is the caller's.
// Source: facts sheet "epp" 4.7 precise-prefix-cache-producer, 9 item 12.
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "route/kv_event_keys.h"
#include "route/kv_events.h"
#include "route/plan.h"
#include "route/prefix_index.h"

namespace baton::route {

struct KvPrompt {  // a prompt's keys, one chain a grid
  struct Grid {
    int block_tokens = 0;
    std::vector<uint64_t> keys;
  };
  std::vector<Grid> grids;
};

struct KvMatch {
  PrefixMatch cached;    // leading blocks the slot holds, in blocks of KvEventsParams::block_tokens
  PrefixMatch weighted;  // the same with each block counted by its best tier's weight: what the prefix scorer takes
};

struct KvIndexCounts {
  uint64_t batches = 0, stored = 0, removed = 0, cleared = 0;   // blocks, of what was applied
  uint64_t orphans_adopted = 0, orphans_dropped = 0, blocks_dropped = 0, unknown_removed = 0;
  uint64_t lookups = 0, hits = 0, hit_blocks = 0;               // hit_blocks: of the best endpoint of each look-up
  uint64_t removals_kept = 0;  // of `removed`: the engine had stored the block more than once, and still holds it
  size_t blocks = 0, orphans = 0, speculative = 0;              // now
};

class KvEventIndex {
 public:
  explicit KvEventIndex(const KvEventsParams& params);
  ~KvEventIndex();

  // model: the topic's, or what the endpoint serves.
  void apply(int slot, std::string_view model, const KvEventBatch& batch);
  void forget(int slot);  // it restarted, is gone, or its events were lost

  KvPrompt keys(std::string_view model, std::span<const uint32_t> tokens, const KvExtras& extras = {}) const;
  size_t match(const KvPrompt& prompt, KvMatch& out) const;  // returns the longest, in blocks of ours
  // speculativeIndexing: the endpoint was sent this prompt and will store it; counts as its own until ttl_ms from now.
  void speculate(const KvPrompt& prompt, int slot, int64_t now_ms);
  void expire(int64_t now_ms);
  KvIndexCounts counts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::route
