#include "route/prefix_index.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <thread>

#include "base/prng.h"

namespace baton::route {
namespace {

std::vector<uint64_t> chain_of(uint64_t who, size_t n) {
  std::vector<uint64_t> chain;
  for (uint64_t i = 0; i < n; ++i) chain.push_back(Prng::at(who, i));
  return chain;
}

// Few hashes and many endpoints, so that blocks have none, two, eight and more holders, and go through all their forms both ways.
TEST(PrefixIndex, MatchesLikeAPlainModel) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Prng prng(seed);
    PrefixIndex index(100'000);
    const int spread = seed % 2 == 0 ? 51 : 1;
    const uint64_t endpoints = seed % 3 == 0 ? 20 : 6;
    std::map<int, std::set<uint64_t>> model;
    for (int step = 0; step < 300; ++step) {
      std::vector<uint64_t> chain;
      uint64_t h = prng.below(4);
      for (uint64_t i = prng.below(20); i > 0; --i) chain.push_back(h = mix64(h * 4 + prng.below(2) + 1));
      const int slot = static_cast<int>(prng.below(endpoints)) * spread;
      if (prng.chance(0.05)) {
        index.forget(slot);
        model[slot].clear();
      }
      if (prng.chance(0.1)) {
        index.remove(chain, slot);
        for (const uint64_t hash : chain) model[slot].erase(hash);
      }
      PrefixMatch match;
      size_t longest = 0;
      const size_t said = index.match(chain, match);
      for (int s = 0; s < kEndpointsMax; ++s) {
        uint16_t depth = 0;
        if (model.contains(s)) {
          while (depth < chain.size() && model[s].contains(chain[depth])) ++depth;
        }
        ASSERT_EQ(match[static_cast<size_t>(s)], depth) << "seed " << seed << " step " << step << " slot " << s;
        longest = std::max<size_t>(longest, depth);
      }
      ASSERT_EQ(said, longest);
      index.record(chain, slot);
      model[slot].insert(chain.begin(), chain.end());
      std::set<uint64_t> all;
      for (const auto& [s, hashes] : model) {
        all.insert(hashes.begin(), hashes.end());
        ASSERT_EQ(index.blocks(s), hashes.size());
      }
      ASSERT_EQ(index.size(), all.size());
    }
  }
}

TEST(PrefixIndex, EachEndpointKeepsItsCapacityOfTheNewest) {
  PrefixIndex index(100'000, 64);
  for (uint64_t who = 0; who < 4; ++who) index.record(chain_of(who, 16), 1);
  index.record(chain_of(0, 16), 2);
  EXPECT_EQ(index.blocks(1), 64u);
  index.record(chain_of(0, 16), 1);  // renewed
  index.record(chain_of(10, 16), 1);
  EXPECT_EQ(index.match(chain_of(0, 16))[1], 16);
  EXPECT_EQ(index.match(chain_of(1, 16))[1], 0);
  EXPECT_EQ(index.match(chain_of(10, 16))[1], 16);
  index.record(chain_of(20, 8), 1);  // evicts the tail of the oldest chain, whose head still matches
  EXPECT_EQ(index.match(chain_of(2, 16))[1], 8);
  EXPECT_EQ(index.match(chain_of(0, 16))[2], 16) << "the other endpoint has room";
  EXPECT_EQ(index.blocks(1), 64u);
  index.set_capacity(1, 20);
  EXPECT_LE(index.blocks(1), 20u);
  index.forget(1);
  EXPECT_EQ(index.blocks(1), 0u);
  EXPECT_EQ(index.size(), 16u);
}

TEST(PrefixIndex, TheWholeStaysBounded) {
  PrefixIndex index(1000, 1'000'000);
  for (uint64_t who = 0; who < 1000; ++who) index.record(chain_of(who, 16), static_cast<int>(who % 40));
  EXPECT_LE(index.size(), 2048u);
  EXPECT_GT(index.size(), 900u);
  size_t holders = 0;
  for (int s = 0; s < 40; ++s) holders += index.blocks(s);
  EXPECT_EQ(holders, index.size());
}

TEST(PrefixIndex, ReadersRunBesideWriters) {
  PrefixIndex index(20'000, 2000);
  std::atomic<bool> stop = false;
  std::vector<std::thread> readers;
  std::atomic<uint64_t> wrong = 0;
  const auto kept = chain_of(999, 64);  // its own endpoint: no writer touches it
  index.record(kept, 700);
  for (uint64_t r = 0; r < 2; ++r) {
    readers.emplace_back([&, r] {
      Prng prng(r);
      while (!stop) {
        const PrefixMatch match = index.match(chain_of(prng.below(200), 32));
        for (const uint16_t depth : match) wrong += depth > 32;
        wrong += index.match(kept)[700] != 64;
      }
    });
  }
  Prng prng(9);
  for (int i = 0; i < 3000; ++i) {
    const int slot = static_cast<int>(prng.below(40));
    if (prng.chance(0.01)) index.forget(slot);
    index.record(chain_of(prng.below(200), 32), slot);
  }
  stop = true;
  for (std::thread& t : readers) t.join();
  EXPECT_EQ(wrong, 0u);
}

}  // namespace
}  // namespace baton::route
