#pragma once
// PrefixTable: hash -> set of endpoint slots, each with the number of the node it keeps the block under: one writer at a time,
// any number of readers beside it. Everything a reader touches is an atomic word; it checks the hash again after it read the
// holders, so it sees some entry that was there, or none. A stale look costs a wrong guess, no more. Set-associative: a hash lies
// in one of the 128 entries from its line on, so removing needs no tombstones; far[] says how far behind it entries of a line
// lie. Shards grow one at a time; old tables live until no reader is inside. Internal to prefix_index.cc.
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "route/limits.h"

namespace baton::route {

inline constexpr size_t kNodesMax = 1u << 21;  // of an endpoint; node 0 is nobody's
inline constexpr size_t kSlotWords = kEndpointsMax / 64;
using SlotBits = std::array<uint64_t, kSlotWords>;

class PrefixTable {
 public:
  explicit PrefixTable(size_t blocks_max);
  ~PrefixTable();

  // Readers hold the gate while they look.
  std::shared_lock<std::shared_mutex> enter() const { return std::shared_lock(gate_); }
  void prefetch(uint64_t hash) const;
  // have = alive & holders of hash (holders alone, if first); words beyond words() are not written.
  enum class Seen : uint8_t { kNobody, kSame, kFewer };
  Seen intersect(uint64_t hash, bool first, const SlotBits& alive, SlotBits& have) const;
  size_t words() const { return words_.load(std::memory_order_acquire); }  // of SlotBits that any slot used so far lies in

  // Writer only. node_of: 0 = the slot does not hold it.
  uint32_t node_of(uint64_t hash, int slot) const;
  // Adds the slot with its node and returns 0, or the node it has there already. lost(slot, node) is called for each
  // holder that had to go for it.
  template <class F>
  uint32_t add(uint64_t hash, int slot, uint32_t node, F lost);
  uint32_t remove(uint64_t hash, int slot);  // its node; 0: it did not hold it
  size_t size() const { return used_.load(std::memory_order_relaxed); }
  size_t bytes() const;

 private:
  static constexpr uint32_t kList = 2046, kWide = 2047;  // in the low holder's slot field; the high half is the node
  static constexpr size_t kLine = 4, kWindow = 128, kListMax = 8, kShardEntriesMin = 64;
  struct Entry {
    std::atomic<uint64_t> hash{0}, holders{0};
  };
  struct Table {
    explicit Table(size_t n);
    struct Free {
      void operator()(Entry* p) const { std::free(p); }
    };
    std::unique_ptr<Entry[], Free> entries;       // in huge pages where it fills them: a look-up is one random access a block
    std::unique_ptr<std::atomic<uint8_t>[]> far;  // by line: entries at home there lie in this many entries behind its own
    size_t size, bytes = 0;
  };
  struct Shard {
    std::atomic<Table*> table{nullptr};
    size_t used = 0;
  };
  struct List {
    std::array<std::atomic<uint32_t>, kListMax> holders{};
  };
  struct Wide {
    std::array<std::atomic<uint64_t>, kSlotWords> bits{};
    std::vector<uint32_t> holders;  // the writer's
  };
  template <class T>
  class Pool {  // nodes never move and never go; the free ones are used again
   public:
    static constexpr size_t kChunk = 4096, kChunks = 4096;
    Pool() : chunks_(new std::atomic<T*>[kChunks]()) {}
    ~Pool() {
      for (size_t i = 0; i < kChunks; ++i) delete[] chunks_[i].load();
    }
    T& at(uint32_t i) const { return chunks_[i / kChunk].load(std::memory_order_acquire)[i % kChunk]; }
    bool full() const { return free_.empty() && used_ == kChunk * kChunks; }
    uint32_t take() {
      if (!free_.empty()) {
        const uint32_t i = free_.back();
        free_.pop_back();
        return i;
      }
      if (used_ % kChunk == 0) chunks_[used_ / kChunk].store(new T[kChunk], std::memory_order_release);
      return static_cast<uint32_t>(used_++);
    }
    void give(uint32_t i) { free_.push_back(i); }
    size_t taken() const { return used_; }

   private:
    std::unique_ptr<std::atomic<T*>[]> chunks_;
    std::vector<uint32_t> free_;
    size_t used_ = 0;
  };

  static uint32_t holder(int slot, uint32_t node) { return node << 11 | static_cast<uint32_t>(slot + 1); }
  static int slot_of(uint32_t h) { return static_cast<int>(h & 2047) - 1; }
  static uint32_t node_of(uint32_t h) { return h >> 11; }
  static uint64_t key(uint64_t hash) { return hash == 0 ? 1 : hash; }
  Shard& shard(uint64_t hash) const { return shards_[hash >> 56 & (shard_count_ - 1)]; }
  static size_t home(const Table& table, uint64_t hash) { return (hash & (table.size - 1)) & ~(kLine - 1); }
  Entry* find(const Table& table, uint64_t hash) const;
  Entry* vacant(Table& table, uint64_t hash) const;
  Entry& entry_for(uint64_t hash);
  void drop(Shard& shard, Entry& entry, uint64_t hash);
  static void draw_in(Table& table, const Entry& entry, uint64_t hash);
  bool grow(Shard& shard);
  void free_retired();
  void holders_of(const Entry& entry, std::vector<uint32_t>& out) const;
  void put_holders(Entry& entry, const std::vector<uint32_t>& holders);
  void release_node(uint64_t word);
  uint32_t add_to(Entry& entry, uint32_t mine);
  uint32_t add_to_wide(Wide& wide, uint32_t mine);

  size_t shard_count_, shard_entries_max_;
  std::unique_ptr<Shard[]> shards_;
  Pool<List> lists_;
  Pool<Wide> wides_;
  std::atomic<size_t> used_{0}, words_{1};
  mutable std::shared_mutex gate_;
  std::vector<std::unique_ptr<Table>> retired_;
  std::vector<uint32_t> lost_, scratch_;
  uint64_t victim_ = 1;
};

template <class F>
uint32_t PrefixTable::add(uint64_t hash, int slot, uint32_t node, F lost) {
  lost_.clear();
  if (const size_t w = static_cast<size_t>(slot) / 64 + 1; w > words()) words_.store(w, std::memory_order_release);
  const uint32_t before = add_to(entry_for(key(hash)), holder(slot, node));
  for (const uint32_t h : lost_) lost(slot_of(h), node_of(h));
  return before;
}

}  // namespace baton::route
