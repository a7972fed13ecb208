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
  bool promise(uint8_t n) { return table.promise(token(n), {.request = n, .blocks = {}, .n_tokens = 20, .prompt_digest = {n}}); }
  Result<const GrantTable::Entry*> open(uint8_t n, const std::string& consumer = "d", int64_t now = 0, uint16_t rank = 0,
                                        uint16_t readers = 1) {
    return table.open({.op = 1, .token = token(n), .digest = {n}, .first_token = 0, .n_tokens = 20, .readers = readers}, consumer,
                      rank, now);
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

TEST_F(Grants, RanksOfOneEngineReadOnceEach) {
  offer(1, 0);
  ASSERT_TRUE(open(1, "d", 0, 0, 3));
  EXPECT_EQ(open(1, "d", 0, 0, 3).error().code, Code::kAlreadyExists) << "the same rank again";
  EXPECT_EQ(open(1, "d", 0, 1, 4).error().code, Code::kInvalidArgument) << "they do not agree";
  EXPECT_EQ(open(1, "x", 0, 1, 3).error().code, Code::kPermissionDenied);
  table.close(token(1));
  EXPECT_TRUE(ended.empty()) << "two are to come";
  ASSERT_TRUE(open(1, "d", 0, 2, 3));
  ASSERT_TRUE(open(1, "d", 0, 1, 3));
  EXPECT_EQ(open(1, "d", 0, 3, 3).error().code, Code::kAlreadyExists) << "one too many";
  table.close(token(1));
  EXPECT_TRUE(ended.empty());
  table.close(token(1));
  EXPECT_EQ(ended[1], Event::Kind::kGrantReleased);
  // Between two readers nobody is inside: the end of the lease frees at once.
  offer(2, 0);
  ASSERT_TRUE(open(2, "d", 0, 0, 2));
  table.close(token(2));
  EXPECT_TRUE(table.expire(600).stop.empty());
  EXPECT_EQ(ended[2], Event::Kind::kGrantExpired);
  offer(3, 0);
  EXPECT_FALSE(open(3, "d", 0, 0, 0));
  EXPECT_FALSE(open(3, "d", 0, 0, kReadersMax + 1));
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

TEST_F(Grants, APromiseHasNoLeaseUntilItIsComplete) {
  ASSERT_TRUE(promise(1));
  EXPECT_EQ(table.next_deadline_ms(), INT64_MAX);
  EXPECT_TRUE(table.renew(token(1), "d", 50));
  EXPECT_EQ(table.next_deadline_ms(), INT64_MAX);
  EXPECT_EQ(open(1, "x").error().code, Code::kPermissionDenied) << "the first to renew owns it";
  table.expire(1'000'000);
  EXPECT_TRUE(ended.empty());
  table.progress(1, {1, 2}, 0);
  EXPECT_TRUE(table.complete(1, {}, 1'000'000).empty()) << "nobody reads";
  EXPECT_EQ(table.next_deadline_ms(), 1'000'600);
  table.expire(1'000'600);
  EXPECT_EQ(ended[1], Event::Kind::kGrantExpired);
}

TEST_F(Grants, BlocksOfAPromiseAreReadyWhenTheyAreFull) {
  ASSERT_TRUE(promise(1));
  auto entry = open(1, "d", 100);
  ASSERT_TRUE(entry);
  EXPECT_EQ(table.next_deadline_ms(), 700) << "a reader must show that it lives";
  EXPECT_EQ(table.ready_blocks(**entry), 0u);
  EXPECT_EQ(table.progress(1, {5, 6}, 15), std::vector{token(1)});
  EXPECT_EQ(table.ready_blocks(**entry), 0u);
  EXPECT_EQ(stats.retained_bytes.value(), 2.0 * static_cast<double>(kLayout.block_bytes()));
  table.progress(1, {}, 16);
  EXPECT_EQ(table.ready_blocks(**entry), 1u);
  table.progress(1, {}, 3);  // never back
  EXPECT_EQ(table.ready_blocks(**entry), 1u);
  table.progress(1, {}, 20);
  EXPECT_EQ(table.ready_blocks(**entry), 1u) << "the last block is not full";
  EXPECT_EQ(table.complete(1, {.first_token = 7}, 200), std::vector{token(1)});
  EXPECT_EQ(table.ready_blocks(**entry), 2u);
  EXPECT_EQ((*entry)->completion.first_token, 7);
  EXPECT_EQ((*entry)->offer.blocks, (std::vector{5, 6}));
  table.close(token(1));
  EXPECT_EQ(ended[1], Event::Kind::kGrantReleased);
}

TEST_F(Grants, ATokenIsGoodForOnePromise) {
  ASSERT_TRUE(promise(1));
  table.revoke(1, 0);
  EXPECT_EQ(ended.count(1), 1u);
  ended.clear();
  EXPECT_FALSE(promise(1));
  EXPECT_EQ(ended[1], Event::Kind::kGrantReleased) << "a promise under a used token ends at once";
  EXPECT_TRUE(table.ended(token(1)));
  table.decline(token(2), "d");  // before its prefill began
  EXPECT_FALSE(promise(2));
  EXPECT_EQ(table.size(), 0u);
}

TEST_F(Grants, EndedTokensAreForgottenOldestFirst) {
  table.remember(token(1));
  for (size_t i = 0; i < kEndedTokensMax; ++i) {
    Token t{};
    std::memcpy(t.data() + 8, &i, sizeof i);
    t[0] = 200;
    table.remember(t);
  }
  EXPECT_FALSE(table.ended(token(1)));
}

TEST_F(Grants, RandomWalksEndEveryGrantOnce) {
  uint64_t seed = secure_random_u64();
  SCOPED_TRACE(cat("seed ", seed));
  Prng prng(seed);
  int64_t now = 0;
  uint8_t offered = 0;
  std::set<Token> reading;
  for (int step = 0; step < 5000; ++step) {
    if (offered < 200 && prng.chance(0.2)) {
      if (prng.chance(0.5)) {
        offer(++offered, now);
      } else {
        promise(++offered);  // refused if its token was declined before
      }
    }
    auto n = static_cast<uint8_t>(1 + prng.below(offered + 1u));
    switch (prng.below(8)) {
      case 0:
        now += static_cast<int64_t>(prng.below(60));
        break;
      case 1:
        table.renew(token(n), prng.chance(0.8) ? "d" : "x", now);
        break;
      case 2:
        if (open(n, "d", now)) reading.insert(token(n));
        break;
      case 6:
        for (auto& t : table.progress(n, {1, 2}, static_cast<int32_t>(prng.below(25)))) EXPECT_TRUE(reading.contains(t));
        break;
      case 7:
        table.progress(n, {1, 2}, 0);
        for (auto& t : table.complete(n, {}, now)) EXPECT_TRUE(reading.contains(t));
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
  for (uint8_t n = 1; n <= offered; ++n) {  // what is still a promise has no lease
    table.progress(n, {1, 2}, 0);
    table.complete(n, {}, now);
  }
  table.expire(now + 10'000);
  EXPECT_EQ(ended.size(), offered);
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(stats.retained_bytes.value(), 0);
  EXPECT_EQ(stats.computing.value() + stats.offered.value() + stats.reading.value() + stats.revoking.value(), 0);
}

}  // namespace
}  // namespace baton::transfer
