#include "route/prefix_table.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <new>

#include "base/prng.h"

namespace baton::route {
namespace {

// Where the holder of the same slot lies; there is one. Eight at a time, since up to a thousand endpoints hold a block.
size_t place_of(const std::vector<uint32_t>& holders, uint32_t like) {
  size_t i = 0;
  for (; i + 8 <= holders.size(); i += 8) {
    uint32_t found = 0;
    for (size_t k = 0; k < 8; ++k) found |= ((holders[i + k] ^ like) & 2047) == 0 ? 1u : 0u;
    if (found != 0) break;
  }
  while (((holders[i] ^ like) & 2047) != 0) ++i;
  return i;
}

}  // namespace

PrefixTable::Table::Table(size_t n) : far(new std::atomic<uint8_t>[n / kLine]()), size(n) {
  constexpr size_t kHuge = 2u << 20;
  size_t bytes_wanted = n * sizeof(Entry);
  if (bytes_wanted == kHuge / 2) bytes_wanted = kHuge;  // half of it idle, but a walk of page tables less in each look-up
  bytes = bytes_wanted + n / kLine;
  void* memory = std::aligned_alloc(bytes_wanted >= kHuge ? kHuge : 64, bytes_wanted);  // a multiple: both are powers of two
  if (memory == nullptr) throw std::bad_alloc();
  if (bytes_wanted >= kHuge) ::madvise(memory, bytes_wanted, MADV_HUGEPAGE);
  entries.reset(new (memory) Entry[n]());
}

PrefixTable::PrefixTable(size_t blocks_max) {
  shard_count_ = std::clamp<size_t>(std::bit_floor(blocks_max / 4096 + 1), 1, 64);
  // Half again as many entries as blocks, so that windows rarely fill.
  shard_entries_max_ = std::bit_ceil(std::max(blocks_max * 3 / 2 / shard_count_, kShardEntriesMin));
  shards_ = std::make_unique<Shard[]>(shard_count_);
  for (size_t i = 0; i < shard_count_; ++i) shards_[i].table.store(new Table(kShardEntriesMin));
}

PrefixTable::~PrefixTable() {
  for (size_t i = 0; i < shard_count_; ++i) delete shards_[i].table.load();
}

void PrefixTable::prefetch(uint64_t hash) const {
  hash = key(hash);
  const Table& table = *shard(hash).table.load(std::memory_order_acquire);
  __builtin_prefetch(&table.entries[home(table, hash)]);
}

PrefixTable::Entry* PrefixTable::find(const Table& table, uint64_t hash) const {
  const size_t from = home(table, hash);
  const auto look = [&](size_t begin, size_t end) -> Entry* {
    for (size_t i = begin; i < end; ++i) {
      Entry& entry = table.entries[(from + i) & (table.size - 1)];
      if (entry.hash.load(std::memory_order_acquire) == hash) return &entry;
    }
    return nullptr;
  };
  if (Entry* entry = look(0, kLine)) return entry;
  return look(kLine, kLine + table.far[from / kLine].load(std::memory_order_acquire));
}

// A free entry of the window, announced in far[].
PrefixTable::Entry* PrefixTable::vacant(Table& table, uint64_t hash) const {
  const size_t from = home(table, hash);
  for (size_t i = 0; i < kWindow; ++i) {
    Entry& entry = table.entries[(from + i) & (table.size - 1)];
    if (entry.hash.load(std::memory_order_relaxed) != 0) continue;
    std::atomic<uint8_t>& far = table.far[from / kLine];
    if (i >= kLine + far.load(std::memory_order_relaxed))
      far.store(static_cast<uint8_t>(i + 1 - kLine), std::memory_order_release);
    return &entry;
  }
  return nullptr;
}

PrefixTable::Seen PrefixTable::intersect(uint64_t hash, bool first, const SlotBits& alive, SlotBits& have) const {
  hash = key(hash);
  const Table& table = *shard(hash).table.load(std::memory_order_acquire);
  const Entry* entry = find(table, hash);
  if (entry == nullptr) return Seen::kNobody;
  const size_t n = words();
  uint64_t word = entry->holders.load(std::memory_order_acquire);
  for (int attempt = 0; attempt < 4; ++attempt) {
    std::fill_n(have.begin(), n, 0);
    const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 32);
    const auto add = [&](uint32_t h) {
      const int slot = slot_of(h);
      if (slot >= 0 && static_cast<size_t>(slot) < n * 64) have[static_cast<size_t>(slot) / 64] |= 1ull << (slot % 64);
    };
    if ((low & 2047) == kWide) {
      const Wide& wide = wides_.at(high);
      for (size_t i = 0; i < n; ++i) have[i] = wide.bits[i].load(std::memory_order_acquire);
    } else if ((low & 2047) == kList) {
      for (const auto& h : lists_.at(high).holders) add(h.load(std::memory_order_acquire));
    } else {
      add(low);
      add(high);
    }
    const uint64_t again = entry->holders.load(std::memory_order_acquire);
    if (entry->hash.load(std::memory_order_acquire) != hash) return Seen::kNobody;  // it went while we looked
    if (again == word) break;
    word = again;
  }
  uint64_t any = 0, gone = 0;
  for (size_t i = 0; i < n; ++i) {
    if (!first) {
      gone |= alive[i] & ~have[i];
      have[i] &= alive[i];
    }
    any |= have[i];
  }
  return any == 0 ? Seen::kNobody : gone != 0 ? Seen::kFewer : Seen::kSame;
}

void PrefixTable::holders_of(const Entry& entry, std::vector<uint32_t>& out) const {
  const uint64_t word = entry.holders.load(std::memory_order_relaxed);
  const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 32);
  const auto put = [&](uint32_t h) {
    if (h != 0) out.push_back(h);
  };
  if ((low & 2047) == kWide) {
    for (const uint32_t h : wides_.at(high).holders) put(h);
  } else if ((low & 2047) == kList) {
    for (const auto& h : lists_.at(high).holders) put(h.load(std::memory_order_relaxed));
  } else {
    put(low);
    put(high);
  }
}

void PrefixTable::release_node(uint64_t word) {
  const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 32);
  if ((low & 2047) == kList) lists_.give(high);
  if ((low & 2047) != kWide) return;
  wides_.at(high).holders = {};
  wides_.give(high);
}

void PrefixTable::put_holders(Entry& entry, const std::vector<uint32_t>& holders) {
  const uint64_t before = entry.holders.load(std::memory_order_relaxed);
  uint64_t word = 0;
  if (holders.size() <= 2) {
    word = holders.empty() ? 0 : holders[0] | static_cast<uint64_t>(holders.size() > 1 ? holders[1] : 0) << 32;
  } else if (holders.size() <= kListMax) {
    const uint32_t node = lists_.take();
    for (size_t i = 0; i < kListMax; ++i)
      lists_.at(node).holders[i].store(i < holders.size() ? holders[i] : 0, std::memory_order_release);
    word = kList | static_cast<uint64_t>(node) << 32;
  } else {
    const uint32_t node = wides_.take();
    Wide& wide = wides_.at(node);
    SlotBits bits{};
    for (const uint32_t h : holders) bits[static_cast<size_t>(slot_of(h)) / 64] |= 1ull << (slot_of(h) % 64);
    for (size_t i = 0; i < kSlotWords; ++i) wide.bits[i].store(bits[i], std::memory_order_release);
    wide.holders = holders;
    word = kWide | static_cast<uint64_t>(node) << 32;
  }
  entry.holders.store(word, std::memory_order_release);
  release_node(before);
}

uint32_t PrefixTable::node_of(uint64_t hash, int slot) const {
  hash = key(hash);
  const Entry* entry = find(*shard(hash).table.load(std::memory_order_relaxed), hash);
  if (entry == nullptr) return 0;
  const uint64_t word = entry->holders.load(std::memory_order_relaxed);
  const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 32);
  if ((low & 2047) == kWide) {
    const Wide& wide = wides_.at(high);
    const uint64_t bits = wide.bits[static_cast<size_t>(slot) / 64].load(std::memory_order_relaxed);
    return (bits >> (slot % 64) & 1) != 0 ? node_of(wide.holders[place_of(wide.holders, holder(slot, 0))]) : 0;
  }
  if ((low & 2047) == kList) {
    for (const auto& a : lists_.at(high).holders) {
      if (const uint32_t h = a.load(std::memory_order_relaxed); slot_of(h) == slot) return node_of(h);
    }
    return 0;
  }
  return slot_of(low) == slot ? node_of(low) : slot_of(high) == slot ? node_of(high) : 0;
}

uint32_t PrefixTable::add_to_wide(Wide& wide, uint32_t mine) {
  const auto slot = static_cast<size_t>(slot_of(mine));
  std::atomic<uint64_t>& bits = wide.bits[slot / 64];
  const uint64_t before = bits.load(std::memory_order_relaxed), bit = 1ull << (slot % 64);
  if ((before & bit) != 0) return node_of(wide.holders[place_of(wide.holders, mine)]);
  wide.holders.push_back(mine);
  bits.store(before | bit, std::memory_order_release);
  return 0;
}

uint32_t PrefixTable::add_to(Entry& entry, uint32_t mine) {
  const uint64_t word = entry.holders.load(std::memory_order_relaxed);
  const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 32);
  const auto is = [mine](uint32_t h) { return ((h ^ mine) & 2047) == 0; };
  if ((low & 2047) == kWide) return add_to_wide(wides_.at(high), mine);
  if ((low & 2047) == kList) {
    std::atomic<uint32_t>* spare = nullptr;
    for (auto& a : lists_.at(high).holders) {
      const uint32_t h = a.load(std::memory_order_relaxed);
      if (is(h)) return node_of(h);
      if (h == 0) spare = &a;
    }
    if (spare != nullptr) return spare->store(mine, std::memory_order_release), 0;
  } else {
    if (is(low)) return node_of(low);
    if (is(high)) return node_of(high);
    if (low == 0 || high == 0) {
      const uint64_t next = low == 0 ? (static_cast<uint64_t>(high) << 32 | mine) : (static_cast<uint64_t>(mine) << 32 | low);
      entry.holders.store(next, std::memory_order_release);
      return 0;
    }
  }
  scratch_.clear();
  holders_of(entry, scratch_);
  if (lists_.full() || wides_.full()) {  // 16 Mi nodes: never met, and harmless
    lost_.push_back(scratch_.back());
    scratch_.pop_back();
  }
  scratch_.push_back(mine);
  put_holders(entry, scratch_);
  return 0;
}

// far[] shrinks again when the entry farthest from its line goes, so that looking for what is not there stays short.
void PrefixTable::draw_in(Table& table, const Entry& entry, uint64_t hash) {
  const size_t mask = table.size - 1, from = home(table, hash);
  std::atomic<uint8_t>& far = table.far[from / kLine];
  size_t reach = kLine + far.load(std::memory_order_relaxed);  // one past the farthest
  if (reach == kLine || &table.entries[(from + reach - 1) & mask] != &entry) return;
  for (; reach > kLine; --reach) {
    const uint64_t other = table.entries[(from + reach - 1) & mask].hash.load(std::memory_order_relaxed);
    if (other != 0 && home(table, other) == from) break;
  }
  far.store(static_cast<uint8_t>(reach - kLine), std::memory_order_release);
}

void PrefixTable::drop(Shard& in, Entry& entry, uint64_t hash) {
  entry.hash.store(0, std::memory_order_release);
  draw_in(*in.table.load(std::memory_order_relaxed), entry, hash);
  --in.used;
  used_.store(size() - 1, std::memory_order_relaxed);
}

uint32_t PrefixTable::remove(uint64_t hash, int slot) {
  hash = key(hash);
  Shard& in = shard(hash);
  Entry* entry = find(*in.table.load(std::memory_order_relaxed), hash);
  if (entry == nullptr) return 0;
  const uint64_t word = entry->holders.load(std::memory_order_relaxed);
  const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 32);
  const auto is = [slot](uint32_t h) { return slot_of(h) == slot; };
  scratch_.clear();
  uint32_t node = 0;
  if ((low & 2047) == kWide) {
    Wide& wide = wides_.at(high);
    std::atomic<uint64_t>& bits = wide.bits[static_cast<size_t>(slot) / 64];
    const uint64_t before = bits.load(std::memory_order_relaxed), bit = 1ull << (slot % 64);
    if ((before & bit) == 0) return 0;
    const size_t at = place_of(wide.holders, holder(slot, 0));
    node = node_of(wide.holders[at]);
    wide.holders[at] = wide.holders.back();
    wide.holders.pop_back();
    bits.store(before & ~bit, std::memory_order_release);
    if (wide.holders.size() > kListMax / 2) return node;
    scratch_ = wide.holders;
  } else if ((low & 2047) == kList) {
    for (auto& a : lists_.at(high).holders) {
      const uint32_t h = a.load(std::memory_order_relaxed);
      if (is(h)) {
        node = node_of(h);
        a.store(0, std::memory_order_release);
      } else if (h != 0) {
        scratch_.push_back(h);
      }
    }
    if (node == 0 || scratch_.size() > 2) return node;
  } else {
    if (!is(low) && !is(high)) return 0;
    node = node_of(is(low) ? low : high);
    if (const uint32_t other = is(low) ? high : low; other != 0) scratch_.push_back(other);
    if (scratch_.empty()) return drop(in, *entry, hash), node;  // the common case: it was the only one
  }
  put_holders(*entry, scratch_);
  return node;
}

PrefixTable::Entry& PrefixTable::entry_for(uint64_t hash) {
  Shard& in = shard(hash);
  Table* table = in.table.load(std::memory_order_relaxed);
  if (Entry* entry = find(*table, hash)) return *entry;
  Entry* entry = vacant(*table, hash);
  while ((entry == nullptr || in.used * 10 > table->size * 7) && grow(in)) {
    table = in.table.load(std::memory_order_relaxed);
    entry = vacant(*table, hash);
  }
  if (entry == nullptr) {  // as large as it may be, and this window full
    victim_ = mix64(victim_ + hash);
    entry = &table->entries[(home(*table, hash) + victim_ % kLine) & (table->size - 1)];
    holders_of(*entry, lost_);
    const uint64_t before = entry->hash.load(std::memory_order_relaxed);
    drop(in, *entry, before);
    put_holders(*entry, {});
  }
  ++in.used;
  used_.store(size() + 1, std::memory_order_relaxed);
  entry->holders.store(0, std::memory_order_relaxed);
  entry->hash.store(hash, std::memory_order_release);
  return *entry;
}

bool PrefixTable::grow(Shard& in) {
  Table* old = in.table.load(std::memory_order_relaxed);
  for (size_t n = old->size * 2; n <= shard_entries_max_; n *= 2) {
    auto next = std::make_unique<Table>(n);
    bool fits = true;
    for (size_t i = 0; fits && i < old->size; ++i) {
      const uint64_t hash = old->entries[i].hash.load(std::memory_order_relaxed);
      if (hash == 0) continue;
      Entry* entry = vacant(*next, hash);
      if ((fits = entry != nullptr)) {
        entry->holders.store(old->entries[i].holders.load(std::memory_order_relaxed), std::memory_order_relaxed);
        entry->hash.store(hash, std::memory_order_relaxed);
      }
    }
    if (!fits) continue;
    in.table.store(next.release(), std::memory_order_release);
    retired_.emplace_back(old);
    free_retired();
    return true;
  }
  return false;
}

// Readers pass the gate in microseconds; if one is inside now, a later growth frees these tables too.
void PrefixTable::free_retired() {
  if (retired_.size() < 16) return;
  if (std::unique_lock alone(gate_, std::try_to_lock); alone) retired_.clear();
}

size_t PrefixTable::bytes() const {
  size_t n = lists_.taken() * sizeof(List) + wides_.taken() * (sizeof(Wide) + 64);
  for (size_t i = 0; i < shard_count_; ++i) n += shards_[i].table.load()->bytes;
  for (const auto& table : retired_) n += table->bytes;
  return n;
}

}  // namespace baton::route
