#include "route/kv_event_index.h"

#include <algorithm>
#include <atomic>
#include <boost/unordered/unordered_flat_map.hpp>
#include <deque>
#include <mutex>
#include <shared_mutex>


namespace baton::route {
namespace {

constexpr size_t kTiers = 5, kSpeculative = kTiers;  // counted apart; further tier names share the last
constexpr size_t kGridsMax = 4;                      // block sizes beside ours; events of a fifth are dropped
constexpr size_t kOrphansMax = 4096, kOrphanTokensMax = 1u << 20;  // waiting events per endpoint, and what they hold
constexpr int kBlockTokensMax = 65'536;
constexpr size_t kSpeculativeMax = 65'536;           // prompts

struct Holder {
  uint16_t slot = 0;
  std::array<uint8_t, kTiers + 1> refs{};
  bool idle() const { return std::ranges::all_of(refs, [](uint8_t n) { return n == 0; }); }
};

// Who holds a key: one holder inline, more beside.
struct Holders {
  Holder first;
  std::unique_ptr<std::vector<Holder>> more;
  bool used = false;
  template <class F>
  void each(F f) const {
    if (used) f(first);
    if (more == nullptr) return;
    for (const Holder& h : *more) f(h);
  }
  Holder* find(uint16_t slot) {
    if (used && first.slot == slot) return &first;
    if (more == nullptr) return nullptr;
    const auto at = std::ranges::find(*more, slot, &Holder::slot);
    return at == more->end() ? nullptr : &*at;
  }
  Holder& add(uint16_t slot) {
    if (!used) {
      used = true;
      return first = Holder{.slot = slot};
    }
    if (more == nullptr) more = std::make_unique<std::vector<Holder>>();
    return more->emplace_back(Holder{.slot = slot});
  }
  bool drop(uint16_t slot) {  // true: nobody is left
    if (used && first.slot == slot) {
      used = more != nullptr;
      if (!used) return true;
      first = more->back();
      more->pop_back();
    } else if (more != nullptr) {
      std::erase_if(*more, [slot](const Holder& h) { return h.slot == slot; });
    }
    if (more != nullptr && more->empty()) more.reset();
    return false;
  }
};

// What an engine's hash stands for.
struct EngineBlock {
  uint64_t last = 0;                   // the key that children follow
  std::unique_ptr<uint64_t[]> before{};  // keys before the last, of an engine block that is several of ours
  uint16_t keys = 1;
  std::array<uint8_t, kTiers> refs{};
};

struct EngineState {
  boost::unordered_flat_map<uint64_t, EngineBlock> blocks;
  boost::unordered_flat_map<uint64_t, std::vector<BlockStored>> orphans;  // by the parent that is missing
  boost::unordered_flat_map<uint64_t, bool> removed_early;           // hashes of orphans that went before their parent came
  std::deque<uint64_t> orphan_order;
  size_t waiting = 0, waiting_tokens = 0;
};

}  // namespace

struct KvEventIndex::Impl {
  explicit Impl(const KvEventsParams& p)
      : params(p), block_tokens(static_cast<int>(std::clamp<int64_t>(p.block_tokens, 1, kBlockTokensMax))), keys(p.hash_algorithm, p.hash_seed) {
    grids.push_back(block_tokens);
    weights.fill(1);
    for (const auto& [name, weight] : params.tiers) {
      if (tier_names.size() < kTiers) weights[tier_names.size()] = weight, tier_names.push_back(name);
    }
  }

  size_t tier_of(std::string_view name) {
    for (size_t i = 0; i < tier_names.size(); ++i) {
      if (tier_names[i] == name) return i;
    }
    if (tier_names.size() == kTiers) return kTiers - 1;
    tier_names.emplace_back(name);  // a tier without a weight counts in full
    return tier_names.size() - 1;
  }
  // Tokens of one key of an engine with this block size; 0 = nonsense, or one grid too many.
  int grid_of(int engine_tokens) {
    if (engine_tokens <= 0 || engine_tokens > kBlockTokensMax) return 0;
    if (engine_tokens % block_tokens == 0) return block_tokens;
    if (std::ranges::find(grids, engine_tokens) != grids.end()) return engine_tokens;
    if (grids.size() > kGridsMax) return 0;
    grids.push_back(engine_tokens);
    return engine_tokens;
  }

  bool hold(uint64_t key, int slot, size_t tier) {
    const auto at = table.find(key);
    if (at == table.end() && table.size() >= static_cast<size_t>(params.blocks_max)) return false;
    Holders& holders = at == table.end() ? table[key] : at->second;
    Holder* mine = holders.find(static_cast<uint16_t>(slot));
    if (mine == nullptr) mine = &holders.add(static_cast<uint16_t>(slot));
    if (mine->refs[tier] < UINT8_MAX) ++mine->refs[tier];
    return true;
  }
  void release(uint64_t key, int slot, size_t tier, uint8_t times = 1) {
    const auto at = table.find(key);
    if (at == table.end()) return;
    Holder* mine = at->second.find(static_cast<uint16_t>(slot));
    if (mine == nullptr) return;
    mine->refs[tier] -= std::min(mine->refs[tier], times);
    if (mine->idle() && at->second.drop(static_cast<uint16_t>(slot))) table.erase(at);
  }
  template <class F>
  static void each_key(const EngineBlock& block, F f) {
    for (size_t i = 0; i + 1 < block.keys; ++i) f(block.before[i]);
    f(block.last);
  }

  bool store_block(int slot, EngineState& engine, uint64_t hash, EngineBlock&& fresh, size_t tier) {
    EngineBlock& block = engine.blocks.try_emplace(hash, std::move(fresh)).first->second;
    if (block.refs[tier] == UINT8_MAX) return true;
    size_t held = 0;
    bool all = true;
    each_key(block, [&](uint64_t key) { held += (all = all && hold(key, slot, tier)); });
    if (all) {
      ++block.refs[tier];
      return true;
    }
    each_key(block, [&](uint64_t key) {  // full: as if it had not come
      if (held > 0) release(key, slot, tier), --held;
    });
    if (std::ranges::all_of(block.refs, [](uint8_t n) { return n == 0; })) engine.blocks.erase(hash);
    ++counts.blocks_dropped;
    return false;
  }

  // The chain goes on from `parent`; hashes that were stored are appended to `known`.
  void store(int slot, EngineState& engine, const BlockStored& e, uint64_t parent, std::vector<uint64_t>& known) {
    const int grid = grid_of(e.block_tokens);
    const auto block = static_cast<size_t>(std::max(e.block_tokens, 1));
    if (grid == 0) {
      counts.blocks_dropped += e.hashes.size();
      return;
    }
    const size_t tier = tier_of(e.tier), step = static_cast<size_t>(grid);
    static const std::vector<std::string> kNone;
    for (size_t i = 0; i < e.hashes.size() && (i + 1) * block <= e.tokens.size(); ++i) {
      const std::span tokens = std::span(e.tokens).subspan(i * block, block);
      const std::vector<std::string>& said = i < e.extra_keys.size() ? e.extra_keys[i] : kNone;
      // vLLM says an adapter's name here again; the chain began from it.
      const bool names_lora = !e.lora.empty() && std::ranges::find(said, e.lora) != said.end();
      std::vector<std::string> rest;
      if (names_lora) std::ranges::remove_copy(said, std::back_inserter(rest), e.lora);
      const std::vector<std::string>& extra = names_lora ? rest : said;
      EngineBlock fresh{.keys = static_cast<uint16_t>(block / step)};
      if (fresh.keys > 1) fresh.before = std::make_unique<uint64_t[]>(fresh.keys - 1u);
      for (size_t k = 0; k < fresh.keys; ++k) {
        parent = keys.next(parent, tokens.subspan(k * step, step), extra);
        (k + 1 < fresh.keys ? fresh.before[k] : fresh.last) = parent;
      }
      if (const auto gone = engine.removed_early.find(e.hashes[i]); gone != engine.removed_early.end()) {
        engine.removed_early.erase(gone);
        continue;
      }
      if (!store_block(slot, engine, e.hashes[i], std::move(fresh), tier)) return;
      ++counts.stored;
      known.push_back(e.hashes[i]);
    }
  }

  static void left(EngineState& engine, const std::vector<BlockStored>& orphans) {
    engine.waiting -= orphans.size();
    for (const BlockStored& e : orphans) engine.waiting_tokens -= e.tokens.size();
  }
  void keep_orphan(EngineState& engine, const BlockStored& e) {
    engine.orphans[e.parent].push_back(e);
    engine.orphan_order.push_back(e.parent);
    ++engine.waiting;
    engine.waiting_tokens += e.tokens.size();
    while (engine.waiting > kOrphansMax || engine.waiting_tokens > kOrphanTokensMax) {
      const auto oldest = engine.orphans.find(engine.orphan_order.front());
      engine.orphan_order.pop_front();
      if (oldest == engine.orphans.end()) continue;
      left(engine, oldest->second);
      counts.orphans_dropped += oldest->second.size();
      engine.orphans.erase(oldest);
    }
    if (engine.orphans.empty()) engine.orphan_order.clear();
  }

  void on(int slot, EngineState& engine, std::string_view model, const BlockStored& e) {
    const std::string_view root = e.lora.empty() ? model : std::string_view(e.lora);
    uint64_t parent = 0;
    if (e.has_parent) {
      const auto at = engine.blocks.find(e.parent);
      if (at == engine.blocks.end()) return keep_orphan(engine, e);
      parent = at->second.last;
    } else {
      parent = keys.root(root);
    }
    std::vector<uint64_t> known;
    store(slot, engine, e, parent, known);
    while (!known.empty() && engine.waiting > 0) {  // whoever waited for these
      const uint64_t hash = known.back();
      known.pop_back();
      const auto at = engine.orphans.find(hash);
      if (at == engine.orphans.end()) continue;
      const std::vector<BlockStored> children = std::move(at->second);
      engine.orphans.erase(at);
      left(engine, children);
      counts.orphans_adopted += children.size();
      const uint64_t last = engine.blocks.at(hash).last;
      for (const BlockStored& child : children) store(slot, engine, child, last, known);
    }
  }

  void on(int slot, EngineState& engine, std::string_view, const BlockRemoved& e) {
    const size_t tier = tier_of(e.tier);
    for (const uint64_t hash : e.hashes) {
      const auto at = engine.blocks.find(hash);
      if (at == engine.blocks.end()) {
        ++counts.unknown_removed;
        if (engine.waiting > 0 && engine.removed_early.size() < kOrphansMax) engine.removed_early[hash] = true;
        continue;
      }
      EngineBlock& block = at->second;
      if (block.refs[tier] == 0) continue;
      --block.refs[tier];
      ++counts.removed;
      each_key(block, [&](uint64_t key) { release(key, slot, tier); });
      if (block.refs[tier] > 0) ++counts.removals_kept;
      if (std::ranges::all_of(block.refs, [](uint8_t n) { return n == 0; })) engine.blocks.erase(at);
    }
  }

  void on(int slot, EngineState& engine, std::string_view, const AllBlocksCleared&) {
    ++counts.cleared;
    clear(slot, engine);
  }

  void clear(int slot, EngineState& engine) {
    for (const auto& [hash, block] : engine.blocks) {
      for (size_t tier = 0; tier < kTiers; ++tier) {
        if (block.refs[tier] == 0) continue;
        each_key(block, [&](uint64_t key) { release(key, slot, tier, block.refs[tier]); });
      }
    }
    engine = EngineState{};
  }

  // One grid's walk. depth[slot] counts leading blocks; sum[slot] their weights.
  void walk(const KvPrompt::Grid& grid, PrefixMatch& depth, std::array<float, kEndpointsMax>& sum) const {
    depth.fill(0);
    for (size_t i = 0; i < std::min<size_t>(grid.keys.size(), UINT16_MAX); ++i) {
      const auto at = table.find(grid.keys[i]);
      bool anybody = false;
      if (at != table.end()) {
        at->second.each([&](const Holder& h) {
          if (depth[h.slot] != i) return;
          float best = h.refs[kSpeculative] > 0 ? 1.0f : 0.0f;
          for (size_t tier = 0; tier < kTiers; ++tier) {
            if (h.refs[tier] > 0) best = std::max(best, weights[tier]);
          }
          depth[h.slot] = static_cast<uint16_t>(i + 1);
          sum[h.slot] = (i == 0 ? 0 : sum[h.slot]) + best;
          anybody = true;
        });
      }
      if (!anybody) return;
    }
  }

  struct Speculation {
    int64_t until_ms;
    int slot;
    std::vector<uint64_t> keys;
  };

  const KvEventsParams params;
  const int block_tokens;
  const KvKeys keys;
  mutable std::shared_mutex mutex;
  boost::unordered_flat_map<uint64_t, Holders> table;
  std::array<std::unique_ptr<EngineState>, kEndpointsMax> engines;
  std::vector<int> grids;  // the first is ours
  std::vector<std::string> tier_names;
  std::array<float, kTiers> weights{};
  std::deque<Speculation> speculations;
  KvIndexCounts counts;
  mutable std::atomic<uint64_t> lookups{0}, hits{0}, hit_blocks{0};
};

namespace {
bool is_slot(int slot) { return slot >= 0 && slot < kEndpointsMax; }
}  // namespace

KvEventIndex::KvEventIndex(const KvEventsParams& params) : impl_(std::make_unique<Impl>(params)) {}
KvEventIndex::~KvEventIndex() = default;

void KvEventIndex::apply(int slot, std::string_view model, const KvEventBatch& batch) {
  if (!is_slot(slot)) return;
  const std::unique_lock lock(impl_->mutex);
  auto& engine = impl_->engines[static_cast<size_t>(slot)];
  if (engine == nullptr) engine = std::make_unique<EngineState>();
  ++impl_->counts.batches;
  for (const KvEvent& event : batch.events) std::visit([&](const auto& e) { impl_->on(slot, *engine, model, e); }, event);
}

void KvEventIndex::forget(int slot) {
  if (!is_slot(slot)) return;
  const std::unique_lock lock(impl_->mutex);
  auto& engine = impl_->engines[static_cast<size_t>(slot)];
  if (engine == nullptr) return;
  impl_->clear(slot, *engine);
  engine.reset();
}

KvPrompt KvEventIndex::keys(std::string_view model, std::span<const uint32_t> tokens, const KvExtras& extras) const {
  std::vector<int> grids;
  {
    const std::shared_lock lock(impl_->mutex);
    grids = impl_->grids;
  }
  KvPrompt prompt;
  for (const int grid : grids) prompt.grids.push_back({grid, impl_->keys.chain(model, tokens, grid, kPrefixBlocksMax, extras)});
  return prompt;
}

size_t KvEventIndex::match(const KvPrompt& prompt, KvMatch& out) const {
  out.cached.fill(0);
  out.weighted.fill(0);
  size_t longest = 0;
  PrefixMatch depth;
  std::array<float, kEndpointsMax> sum;
  const std::shared_lock lock(impl_->mutex);
  for (const KvPrompt::Grid& grid : prompt.grids) {
    impl_->walk(grid, depth, sum);
    for (size_t slot = 0; slot < depth.size(); ++slot) {
      if (depth[slot] == 0) continue;
      const float scale = static_cast<float>(grid.block_tokens) / static_cast<float>(impl_->block_tokens);
      const auto to_blocks = [scale](float n) { return static_cast<uint16_t>(std::min(n * scale + 1e-3f, 65535.0f)); };
      const uint16_t cached = to_blocks(depth[slot]);
      if (cached < out.cached[slot]) continue;
      out.cached[slot] = cached;
      out.weighted[slot] = to_blocks(sum[slot]);
      longest = std::max<size_t>(longest, cached);
    }
  }
  impl_->lookups.fetch_add(1, std::memory_order_relaxed);
  if (longest > 0) impl_->hits.fetch_add(1, std::memory_order_relaxed);
  impl_->hit_blocks.fetch_add(longest, std::memory_order_relaxed);
  return longest;
}

void KvEventIndex::speculate(const KvPrompt& prompt, int slot, int64_t now_ms) {
  if (!is_slot(slot)) return;
  const std::unique_lock lock(impl_->mutex);
  if (!impl_->params.speculative || impl_->speculations.size() >= kSpeculativeMax) return;
  Impl::Speculation s{now_ms + impl_->params.speculative_ttl_ms, slot, {}};
  for (const KvPrompt::Grid& grid : prompt.grids) {
    for (const uint64_t key : grid.keys) {
      if (impl_->hold(key, slot, kSpeculative)) s.keys.push_back(key);
    }
  }
  impl_->speculations.push_back(std::move(s));
}

void KvEventIndex::expire(int64_t now_ms) {
  const std::unique_lock lock(impl_->mutex);
  while (!impl_->speculations.empty() && impl_->speculations.front().until_ms <= now_ms) {
    const Impl::Speculation& s = impl_->speculations.front();
    for (const uint64_t key : s.keys) impl_->release(key, s.slot, kSpeculative);
    impl_->speculations.pop_front();
  }
}

KvIndexCounts KvEventIndex::counts() const {
  const std::shared_lock lock(impl_->mutex);
  KvIndexCounts counts = impl_->counts;
  counts.lookups = impl_->lookups.load();
  counts.hits = impl_->hits.load();
  counts.hit_blocks = impl_->hit_blocks.load();
  counts.blocks = impl_->table.size();
  counts.speculative = impl_->speculations.size();
  for (const auto& engine : impl_->engines) counts.orphans += engine == nullptr ? 0 : engine->waiting;
  return counts;
}

}  // namespace baton::route
