// Chain hashes, addresses, and the burst that every picker meets; decisions are text cases (decide_test.cc).
#include "base/prng.h"
#include "route/config.h"
#include "route/decide.h"

namespace baton::route {
namespace {

TEST(ChainHasher, DependsOnEveryByteBeforeAndOnNoSplit) {
  std::string text(1000, 'x');
  Prng prng(5);
  for (char& c : text) c = static_cast<char>('a' + prng.below(26));
  ChainHasher whole(9, "m", 64);
  whole.feed(text);
  EXPECT_EQ(whole.chain().size(), 15u);  // full blocks only
  for (int round = 0; round < 50; ++round) {
    ChainHasher pieces(9, "m", 64);
    for (size_t at = 0; at < text.size();) {
      const size_t n = std::min<size_t>(prng.below(200), text.size() - at);
      pieces.feed(std::string_view(text).substr(at, n));
      at += n;
    }
    ASSERT_EQ(pieces.chain(), whole.chain()) << "round " << round;
  }
  std::string changed = text;
  changed[130] = '!';  // in block 2
  ChainHasher other(9, "m", 64);
  other.feed(changed);
  EXPECT_EQ(other.chain()[1], whole.chain()[1]);
  for (size_t i = 2; i < 15; ++i) EXPECT_NE(other.chain()[i], whole.chain()[i]);
  ChainHasher model(9, "n", 64), seed(8, "m", 64);
  model.feed(text);
  seed.feed(text);
  EXPECT_NE(model.chain()[0], whole.chain()[0]);
  EXPECT_NE(seed.chain()[0], whole.chain()[0]);
}

TEST(ChainHasher, BoundsTheChain) {
  ChainHasher hasher(1, "m", 4);
  hasher.feed(std::string(kPrefixBlocksMax * 4 + 100, 'x'));
  EXPECT_EQ(hasher.chain().size(), kPrefixBlocksMax);
  EXPECT_EQ(hasher.bytes(), kPrefixBlocksMax * 4 + 100);
}

TEST(Decide, BurstBetweenTwoScrapesIsSpread) {
  std::vector<Endpoint> endpoints(2);  // both report an empty queue and will not report again during the burst
  std::vector<Load> loads(2);
  for (int i = 0; i < 2; ++i) {
    endpoints[i].role = Role::kDecode;
    endpoints[i].slot = i;
    loads[i].age_ms = 50;
  }
  const auto plan = default_plan();
  Prng prng(3);
  for (int i = 0; i < 100; ++i) {
    const auto verdict = decide({endpoints, loads}, {}, *plan, prng);
    ASSERT_TRUE(verdict) << verdict.error().message;
    ++loads[verdict->primary.ranked.index[0]].inflight_requests;
  }
  EXPECT_NEAR(loads[0].inflight_requests, 50, 1);
}

TEST(Endpoint, WritesAddresses) {
  EXPECT_EQ(host_port("10.0.0.1", 8000), "10.0.0.1:8000");
  EXPECT_EQ(host_port("fe80::1", 8000), "[fe80::1]:8000");
  Role role;
  EXPECT_TRUE(role_from("prefill-decode", role));
  EXPECT_EQ(role, Role::kBoth);
  EXPECT_FALSE(role_from("driver", role));
}

}  // namespace
}  // namespace baton::route
