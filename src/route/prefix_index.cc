#include "route/prefix_index.h"

#include <algorithm>
#include <bit>
#include <mutex>

#include "route/prefix_table.h"

namespace baton::route {

struct PrefixIndex::Impl {
  // What one endpoint holds, newest first: nodes in a ring around node 0. A chain lies in it front to back as it was recorded, so
  // a known chain is renewed by walking its neighbours and moving whole runs; the table is asked once a run.
  struct Node {
    uint64_t hash = 0;
    uint32_t newer = 0, older = 0;  // older: the next free one, while free
  };
  struct Endpoint {
    std::vector<Node> nodes;
    uint32_t free = 0, cursor = 0;  // cursor: what the chain being recorded was put behind
    size_t capacity = 0, held = 0;
    std::atomic<size_t> live{0};  // held, for other threads

    void tell() { live.store(held, std::memory_order_relaxed); }
    void link(uint32_t newer, uint32_t older) {
      nodes[newer].older = older;
      nodes[older].newer = newer;
    }
    uint32_t take(uint64_t hash) {
      if (nodes.empty()) nodes.emplace_back();
      uint32_t n = free;
      if (n != 0) {
        free = nodes[n].older;
      } else {
        n = static_cast<uint32_t>(nodes.size());
        nodes.emplace_back();
      }
      nodes[n].hash = hash;
      return n;
    }
    void give(uint32_t n) {
      nodes[n].older = free;
      free = n;
    }
    void put_behind_cursor(uint32_t n) {
      const uint32_t older = nodes[cursor].older;
      link(cursor, n);
      link(n, older);
      cursor = n;
      ++held;
    }
    void unlink(uint32_t n) {
      if (cursor == n) cursor = nodes[n].newer;
      link(nodes[n].newer, nodes[n].older);
      give(n);
      --held;
    }
    // From `first` on as far as the chain's next blocks lie behind one another; moved behind the cursor. Returns their number.
    size_t renew(uint32_t first, std::span<const uint64_t> chain) {
      if (first == cursor) return 1;  // a chain that names a block twice
      uint32_t last = first;
      size_t n = 1;
      for (; n < chain.size(); ++n) {
        const uint32_t next = nodes[last].older;
        if (next == 0 || next == cursor || nodes[next].hash != chain[n]) break;
        last = next;
      }
      if (nodes[first].newer != cursor) {
        link(nodes[first].newer, nodes[last].older);
        const uint32_t behind = nodes[cursor].older;
        link(cursor, first);
        link(last, behind);
      }
      cursor = last;
      return n;
    }
  };

  Impl(size_t blocks_max, size_t endpoint_blocks) : table(std::max<size_t>(blocks_max, 64)) {
    for (Endpoint& e : endpoints) e.capacity = std::clamp<size_t>(endpoint_blocks, 1, kEndpointBlocksMax);
  }
  static_assert(kEndpointBlocksMax + 2 <= kNodesMax);

  // The oldest go until the endpoint holds `keep`, but never what the chain being recorded was put behind.
  void shrink(Endpoint& e, int slot, size_t keep) {
    constexpr int kAhead = 8;
    if (e.held <= keep) return;
    uint32_t ahead = 0;
    const auto look_ahead = [&] {
      ahead = e.nodes[ahead].newer;
      table.prefetch(e.nodes[ahead].hash);
    };
    for (int i = 0; i < kAhead; ++i) look_ahead();
    while (e.held > keep) {
      const uint32_t oldest = e.nodes[0].newer;
      if (oldest == e.cursor) break;
      look_ahead();
      table.remove(e.nodes[oldest].hash, slot);
      e.unlink(oldest);
    }
    e.tell();
  }
  // Room for `n` blocks, or as many as there can be; false: none, all it holds is the chain being recorded.
  bool make_room(Endpoint& e, int slot, size_t n) {
    shrink(e, slot, e.capacity - std::min(n, e.capacity));
    return e.held < e.capacity;
  }
  // Returns how many blocks at the front of `chain` are now in their place.
  size_t add(Endpoint& e, int slot, std::span<const uint64_t> chain) {
    const uint32_t node = e.take(chain.front());
    const uint32_t known = table.add(chain.front(), slot, node, [this](int other, uint32_t n) {
      Endpoint& loser = endpoints[static_cast<size_t>(other)];
      loser.unlink(n);
      loser.tell();
    });
    if (known != 0) {
      e.give(node);
      return e.renew(known, chain);
    }
    e.put_behind_cursor(node);
    return 1;
  }

  std::mutex write;
  std::atomic<bool> holes{false};  // remove() was used: a known block says nothing about those before it
  PrefixTable table;
  std::array<Endpoint, kEndpointsMax> endpoints;
};

namespace {
bool is_slot(int slot) { return slot >= 0 && slot < kEndpointsMax; }
}  // namespace

PrefixIndex::PrefixIndex(size_t blocks_max, size_t endpoint_blocks)
    : impl_(std::make_unique<Impl>(blocks_max, endpoint_blocks)) {}
PrefixIndex::~PrefixIndex() = default;

PrefixMatch PrefixIndex::match(std::span<const uint64_t> chain) const {
  PrefixMatch out;
  match(chain, out);
  return out;
}

// Who holds a block holds all before it, since the oldest go first and a record renews a chain from its front. So where two
// blocks have the same holders, those between have them too: one block in 16 is looked at, and all of them only where holders
// leave.
size_t PrefixIndex::match(std::span<const uint64_t> chain, PrefixMatch& out) const {
  constexpr size_t kAhead = 8;
  out.fill(0);
  chain = chain.first(std::min<size_t>(chain.size(), UINT16_MAX));
  if (chain.empty()) return 0;
  const size_t stride = impl_->holes.load(std::memory_order_acquire) ? 1 : 16;
  SlotBits alive{}, have{};
  const PrefixTable& table = impl_->table;
  const auto gate = table.enter();
  const size_t words = table.words();
  const auto leave = [&](size_t k, const SlotBits& staying) {  // the others matched k blocks and no more
    for (size_t w = 0; w < words; ++w) {
      for (uint64_t gone = alive[w] & ~staying[w]; gone != 0; gone &= gone - 1) {
        out[w * 64 + static_cast<size_t>(std::countr_zero(gone))] = static_cast<uint16_t>(k);
      }
    }
  };
  const auto probe = [&](size_t j) { return std::min(j * stride, chain.size() - 1); };
  for (size_t j = 0; j < kAhead; ++j) table.prefetch(chain[probe(j)]);
  if (table.intersect(chain[0], true, alive, have) == PrefixTable::Seen::kNobody) return 0;
  alive = have;
  size_t k = 1;
  for (size_t j = 1; k < chain.size(); ++j) {
    const size_t to = probe(j);
    table.prefetch(chain[probe(j + kAhead)]);
    if (stride > 1 && table.intersect(chain[to], false, alive, have) == PrefixTable::Seen::kSame) {
      k = to + 1;
      continue;
    }
    if (stride > 1) {
      for (size_t i = k; i < to; ++i) table.prefetch(chain[i]);
    }
    for (; k <= to; ++k) {
      const PrefixTable::Seen seen = table.intersect(chain[k], false, alive, have);
      if (seen == PrefixTable::Seen::kSame) continue;
      if (seen == PrefixTable::Seen::kNobody) return leave(k, {}), k;
      leave(k, have);
      alive = have;
    }
  }
  leave(chain.size(), {});
  return chain.size();
}

void PrefixIndex::record(std::span<const uint64_t> chain, int slot) {
  if (!is_slot(slot)) return;
  constexpr size_t kBatch = 64;  // new blocks for which room is made at once
  const std::lock_guard lock(impl_->write);
  Impl::Endpoint& e = impl_->endpoints[static_cast<size_t>(slot)];
  for (size_t k = 0; k < chain.size();) {
    if (const uint32_t known = impl_->table.node_of(chain[k], slot); known != 0) {
      k += e.renew(known, chain.subspan(k));
      continue;
    }
    const size_t until = std::min(k + kBatch, chain.size());
    for (size_t i = k; i < until; ++i) impl_->table.prefetch(chain[i]);
    if (!impl_->make_room(e, slot, until - k)) break;
    while (k < until && e.held < e.capacity) k += impl_->add(e, slot, chain.subspan(k));
  }
  e.cursor = 0;
  e.tell();
}

std::vector<uint64_t> PrefixIndex::newest(int slot, size_t max) const {
  std::vector<uint64_t> out;
  if (!is_slot(slot)) return out;
  const std::lock_guard lock(impl_->write);
  const Impl::Endpoint& e = impl_->endpoints[static_cast<size_t>(slot)];
  if (e.nodes.empty()) return out;
  out.reserve(std::min(max, e.held));
  for (uint32_t n = e.nodes[0].older; n != 0 && out.size() < max; n = e.nodes[n].older) out.push_back(e.nodes[n].hash);
  return out;
}

// The front of a chain stands before its tail in the list, and is put before it here, so whoever holds a block still holds all
// before it. That holds where room ends too, as long as nothing of the list follows: hence the early return.
void PrefixIndex::append_older(std::span<const uint64_t> list, int slot) {
  if (!is_slot(slot)) return;
  const std::lock_guard lock(impl_->write);
  Impl::Endpoint& e = impl_->endpoints[static_cast<size_t>(slot)];
  if (!e.nodes.empty()) e.cursor = e.nodes[0].newer;  // the oldest
  for (const uint64_t hash : list) {
    if (e.held >= e.capacity) break;
    if (impl_->table.node_of(hash, slot) != 0) continue;
    impl_->add(e, slot, {&hash, 1});
  }
  e.cursor = 0;
  e.tell();
}

void PrefixIndex::remove(std::span<const uint64_t> hashes, int slot) {
  if (!is_slot(slot)) return;
  const std::lock_guard lock(impl_->write);
  Impl::Endpoint& e = impl_->endpoints[static_cast<size_t>(slot)];
  impl_->holes.store(true, std::memory_order_release);
  for (const uint64_t hash : hashes) {
    if (const uint32_t node = impl_->table.remove(hash, slot); node != 0) e.unlink(node);
  }
  e.tell();
}

void PrefixIndex::forget(int slot) {
  if (!is_slot(slot)) return;
  const std::lock_guard lock(impl_->write);
  Impl::Endpoint& e = impl_->endpoints[static_cast<size_t>(slot)];
  impl_->shrink(e, slot, 0);
  e.nodes = {};
  e.free = 0;
}

void PrefixIndex::set_capacity(int slot, size_t blocks) {
  if (!is_slot(slot) || blocks == 0) return;
  const std::lock_guard lock(impl_->write);
  Impl::Endpoint& e = impl_->endpoints[static_cast<size_t>(slot)];
  e.capacity = std::min(blocks, kEndpointBlocksMax);
  impl_->shrink(e, slot, e.capacity);
}

size_t PrefixIndex::size() const { return impl_->table.size(); }
size_t PrefixIndex::blocks(int slot) const { return is_slot(slot) ? impl_->endpoints[static_cast<size_t>(slot)].live.load() : 0; }

size_t PrefixIndex::bytes() const {
  const std::lock_guard lock(impl_->write);
  size_t n = impl_->table.bytes() + sizeof(Impl);
  for (const Impl::Endpoint& e : impl_->endpoints) n += e.nodes.capacity() * sizeof(Impl::Node);
  return n;
}

}  // namespace baton::route
