// FlowQueue: its policies one by one, and against a plain model under random traffic.
#include "route/flow_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/prng.h"
#include "base/result.h"
#include "route/limits.h"

namespace baton::route {
namespace {

using Ticket = FlowQueue::Ticket;
constexpr int64_t kSecond = 1'000'000;

FlowControlParams params(Fairness fairness = Fairness::kGlobalStrict, Ordering ordering = Ordering::kFcfs) {
  FlowControlParams p;
  p.enabled = true;
  p.default_band.fairness = p.default_negative_band.fairness = fairness;
  p.default_band.ordering = p.default_negative_band.ordering = ordering;
  return p;
}

Ticket put(FlowQueue& q, std::string_view flow, int64_t now = 0, int64_t priority = 0, int64_t tokens = 100) {
  return q.enqueue({.priority = priority, .flow = flow, .bytes = 10, .input_tokens = tokens}, now).value_or(0);
}

std::vector<Ticket> drain(FlowQueue& q, int64_t now = 0) {
  std::vector<Ticket> out;
  while (auto d = q.dispatch(now, 0)) out.push_back(d->ticket);
  return out;
}

TEST(FlowQueue, HigherPrioritiesFirst) {
  FlowQueue q(params());
  const Ticket low = put(q, "f", 0, -1), mid = put(q, "f", 1, 0), high = put(q, "f", 2, 7);
  EXPECT_EQ(q.head_priority(), 7);
  EXPECT_THAT(drain(q), testing::ElementsAre(high, mid, low));
  EXPECT_EQ(q.requests(), 0);
  EXPECT_EQ(q.bytes(), 0);
  EXPECT_FALSE(q.head_priority());
}

TEST(FlowQueue, ASaturatedBandStopsThoseBelow) {
  FlowControlParams p = params();
  p.ceiling = Ceiling::kHoldback;
  p.holdback_min = 0.5, p.holdback_max = 1;
  FlowQueue q(p);
  put(q, "f", 0, 0), put(q, "f", 0, 10);
  EXPECT_FALSE(q.dispatch(0, 1.0));
  EXPECT_EQ(q.dispatch(0, 0.9)->priority, 10);
  EXPECT_FALSE(q.dispatch(0, 0.9)) << "the lower band's ceiling is 0.5";
  EXPECT_FALSE(q.dispatch(0, 0.5));
  EXPECT_EQ(q.dispatch(0, 0.49)->priority, 0);
}

// Of what waits in lower bands a share that shrinks with the pool's room goes out; the highest band is not held up at all.
TEST(FlowQueue, SoftReflectiveCeilingsAlternate) {
  FlowControlParams p;
  p.enabled = true;
  p.ceiling = Ceiling::kSoftReflective;
  const auto let_out = [&](double saturation, int64_t priority, int attempts) {
    FlowQueue q(p);
    for (const int64_t other : {10, 0, -10}) (void)q.cancel(*q.enqueue({.priority = other, .flow = "f"}, 0));  // three bands
    int out = 0;
    for (int i = 0; i < attempts; ++i) {
      const auto ticket = q.enqueue({.priority = priority, .flow = "f"}, 0);
      EXPECT_TRUE(ticket);
      if (q.dispatch(0, saturation))
        ++out;
      else
        EXPECT_TRUE(q.cancel(*ticket));
    }
    return out;
  };
  EXPECT_EQ(let_out(0.3, -10, 100), 100) << "below 1 - 0.3";
  EXPECT_EQ(let_out(0.6, 0, 100), 100) << "below 1 - 0.6 / 2";
  EXPECT_EQ(let_out(0.75, -10, 99), 33) << "one in 0.75 / 0.25";
  EXPECT_EQ(let_out(0.9, -10, 90), 10);
  EXPECT_EQ(let_out(0.9, 0, 90), 10) << "0.9 is past 1 - 0.9 / 2 as well";
  EXPECT_EQ(let_out(0.9, 10, 90), 90);
  EXPECT_EQ(let_out(1.0, 10, 10), 0);
}

TEST(FlowQueue, HoldbackByRankAndByValue) {
  FlowControlParams p = params();
  p.ceiling = Ceiling::kHoldback;
  p.holdback_min = 0.2, p.holdback_max = 1;
  FlowQueue rank(p);
  p.holdback_by_rank = false;
  FlowQueue value(p);
  for (FlowQueue* q : {&rank, &value}) put(*q, "f", 0, 0), put(*q, "f", 0, 1), put(*q, "f", 0, 10);
  EXPECT_DOUBLE_EQ(rank.ceiling(1), 0.6);
  EXPECT_NEAR(value.ceiling(1), 0.28, 1e-12);
  EXPECT_DOUBLE_EQ(value.ceiling(0), 0.2);
  EXPECT_DOUBLE_EQ(value.ceiling(10), 1);
}

TEST(FlowQueue, GlobalStrictGoesByArrivalAcrossFlows) {
  FlowQueue q(params());
  const Ticket a1 = put(q, "a", 1), a2 = put(q, "a", 2), b = put(q, "b", 3);
  EXPECT_THAT(drain(q), testing::ElementsAre(a1, a2, b));
}

TEST(FlowQueue, RoundRobinTakesTurns) {
  FlowQueue q(params(Fairness::kRoundRobin));
  const Ticket a1 = put(q, "a"), a2 = put(q, "a"), a3 = put(q, "a"), b1 = put(q, "b"), b2 = put(q, "b"), c = put(q, "c");
  EXPECT_THAT(drain(q), testing::ElementsAre(a1, b1, c, a2, b2, a3));
}

TEST(FlowQueue, EarliestDeadlineFirst) {
  FlowQueue q(params(Fairness::kGlobalStrict, Ordering::kEdf));
  const Ticket late = *q.enqueue({.flow = "f", .ttl_ms = 5'000}, 0), soon = *q.enqueue({.flow = "f", .ttl_ms = 1'000}, 10);
  const Ticket never = *q.enqueue({.flow = "f", .ttl_ms = 0}, 20);
  EXPECT_THAT(drain(q), testing::ElementsAre(soon, late, never));
}

TEST(FlowQueue, SloDeadline) {
  FlowQueue q(params(Fairness::kGlobalStrict, Ordering::kSloDeadline));
  const Ticket none = *q.enqueue({.flow = "f"}, 0), slow = *q.enqueue({.flow = "f", .ttft_slo_ms = 900}, 0);
  const Ticket fast = *q.enqueue({.flow = "f", .ttft_slo_ms = 300}, 100'000);
  EXPECT_THAT(drain(q), testing::ElementsAre(fast, slow, none));
}

TEST(FlowQueue, TokenWeightedSharesByTokensAndWeight) {
  FlowControlParams p = params(Fairness::kTokenWeighted);
  p.tenant_weights = {{"heavy", 3}};
  p.default_band.requests_max = 0;
  FlowQueue q(p);
  std::map<Ticket, std::string> whose;
  std::map<std::string, int64_t> tokens;
  for (int i = 0; i < 400; ++i) {  // one tenant sends long prompts, one short ones, one pays for three shares
    whose[put(q, "long", 0, 0, 1'000)] = "long";
    for (int k = 0; k < 10; ++k) whose[put(q, "short", 0, 0, 100)] = "short";
    for (int k = 0; k < 10; ++k) whose[put(q, "heavy", 0, 0, 100)] = "heavy";
  }
  for (int i = 0; i < 2'000; ++i) {
    const std::string flow = whose.at(q.dispatch(0, 0)->ticket);
    tokens[flow] += flow == "long" ? 1'000 : 100;
  }
  EXPECT_NEAR(static_cast<double>(tokens["long"]) / static_cast<double>(tokens["short"]), 1, 0.05);
  EXPECT_NEAR(static_cast<double>(tokens["heavy"]) / static_cast<double>(tokens["short"]), 3, 0.15);
  EXPECT_GT(q.fairness_index(0, 0), 0.99) << "equal in shares";
}

TEST(FlowQueue, TokenWeightedCountsAnswers) {
  FlowQueue q(params(Fairness::kTokenWeighted));
  const Ticket a1 = put(q, "a"), b1 = put(q, "b"), a2 = put(q, "a"), b2 = put(q, "b");
  EXPECT_EQ(q.dispatch(0, 0)->ticket, a1);
  EXPECT_EQ(q.dispatch(0, 0)->ticket, b1);
  q.served(0, "a", 100, 500, 0);
  EXPECT_EQ(q.dispatch(0, 0)->ticket, b2) << "a's answer was long";
  EXPECT_EQ(q.dispatch(0, 0)->ticket, a2);
}

TEST(FlowQueue, AnIdleTenantSavesNothingUp) {
  FlowQueue q(params(Fairness::kTokenWeighted));
  for (int i = 0; i < 100; ++i) put(q, "busy");
  for (int i = 0; i < 50; ++i) q.dispatch(0, 0);
  for (int i = 0; i < 50; ++i) put(q, "back");  // comes when busy has had 5,000 tokens
  int back = 0;
  for (int i = 0; i < 20; ++i) back += q.dispatch(0, 0)->ticket > 100;
  EXPECT_NEAR(back, 10, 1) << "half, not all";
}

TEST(FlowQueue, ProgramAwareServesTheOneThatHadLeast) {
  FlowQueue q(params(Fairness::kProgramAware));
  put(q, "a"), put(q, "b");
  drain(q);
  q.served(0, "a", 1'000, 1'000, 0);
  q.served(0, "b", 10, 10, 0);
  const Ticket a = put(q, "a", 0), b = put(q, "b", 0);
  EXPECT_THAT(drain(q, 0), testing::ElementsAre(b, a));
  // After many half-lives what was attained weighs nothing next to what comes new.
  const int64_t later = 3'000 * kSecond;
  put(q, "a", later), put(q, "b", later);
  drain(q, later);
  q.served(0, "b", 100, 0, later);
  const Ticket a2 = put(q, "a", later), b2 = put(q, "b", later);
  EXPECT_THAT(drain(q, later), testing::ElementsAre(a2, b2));
}

TEST(FlowQueue, ExpiresWhatWaitedTooLong) {
  FlowControlParams p = params();
  p.ttl_ms = 1'000, p.no_endpoint_ttl_ms = 5'000;
  FlowQueue q(p);
  const Ticket a = put(q, "f", 0), b = *q.enqueue({.flow = "f", .ttl_ms = 3'000}, 0);
  EXPECT_EQ(q.next_expiry_us(false), kSecond);
  EXPECT_EQ(q.next_expiry_us(true), 5 * kSecond);
  std::vector<Ticket> gone;
  q.expire(kSecond - 1, false, gone);
  EXPECT_TRUE(gone.empty());
  q.expire(2 * kSecond, true, gone);
  EXPECT_TRUE(gone.empty()) << "with an empty pool they wait longer";
  q.expire(2 * kSecond, false, gone);
  EXPECT_THAT(gone, testing::ElementsAre(a));
  EXPECT_FALSE(q.cancel(a));
  EXPECT_TRUE(q.cancel(b));
  EXPECT_EQ(q.next_expiry_us(false), INT64_MAX);
}

TEST(FlowQueue, RefusesBeyondItsLimits) {
  FlowControlParams p = params();
  p.requests_max = 3;
  p.bands.push_back({.priority = 5, .bytes_max = 25, .requests_max = 2});
  FlowQueue q(p);
  EXPECT_TRUE(q.enqueue({.priority = 5, .flow = "f", .bytes = 20}, 0));
  EXPECT_EQ(q.enqueue({.priority = 5, .flow = "f", .bytes = 6}, 0).error(), FlowRefusal::kBandFull);
  EXPECT_TRUE(q.enqueue({.priority = 5, .flow = "f", .bytes = 5}, 0));
  EXPECT_EQ(q.enqueue({.priority = 5, .flow = "f"}, 0).error(), FlowRefusal::kBandFull);
  EXPECT_TRUE(q.enqueue({.flow = "f"}, 0));
  EXPECT_EQ(q.enqueue({.flow = "f"}, 0).error(), FlowRefusal::kQueueFull);
}

TEST(FlowQueue, BoundsFlowsAndForgetsTheIdle) {
  FlowControlParams p = params();
  p.default_band.requests_max = 0;
  FlowQueue q(p);
  for (size_t i = 0; i < kFlowsMax; ++i) ASSERT_NE(put(q, cat("flow-", i)), 0u);
  EXPECT_EQ(q.enqueue({.flow = "one-more"}, 0).error(), FlowRefusal::kTooManyFlows);
  q.dispatch(0, 0);  // one is idle now and makes room
  EXPECT_TRUE(q.enqueue({.flow = "one-more"}, 0));
  drain(q);
  std::vector<Ticket> gone;
  q.expire(301 * kSecond, false, gone);
  EXPECT_TRUE(q.bands().empty());
}

TEST(FlowQueue, EvictsTheLowestAndNewestAndNoMoreThanTwo) {
  FlowControlParams p = params();
  p.eviction = true;
  FlowQueue q(p);
  q.started(1, 0, 0), q.started(2, -1, 10), q.started(3, -5, 20), q.started(4, -5, 30), q.started(5, -5, 40);
  EXPECT_THAT(q.evict(0, 100), testing::ElementsAre(5, 4));
  EXPECT_TRUE(q.evict(0, 200).empty()) << "two are on their way out";
  q.ended(5);
  EXPECT_THAT(q.evict(0, 300), testing::ElementsAre(3));
  q.ended(4), q.ended(3);
  EXPECT_TRUE(q.evict(-1, 400).empty()) << "never for the sake of an equal";
  EXPECT_THAT(q.evict(3, 500), testing::ElementsAre(2));
  EXPECT_THAT(q.evict(3, 500 + 11 * kSecond), testing::ElementsAre(2)) << "nobody confirmed it";
  q.ended(2);
  EXPECT_TRUE(q.evict(9, 0).empty()) << "priority 0 is never evicted";
}

TEST(FlowQueue, WhoStartsSinceIsNotEvictedBesideTwoOnTheirWay) {
  FlowControlParams p = params();
  p.eviction = true;
  FlowQueue q(p);
  q.started(1, -1, 0), q.started(2, -1, 10);
  EXPECT_THAT(q.evict(0, 100), testing::ElementsAre(2, 1));
  q.started(3, -1, 110);  // newer
  EXPECT_TRUE(q.evict(0, 120).empty());
  q.started(4, -9, 130);  // lower
  EXPECT_TRUE(q.evict(0, 140).empty());
  q.ended(1), q.started(1, -9, 150);  // the same id again is another request
  EXPECT_THAT(q.evict(0, 160), testing::ElementsAre(1));
  EXPECT_TRUE(q.evict(0, 100 + 9 * kSecond).empty());
  EXPECT_THAT(q.evict(0, 100 + 10 * kSecond), testing::ElementsAre(4)) << "2 was never confirmed";
}

// Against what its contract says, over random histories.
TEST(FlowQueueProperty, NeverMoreThanTwoAreOnTheirWayOut) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    FlowControlParams p = params();
    p.eviction = true;
    FlowQueue q(p);
    std::map<uint64_t, int64_t> running, revoked;  // id -> priority, when
    int64_t now = 0;
    for (uint64_t id = 1; id <= 300; ++id) {
      now += prng.between(0, 1'000'000);
      running[id] = prng.between(-5, 1);
      q.started(id, running[id], now);
      if (prng.chance(0.4)) {
        const uint64_t gone = std::next(running.begin(), static_cast<ptrdiff_t>(prng.below(running.size())))->first;
        q.ended(gone);
        running.erase(gone), revoked.erase(gone);
      }
      const int64_t priority = prng.between(-4, 2);
      std::erase_if(revoked, [&](const auto& r) { return now - r.second >= 10 * kSecond; });
      size_t could = 0;
      for (const auto& [other, of] : running) could += of < 0 && of < priority && !revoked.contains(other);
      const size_t expected = std::min(could, 2 - revoked.size());
      const auto named = q.evict(priority, now);
      ASSERT_EQ(named.size(), expected);
      for (const uint64_t other : named) {
        ASSERT_TRUE(running.contains(other) && running[other] < std::min<int64_t>(0, priority));
        ASSERT_TRUE(revoked.emplace(other, now).second);
      }
    }
  }
}

TEST(FlowQueue, ReloadKeepsWhatWaits) {
  FlowQueue q(params(Fairness::kGlobalStrict));
  const Ticket a1 = put(q, "a"), a2 = put(q, "a"), b = put(q, "b");
  q.set_params(params(Fairness::kRoundRobin));
  EXPECT_THAT(drain(q), testing::ElementsAre(a1, b, a2));
}

TEST(FlowQueueProperty, EveryTicketLeavesExactlyOnce) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    auto random_params = [&] {
      FlowControlParams p = params(static_cast<Fairness>(prng.below(4)), static_cast<Ordering>(prng.below(3)));
      p.requests_max = prng.between(0, 40), p.ttl_ms = prng.between(0, 50);
      if (prng.chance(0.5)) p.no_endpoint_ttl_ms = prng.between(0, 50);
      p.default_band.requests_max = prng.between(0, 20);
      return p;
    };
    FlowQueue q(random_params());
    std::map<Ticket, int64_t> waiting;  // -> priority
    int64_t now = 0;
    for (int step = 0; step < 600; ++step) {
      now += prng.between(0, 4'000);
      switch (prng.below(8)) {
        case 0:
        case 1:
        case 2: {
          const int64_t priority = prng.between(-1, 2);
          const auto t = q.enqueue({.priority = priority,
                                    .flow = cat("f", prng.below(5)),
                                    .bytes = prng.between(0, 9),
                                    .input_tokens = prng.between(0, 99),
                                    .ttl_ms = prng.between(-1, 20),
                                    .ttft_slo_ms = prng.uniform() * 10},
                                   now);
          if (t) EXPECT_TRUE(waiting.emplace(*t, priority).second);
          break;
        }
        case 3:
        case 4: {
          const auto d = q.dispatch(now, prng.uniform() * 1.2);
          if (!d) break;
          int64_t highest = INT64_MIN;
          for (const auto& [t, priority] : waiting) highest = std::max(highest, priority);
          EXPECT_EQ(d->priority, highest);
          EXPECT_EQ(waiting.erase(d->ticket), 1u);
          break;
        }
        case 5: {
          std::vector<Ticket> gone;
          const bool empty = prng.chance(0.3);
          const int64_t due = q.next_expiry_us(empty);
          q.expire(now, empty, gone);
          EXPECT_EQ(gone.empty(), due > now);
          for (Ticket t : gone) EXPECT_EQ(waiting.erase(t), 1u);
          break;
        }
        case 6:
          if (!waiting.empty()) {
            const Ticket t = waiting.begin()->first;
            EXPECT_TRUE(q.cancel(t));
            waiting.erase(t);
          }
          break;
        case 7:
          q.served(prng.between(-1, 2), cat("f", prng.below(5)), prng.between(0, 99), prng.between(0, 99), now);
          if (prng.chance(0.05)) q.set_params(random_params());
          break;
      }
      ASSERT_EQ(q.requests(), static_cast<int64_t>(waiting.size()));
    }
    std::vector<Ticket> rest;
    q.flush(rest);
    for (Ticket t : rest) EXPECT_EQ(waiting.erase(t), 1u);
    EXPECT_TRUE(waiting.empty());
    EXPECT_EQ(q.bytes(), 0);
  }
}

}  // namespace
}  // namespace baton::route
