#include "route/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
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

// A replica that joins: what it is told goes behind what it learnt, and match() stays exact, whatever room there is.
TEST(PrefixIndex, OlderBlocksGoBehind) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Prng prng(seed);
    const size_t capacity = seed % 3 == 0 ? 1'000 : 20 + prng.below(60);
    PrefixIndex known(100'000, 100), learnt(100'000, capacity);
    const auto chain = [&] {
      std::vector<uint64_t> out;
      uint64_t h = prng.below(3);
      for (uint64_t i = 1 + prng.below(40); i > 0; --i) out.push_back(h = mix64(h * 4 + (prng.chance(0.1) ? 2 : 1)));
      return out;
    };
    for (int i = 0; i < 8; ++i) known.record(chain(), 3);
    for (int i = 0; i < 3; ++i) learnt.record(chain(), 3);
    const auto before = learnt.newest(3, 10'000);
    learnt.append_older(known.newest(3, 10'000), 3);
    const auto after = learnt.newest(3, 10'000);
    ASSERT_LE(after.size(), std::max(capacity, before.size()));
    EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin())) << seed;
    for (int i = 0; i < 3; ++i) learnt.record(chain(), 3);
    const auto now = learnt.newest(3, 10'000);
    EXPECT_EQ(now.size(), learnt.blocks(3));
    const std::set<uint64_t> held(now.begin(), now.end());
    for (int i = 0; i < 50; ++i) {
      const auto asked = chain();
      size_t want = 0;
      while (want < asked.size() && held.contains(asked[want])) ++want;
      EXPECT_EQ(learnt.match(asked)[3], want) << seed;
    }
    if (capacity == 1'000) {
      for (const uint64_t hash : known.newest(3, 10'000)) EXPECT_TRUE(std::ranges::find(after, hash) != after.end());
    }
  }
}

// Few hashes and many endpoints, so that blocks have none, two, eight and more holders, and go through all their forms both ways.
TEST(PrefixIndex, MatchesLikeAPlainModel) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Prng prng(seed);
    PrefixIndex index(100'000);
    const bool holes = seed % 4 < 2;  // without remove(), match() need not look at every block
    const int spread = seed % 2 == 0 ? 51 : 1;
    const uint64_t endpoints = seed % 3 == 0 ? 20 : 6;
    std::map<int, std::set<uint64_t>> model;
    for (int step = 0; step < 300; ++step) {
      std::vector<uint64_t> chain;
      uint64_t h = prng.below(4);
      for (uint64_t i = prng.below(prng.chance(0.2) ? 120 : 20); i > 0; --i)
        chain.push_back(h = mix64(h * 4 + (prng.chance(0.1) ? 2 : 1)));
      const int slot = static_cast<int>(prng.below(endpoints)) * spread;
      if (prng.chance(0.05)) {
        index.forget(slot);
        model[slot].clear();
      }
      if (holes && prng.chance(0.1)) {
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

// Against a list: what an endpoint holds is what it was sent last, a prompt's front counting as newer than its tail.
TEST(PrefixIndex, ForgetsTheLeastRecentlySent) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Prng prng(seed);
    const size_t capacity = 1 + prng.below(200);
    PrefixIndex index(100'000, capacity);
    std::vector<uint64_t> model;  // newest first
    for (int step = 0; step < 400; ++step) {
      std::vector<uint64_t> chain;
      uint64_t h = prng.below(3);
      for (uint64_t i = 1 + prng.below(90); i > 0; --i) chain.push_back(h = mix64(h * 4 + (prng.chance(0.05) ? 2 : 1)));
      if (step % 50 == 17) chain.insert(chain.end(), chain.begin(), chain.begin() + static_cast<ptrdiff_t>(chain.size() / 2));
      index.record(chain, 3);
      std::set<uint64_t> seen;
      std::vector<uint64_t> next;
      for (const auto* part : {&chain, &model}) {
        for (const uint64_t hash : *part) {
          if (next.size() < capacity && seen.insert(hash).second) next.push_back(hash);
        }
      }
      if (step % 50 == 17) {  // a chain that names blocks twice: no order is promised among its own
        index.forget(3);
        next.clear();
      }
      model = std::move(next);
      ASSERT_EQ(index.blocks(3), model.size()) << "seed " << seed << " step " << step;
      ASSERT_EQ(index.size(), model.size());
      for (int i = 0; i < 4 && !model.empty(); ++i) {
        const uint64_t hash = model[i == 0 ? model.size() - 1 : prng.below(model.size())];
        ASSERT_EQ(index.match({&hash, 1})[3], 1) << "seed " << seed << " step " << step << " capacity " << capacity;
      }
    }
  }
}

// As many endpoints hold a block as there can be, and let it go one by one.
TEST(PrefixIndex, ABlockThatEverybodyHolds) {
  PrefixIndex index;
  const auto chain = chain_of(1, 40);
  for (int slot = 0; slot < kEndpointsMax; ++slot) {
    index.record(chain, slot);
    index.record(chain, slot);
  }
  EXPECT_EQ(index.size(), 40u);
  for (int slot = 0; slot < kEndpointsMax; ++slot) {
    index.forget((slot * 7 + 5) % kEndpointsMax);
    const PrefixMatch match = index.match(chain);
    EXPECT_EQ(std::ranges::count(match, 40), kEndpointsMax - 1 - slot);
    EXPECT_EQ(match[static_cast<size_t>((slot * 7 + 5) % kEndpointsMax)], 0);
  }
  EXPECT_EQ(index.size(), 0u);
}

// New prompts for ever: what is looked for and is not there must not take longer and longer, nor memory grow.
TEST(PrefixIndex, ChurnLeavesNothingBehind) {
  PrefixIndex index(10'000, 500);
  size_t bytes = 0;
  for (uint64_t who = 0; who < 4000; ++who) {
    index.record(chain_of(who, 30), static_cast<int>(who % 8));
    if (who == 2000) bytes = index.bytes();
  }
  EXPECT_EQ(index.bytes(), bytes);
  EXPECT_EQ(index.size(), 8u * 500u);
  EXPECT_EQ(index.match(chain_of(3999, 30))[7], 30);
  for (int slot = 0; slot < 8; ++slot) index.forget(slot);
  EXPECT_EQ(index.size(), 0u);
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
