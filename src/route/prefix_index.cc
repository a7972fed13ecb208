#include "route/prefix_index.h"

#include <algorithm>
#include <bit>
#include <mutex>

#include "route/prefix_table.h"

namespace baton::route {

struct PrefixIndex::Impl {
  // What one endpoint was sent, oldest first: ring[seq & mask]. An entry whose stamp in the table is another was renewed since.
  struct Endpoint {
    std::vector<uint64_t> ring;
    uint64_t head = 0, tail = 0;  // next to write, oldest
    size_t capacity = 0;
    std::atomic<size_t> live{0};
  };
  static uint32_t stamp(uint64_t seq) { return static_cast<uint32_t>(seq) & kStampMask; }

  Impl(size_t blocks_max, size_t endpoint_blocks) : table(std::max<size_t>(blocks_max, 64)) {
    for (Endpoint& e : endpoints) e.capacity = std::clamp<size_t>(endpoint_blocks, 1, kEndpointBlocksMax);
  }

  void drop_oldest(Endpoint& e, int slot) {
    const uint64_t hash = e.ring[e.tail & (e.ring.size() - 1)];
    if (table.stamp_of(hash, slot) == stamp(e.tail) && table.remove(hash, slot)) --e.live;
    ++e.tail;
  }
  void make_room(Endpoint& e, int slot) {
    const size_t ring_max = e.capacity + e.capacity / 2 + 16;  // renewed entries leave their old place in the ring
    while (e.tail < e.head && (e.live > e.capacity || e.head - e.tail >= ring_max)) drop_oldest(e, slot);
    if (e.head - e.tail < e.ring.size()) return;
    std::vector<uint64_t> larger(std::max<size_t>(e.ring.size() * 2, 64));
    for (uint64_t seq = e.tail; seq < e.head; ++seq) larger[seq & (larger.size() - 1)] = e.ring[seq & (e.ring.size() - 1)];
    e.ring = std::move(larger);
  }
  void record(Endpoint& e, int slot, uint64_t hash) {
    const int64_t before = table.stamp_of(hash, slot);
    if (before >= 0 && stamp(e.head - static_cast<uint64_t>(before)) < e.capacity / 4) return;  // recent enough
    make_room(e, slot);
    const bool fresh = table.set(hash, slot, stamp(e.head), [this](int other) { --endpoints[static_cast<size_t>(other)].live; });
    e.ring[e.head++ & (e.ring.size() - 1)] = hash;
    if (!fresh) return;
    ++e.live;
    make_room(e, slot);
  }

  std::mutex write;
  PrefixTable table;
  std::array<Endpoint, kEndpointsMax> endpoints;
};

namespace {
bool is_slot(int slot) { return slot >= 0 && slot < kEndpointsMax; }
}  // namespace

PrefixIndex::PrefixIndex(size_t blocks_max, size_t endpoint_blocks) : impl_(std::make_unique<Impl>(blocks_max, endpoint_blocks)) {}
PrefixIndex::~PrefixIndex() = default;

PrefixMatch PrefixIndex::match(std::span<const uint64_t> chain) const {
  PrefixMatch out;
  match(chain, out);
  return out;
}

size_t PrefixIndex::match(std::span<const uint64_t> chain, PrefixMatch& out) const {
  constexpr size_t kAhead = 16;
  out.fill(0);
  chain = chain.first(std::min<size_t>(chain.size(), UINT16_MAX));
  SlotBits alive{}, have{};
  uint16_t depth = 0;
  const PrefixTable& table = impl_->table;
  const auto gate = table.enter();
  const size_t words = table.words();
  const auto leave = [&](const SlotBits& staying) {  // the others matched `depth` blocks and no more
    for (size_t w = 0; w < words; ++w) {
      for (uint64_t gone = alive[w] & ~staying[w]; gone != 0; gone &= gone - 1) {
        out[w * 64 + static_cast<size_t>(std::countr_zero(gone))] = depth;
      }
    }
  };
  for (size_t k = 0; k < std::min(kAhead, chain.size()); ++k) table.prefetch(chain[k]);
  for (size_t k = 0; k < chain.size(); ++k, ++depth) {
    if (k + kAhead < chain.size()) table.prefetch(chain[k + kAhead]);
    const PrefixTable::Seen seen = table.intersect(chain[k], k == 0, alive, have);
    if (seen == PrefixTable::Seen::kNobody) break;
    if (seen == PrefixTable::Seen::kSame && k > 0) continue;
    if (k > 0) leave(have);
    alive = have;
  }
  leave({});
  return depth;
}

void PrefixIndex::record(std::span<const uint64_t> chain, int slot) {
  if (!is_slot(slot)) return;
  constexpr size_t kAhead = 8;
  const std::lock_guard lock(impl_->write);
  // Backwards, so that the front of a prompt is newer than its tail: a chain is evicted from its end, and what is left still
  // matches.
  for (size_t k = chain.size(); k-- > 0;) {
    if (k >= kAhead) impl_->table.prefetch(chain[k - kAhead]);
    impl_->record(impl_->endpoints[static_cast<size_t>(slot)], slot, chain[k]);
  }
}

void PrefixIndex::remove(std::span<const uint64_t> hashes, int slot) {
  if (!is_slot(slot)) return;
  const std::lock_guard lock(impl_->write);
  for (const uint64_t hash : hashes) {
    if (impl_->table.remove(hash, slot)) --impl_->endpoints[static_cast<size_t>(slot)].live;
  }
}

void PrefixIndex::forget(int slot) {
  if (!is_slot(slot)) return;
  const std::lock_guard lock(impl_->write);
  Impl::Endpoint& e = impl_->endpoints[static_cast<size_t>(slot)];
  for (; e.tail < e.head; ++e.tail) impl_->table.remove(e.ring[e.tail & (e.ring.size() - 1)], slot);
  e.live = 0;
  e.ring = {};
}

void PrefixIndex::set_capacity(int slot, size_t blocks) {
  if (!is_slot(slot) || blocks == 0) return;
  const std::lock_guard lock(impl_->write);
  Impl::Endpoint& e = impl_->endpoints[static_cast<size_t>(slot)];
  e.capacity = std::min(blocks, kEndpointBlocksMax);
  if (e.tail < e.head) impl_->make_room(e, slot);
}

size_t PrefixIndex::size() const { return impl_->table.size(); }
size_t PrefixIndex::blocks(int slot) const { return is_slot(slot) ? impl_->endpoints[static_cast<size_t>(slot)].live.load() : 0; }

size_t PrefixIndex::bytes() const {
  const std::lock_guard lock(impl_->write);
  size_t n = impl_->table.bytes() + sizeof(Impl);
  for (const Impl::Endpoint& e : impl_->endpoints) n += e.ring.capacity() * sizeof(uint64_t);
  return n;
}

}  // namespace baton::route
