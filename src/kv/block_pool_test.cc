// BlockPool: the order of eviction by hand, and random operations against a naive model.
#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <map>

#include "base/prng.h"

namespace baton::kv {
namespace {

BlockHash hash_of(uint64_t n) {
  BlockHash h{};
  h[0] = static_cast<uint8_t>(n % 7);  // few homes in the table: long probe runs
  for (size_t i = 0; i < 8; ++i) h[8 + i] = static_cast<uint8_t>(n >> (8 * i));
  return h;
}

using Blocks = std::vector<BlockId>;

TEST(BlockPool, StartsWithAllButTheNullBlock) {
  BlockPool pool(5, true);
  EXPECT_EQ(pool.total(), 4);
  EXPECT_EQ(pool.available(), 4);
  EXPECT_EQ(pool.usage(), 0.0);
  EXPECT_EQ(*pool.allocate(4), (Blocks{1, 2, 3, 4}));
  EXPECT_EQ(pool.usage(), 1.0);
  EXPECT_FALSE(pool.allocate(1));
  EXPECT_EQ(pool.allocate(0)->size(), 0u);
}

TEST(BlockPool, AllocationIsAllOrNothing) {
  BlockPool pool(4, true);
  EXPECT_FALSE(pool.allocate(4));
  EXPECT_EQ(pool.available(), 3);
}

TEST(BlockPool, TailBlocksAreEvictedFirst) {
  BlockPool pool(4, true);
  Blocks a = *pool.allocate(3);
  for (size_t i = 0; i < 3; ++i) pool.cache(a[i], hash_of(i));
  pool.unref(a);
  EXPECT_EQ(pool.available(), 3);
  EXPECT_EQ(*pool.allocate(1), (Blocks{a[2]}));
  BlockHash chain[] = {hash_of(0), hash_of(1), hash_of(2)};
  EXPECT_EQ(pool.lookup(chain), (Blocks{a[0], a[1]}));
  EXPECT_EQ(pool.evictions(), 1u);
}

TEST(BlockPool, AHitOnAFreeBlockSavesItFromEviction) {
  BlockPool pool(4, true);
  Blocks a = *pool.allocate(2), b = *pool.allocate(1);
  pool.cache(a[0], hash_of(0));
  pool.cache(a[1], hash_of(1));
  pool.cache(b[0], hash_of(2));
  pool.unref(a);
  pool.unref(b);
  BlockHash want[] = {hash_of(0), hash_of(1)};
  Blocks hit = pool.lookup(want);
  EXPECT_EQ(pool.free_among(hit), 2);
  pool.ref(hit);
  EXPECT_EQ(pool.available(), 1);
  EXPECT_EQ(*pool.allocate(1), b);
  EXPECT_FALSE(pool.allocate(1));
  EXPECT_EQ(pool.lookup(want), hit);
}

TEST(BlockPool, LookupStopsAtTheFirstMiss) {
  BlockPool pool(4, true);
  Blocks a = *pool.allocate(2);
  pool.cache(a[0], hash_of(0));
  pool.cache(a[1], hash_of(2));
  BlockHash want[] = {hash_of(0), hash_of(1), hash_of(2)};
  EXPECT_EQ(pool.lookup(want), (Blocks{a[0]}));
}

TEST(BlockPool, DuplicatesOutliveEachOther) {
  BlockPool pool(4, true);
  Blocks a = *pool.allocate(3);
  for (BlockId b : a) pool.cache(b, hash_of(9));
  BlockHash want[] = {hash_of(9)};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(pool.lookup(want).size(), 1u);
    pool.unref({&a[i], 1});
    ASSERT_TRUE(pool.allocate(1));  // evicts a[i], whichever place it has among its twins
  }
  EXPECT_TRUE(pool.lookup(want).empty());
}

TEST(BlockPool, CachingOffFindsNothing) {
  BlockPool pool(3, false);
  Blocks a = *pool.allocate(1);
  pool.cache(a[0], hash_of(1));
  BlockHash want[] = {hash_of(1)};
  EXPECT_TRUE(pool.lookup(want).empty());
  pool.unref(a);
  EXPECT_TRUE(pool.reset_prefix_cache());
}

TEST(BlockPool, ResetForgetsHashesUnlessBlocksAreInUse) {
  BlockPool pool(3, true);
  Blocks a = *pool.allocate(2);
  pool.cache(a[0], hash_of(1));
  pool.cache(a[1], hash_of(1));
  BlockHash want[] = {hash_of(1)};
  EXPECT_FALSE(pool.reset_prefix_cache());
  EXPECT_EQ(pool.lookup(want).size(), 1u);
  pool.unref(a);
  EXPECT_TRUE(pool.reset_prefix_cache());
  EXPECT_TRUE(pool.lookup(want).empty());
  EXPECT_EQ(pool.cached(), 0);
}

// The same contract in the plainest words: a list for LRU order, a map for hashes.
struct NaivePool {
  std::list<BlockId> free;
  std::map<BlockId, int> refs;
  std::map<BlockId, BlockHash> hash;
  bool has(const BlockHash& h) const {
    return std::ranges::any_of(hash, [&](const auto& entry) { return entry.second == h; });
  }
  void unref(BlockId b) {
    if (--refs[b] == 0) free.push_back(b);
  }
};

// Looks up a random chain, checks the hit against the plain pool, and takes references on it.
void prefix_hit(BlockPool& pool, NaivePool& naive, Prng& prng, uint64_t hashes, Blocks& hit) {
  std::vector<BlockHash> want;
  for (uint64_t i = prng.below(4); i > 0; --i) want.push_back(hash_of(prng.below(hashes)));
  hit = pool.lookup(want);
  size_t expected = 0;
  while (expected < want.size() && naive.has(want[expected])) ++expected;
  ASSERT_EQ(hit.size(), expected);
  for (size_t i = 0; i < hit.size(); ++i) ASSERT_EQ(naive.hash.at(hit[i]), want[i]);
  std::ranges::sort(hit);
  hit.erase(std::unique(hit.begin(), hit.end()), hit.end());
  ASSERT_EQ(pool.free_among(hit), std::ranges::count_if(hit, [&](BlockId b) { return naive.refs[b] == 0; }));
  pool.ref(hit);
  for (BlockId b : hit) {
    if (naive.refs[b]++ == 0) naive.free.remove(b);
  }
}

void random_run(uint64_t seed) {
  SCOPED_TRACE(seed);
  Prng prng(seed);
  int32_t count = static_cast<int32_t>(prng.between(2, 40));
  BlockPool pool(count, true);
  NaivePool naive;
  for (BlockId b = 1; b < count; ++b) naive.free.push_back(b);
  std::vector<Blocks> held;
  uint64_t hashes = static_cast<uint64_t>(prng.between(1, 60));
  for (int step = 0; step < 2000; ++step) {
    switch (prng.below(5)) {
      case 0: {
        auto n = static_cast<int32_t>(prng.below(5));
        auto got = pool.allocate(n);
        ASSERT_EQ(got.has_value(), static_cast<size_t>(n) <= naive.free.size());
        if (!got) break;
        for (BlockId b : *got) {
          ASSERT_EQ(b, naive.free.front());
          naive.free.pop_front();
          naive.refs[b] = 1;
          naive.hash.erase(b);
        }
        held.push_back(*got);
        break;
      }
      case 1:
        held.emplace_back();
        prefix_hit(pool, naive, prng, hashes, held.back());
        break;
      case 2: {
        if (held.empty()) break;
        size_t i = prng.below(held.size());
        pool.unref(held[i]);
        for (size_t k = held[i].size(); k-- > 0;) naive.unref(held[i][k]);
        held.erase(held.begin() + static_cast<ptrdiff_t>(i));
        break;
      }
      case 3: {
        if (held.empty()) break;
        for (BlockId b : held[prng.below(held.size())]) {
          BlockHash h = hash_of(prng.below(hashes));
          pool.cache(b, h);
          naive.hash.try_emplace(b, h);
        }
        break;
      }
      default:
        if (!prng.chance(0.02)) break;
        while (prng.chance(0.9) && !held.empty()) {
          pool.unref(held.back());
          for (size_t k = held.back().size(); k-- > 0;) naive.unref(held.back()[k]);
          held.pop_back();
        }
        ASSERT_EQ(pool.reset_prefix_cache(), naive.free.size() == static_cast<size_t>(count - 1));
        if (naive.free.size() == static_cast<size_t>(count - 1)) naive.hash.clear();
    }
    ASSERT_EQ(pool.available(), static_cast<int32_t>(naive.free.size()));
    ASSERT_EQ(pool.cached(), static_cast<int32_t>(naive.hash.size()));
    for (BlockId b = 1; b < count; ++b) ASSERT_EQ(pool.ref_count(b), naive.refs[b]);
    for (const auto& [b, h] : naive.hash) ASSERT_EQ(pool.lookup({&h, 1}).size(), 1u);
  }
}

TEST(BlockPool, AgreesWithANaiveModel) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    random_run(seed);
    if (testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace baton::kv
