#include "route/prefix_table.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <new>

#include "base/prng.h"

namespace baton::route {

PrefixTable::Table::Table(size_t n) : far(new std::atomic<uint8_t>[n / kLine]()), size(n) {
  constexpr size_t kHuge = 2u << 20;
  const size_t bytes_wanted = n * sizeof(Entry);
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
    if (i >= kLine + far.load(std::memory_order_relaxed)) far.store(static_cast<uint8_t>(i + 1 - kLine), std::memory_order_release);
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

std::vector<uint32_t> PrefixTable::holders_of(const Entry& entry) const {
  const uint64_t word = entry.holders.load(std::memory_order_relaxed);
  const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 32);
  std::vector<uint32_t> out;
  if ((low & 2047) == kWide) return wides_.at(high).holders;
  if ((low & 2047) == kList) {
    for (const auto& h : lists_.at(high).holders) out.push_back(h.load(std::memory_order_relaxed));
  } else {
    out = {low, high};
  }
  std::erase(out, 0u);
  return out;
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
    for (size_t i = 0; i < kListMax; ++i) lists_.at(node).holders[i].store(i < holders.size() ? holders[i] : 0, std::memory_order_release);
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

int64_t PrefixTable::stamp_of(uint64_t hash, int slot) const {
  hash = key(hash);
  const Entry* entry = find(*shard(hash).table.load(std::memory_order_relaxed), hash);
  if (entry == nullptr) return -1;
  const uint64_t word = entry->holders.load(std::memory_order_relaxed);
  const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 32);
  const auto is = [slot](uint32_t h) { return slot_of(h) == slot; };
  if ((low & 2047) == kWide) {
    for (const uint32_t h : wides_.at(high).holders) {
      if (is(h)) return h >> 11;
    }
    return -1;
  }
  if ((low & 2047) == kList) {
    for (const auto& a : lists_.at(high).holders) {
      if (const uint32_t h = a.load(std::memory_order_relaxed); is(h)) return h >> 11;
    }
    return -1;
  }
  return is(low) ? static_cast<int64_t>(low >> 11) : is(high) ? static_cast<int64_t>(high >> 11) : -1;
}

bool PrefixTable::set_in(Entry& entry, int slot, uint32_t stamp) {
  const uint64_t word = entry.holders.load(std::memory_order_relaxed);
  const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 32);
  const uint32_t mine = holder(slot, stamp);
  const auto is = [slot](uint32_t h) { return slot_of(h) == slot; };
  if ((low & 2047) == kWide) {
    Wide& wide = wides_.at(high);
    const auto at = std::ranges::find_if(wide.holders, is);
    if (at != wide.holders.end()) return *at = mine, false;
    wide.holders.push_back(mine);
    std::atomic<uint64_t>& bits = wide.bits[static_cast<size_t>(slot) / 64];
    bits.store(bits.load(std::memory_order_relaxed) | 1ull << (slot % 64), std::memory_order_release);
    return true;
  }
  if ((low & 2047) == kList) {
    List& list = lists_.at(high);
    std::atomic<uint32_t>* spare = nullptr;
    for (auto& a : list.holders) {
      const uint32_t h = a.load(std::memory_order_relaxed);
      if (is(h)) return a.store(mine, std::memory_order_release), false;
      if (h == 0) spare = &a;
    }
    if (spare != nullptr) return spare->store(mine, std::memory_order_release), true;
  } else if (is(low) || is(high) || low == 0 || high == 0) {
    const bool put_low = is(low) || (low == 0 && !is(high));
    const bool fresh = !is(low) && !is(high);
    const uint64_t next = put_low ? (static_cast<uint64_t>(high) << 32 | mine) : (static_cast<uint64_t>(mine) << 32 | low);
    entry.holders.store(next, std::memory_order_release);
    return fresh;
  }
  std::vector<uint32_t> holders = holders_of(entry);
  if (lists_.full() || wides_.full()) holders.pop_back();  // 16 Mi nodes: never met, and harmless
  holders.push_back(mine);
  put_holders(entry, holders);
  return true;
}

bool PrefixTable::remove(uint64_t hash, int slot) {
  hash = key(hash);
  Shard& in = shard(hash);
  Entry* entry = find(*in.table.load(std::memory_order_relaxed), hash);
  if (entry == nullptr) return false;
  const uint64_t word = entry->holders.load(std::memory_order_relaxed);
  const bool wide = (word & 2047) == kWide;
  if (word >> 32 == 0 && !wide && (word & 2047) != kList) {  // the common case: one holder
    if (slot_of(static_cast<uint32_t>(word)) != slot) return false;
    entry->hash.store(0, std::memory_order_release);
    --in.used;
    used_.fetch_sub(1, std::memory_order_relaxed);
    return true;
  }
  std::vector<uint32_t> holders = holders_of(*entry);
  if (std::erase_if(holders, [&](uint32_t h) { return slot_of(h) == slot; }) == 0) return false;
  if (wide && holders.size() > kListMax / 2) {
    Wide& node = wides_.at(static_cast<uint32_t>(word >> 32));
    node.holders = std::move(holders);
    std::atomic<uint64_t>& bits = node.bits[static_cast<size_t>(slot) / 64];
    bits.store(bits.load(std::memory_order_relaxed) & ~(1ull << (slot % 64)), std::memory_order_release);
    return true;
  }
  if (holders.empty()) {
    entry->hash.store(0, std::memory_order_release);
    --in.used;
    used_.fetch_sub(1, std::memory_order_relaxed);
  }
  put_holders(*entry, holders);
  return true;
}

PrefixTable::Entry& PrefixTable::entry_for(uint64_t hash, std::vector<uint32_t>& evicted) {
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
    evicted = holders_of(*entry);
    entry->hash.store(0, std::memory_order_release);
    put_holders(*entry, {});
  } else {
    ++in.used;
    used_.fetch_add(1, std::memory_order_relaxed);
    entry->holders.store(0, std::memory_order_relaxed);
  }
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
  for (size_t i = 0; i < shard_count_; ++i) n += shards_[i].table.load()->size * (sizeof(Entry) * kLine + 1) / kLine;
  for (const auto& table : retired_) n += table->size * sizeof(Entry);
  return n;
}

}  // namespace baton::route
