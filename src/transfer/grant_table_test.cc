// The grant states under a clock of the test's own: lease arithmetic, and random walks that must end every grant exactly once.
#include "transfer/grant_table.h"

#include <gtest/gtest.h>

#include <map>

#include "base/prng.h"

namespace baton::transfer {
namespace {

const kv::KvLayout kLayout{.layers = 1, .kv_heads = 1, .head_dim = 32, .block_tokens = 16};

class Grants : public ::testing::Test {
 protected:
  Token token(uint8_t n) { return Token{n}; }
  void offer(uint8_t n, int64_t now) {
    table.offer(token(n), {.request = n, .blocks = {1, 2}, .n_tokens = 20, .prompt_digest = {n}}, now);
  }
  Result<const GrantTable::Entry*> open(uint8_t n, const std::string& consumer = "d") {
    return table.open({.op = 1, .token = token(n), .digest = {n}, .first_token = 0, .n_tokens = 20}, consumer);
  }
  Metrics metrics;
  Stats stats{metrics, {}};
  std::map<uint64_t, Event::Kind> ended;
  GrantTable table{kLayout, 600, stats,
                   [this](Event e) { EXPECT_TRUE(ended.emplace(e.request, e.kind).second) << "ended twice"; }};
};

TEST_F(Grants, LeaseIsExtendedByTwoThirdsButNeverShortened) {
  offer(1, 1000);
  EXPECT_EQ(table.next_deadline_ms(), 1600);
  EXPECT_TRUE(table.renew(token(1), "d", 1050));
  EXPECT_EQ(table.next_deadline_ms(), 1600);
  EXPECT_TRUE(table.renew(token(1), "d", 1500));
  EXPECT_EQ(table.next_deadline_ms(), 1900);
  table.expire(1899);
  EXPECT_TRUE(ended.empty());
  table.expire(1900);
  EXPECT_EQ(ended[1], Event::Kind::kGrantExpired);
  EXPECT_FALSE(table.renew(token(1), "d", 1901));
}

TEST_F(Grants, FirstConsumerOwns) {
  offer(1, 0);
  EXPECT_TRUE(table.renew(token(1), "d", 1));
  EXPECT_FALSE(table.renew(token(1), "x", 2));
  EXPECT_EQ(open(1, "x").error().code, Code::kPermissionDenied);
  table.decline(token(1), "x");
  EXPECT_TRUE(ended.empty());
  EXPECT_TRUE(open(1, "d"));
  EXPECT_EQ(open(1, "d").error().code, Code::kAlreadyExists);
}

TEST_F(Grants, RevokedReaderIsFencedThenFreed) {
  offer(1, 0);
  ASSERT_TRUE(open(1));
  auto stop = table.revoke(1, 100);
  EXPECT_EQ(stop, std::vector{token(1)});
  EXPECT_TRUE(ended.empty()) << "a reader is inside";
  EXPECT_TRUE(table.revoke(1, 101).empty()) << "told once";
  auto due = table.expire(100'000);
  EXPECT_EQ(due.overdue, std::vector{token(1)});
  table.close(token(1));
  EXPECT_EQ(ended[1], Event::Kind::kGrantReleased);
}

TEST_F(Grants, LeaseEndWhileReadingIsFencedAndCountsAsExpired) {
  offer(1, 0);
  ASSERT_TRUE(open(1));
  auto due = table.expire(600);
  EXPECT_EQ(due.stop, std::vector{token(1)});
  EXPECT_TRUE(ended.empty());
  table.close(token(1));
  EXPECT_EQ(ended[1], Event::Kind::kGrantExpired);
}

TEST_F(Grants, RandomWalksEndEveryGrantOnce) {
  uint64_t seed = secure_random_u64();
  SCOPED_TRACE(cat("seed ", seed));
  Prng prng(seed);
  int64_t now = 0;
  uint8_t offered = 0;
  std::set<Token> reading;
  for (int step = 0; step < 5000; ++step) {
    if (offered < 200 && prng.chance(0.2)) offer(++offered, now);
    auto n = static_cast<uint8_t>(1 + prng.below(offered + 1u));
    switch (prng.below(6)) {
      case 0:
        now += static_cast<int64_t>(prng.below(60));
        break;
      case 1:
        table.renew(token(n), prng.chance(0.8) ? "d" : "x", now);
        break;
      case 2:
        if (open(n)) reading.insert(token(n));
        break;
      case 3:
        table.decline(token(n), "d");
        break;
      case 4:
        for (auto& t : table.revoke(n, now)) EXPECT_TRUE(reading.contains(t));
        break;
      case 5:
        if (!reading.empty()) {
          table.close(*reading.begin());
          reading.erase(reading.begin());
        }
        break;
    }
    for (auto& t : table.expire(now).stop) EXPECT_TRUE(reading.contains(t));
    for (auto& t : reading) EXPECT_FALSE(ended.contains(t[0])) << "freed under its reader";
  }
  for (auto& t : reading) table.close(t);
  table.expire(now + 10'000);
  EXPECT_EQ(ended.size(), offered);
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(stats.retained_bytes.value(), 0);
  EXPECT_EQ(stats.offered.value() + stats.reading.value() + stats.revoking.value(), 0);
}

}  // namespace
}  // namespace baton::transfer
