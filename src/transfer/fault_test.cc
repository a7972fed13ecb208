// Random faults at random byte positions between two nodes. Whatever happens: exactly one kFetched a fetch, the destination is
// right for valid_tokens, every grant ends exactly once, and the pair works again afterwards. A failure is its seed.
#include <gtest/gtest.h>

#include <map>

#include "transfer/testing/cluster.h"
#include "transfer/testing/fault_proxy.h"

namespace baton::transfer {
namespace {

using testing::Cluster;
using testing::Fault;
using testing::FaultProxy;
using testing::NodeSetup;
using Kind = Event::Kind;

constexpr int kRounds = 25;

class Faults : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Paths, Faults, ::testing::ValuesIn(testing::all_paths()), [](const auto& p) { return p.param; });

Fault random_fault(Prng& prng) {
  // Half of them early, where the frames of the protocol are, half anywhere in the blocks.
  auto after = prng.chance(0.5) ? prng.below(400) : prng.below(300'000);
  return {.kind = static_cast<Fault::Kind>(prng.below(5)),
          .to_consumer = prng.chance(0.7),
          .after = after,
          .length = 1 + prng.below(2000)};
}

TEST_P(Faults, InvariantsHoldUnderThem) {
  uint64_t seed = secure_random_u64();
  SCOPED_TRACE(cat("seed ", seed));
  Prng prng(seed);
  NodeSetup setup{.transport = GetParam(), .lease_ms = 300, .fetch_timeout_ms = 200};
  Cluster cluster(setup);
  auto& p = cluster.add();
  FaultProxy proxy(p.node->port(), seed);
  auto& d = cluster.add(setup, {proxy.address()});
  int complete = 0, partial = 0, failed = 0;
  uint64_t request = 0;
  for (int round = 0; round < kRounds; ++round) {
    auto fault = random_fault(prng);
    SCOPED_TRACE(cat("round ", round, ": ", testing::describe(fault)));
    ASSERT_TRUE(d.wait_peer(proxy.address(), "connected")) << d.peer(proxy.address()).detail;
    std::map<uint64_t, std::pair<testing::Offered, Fetch>> open;
    int32_t next_block = 0;
    proxy.arm(fault);
    for (int i = 0; i < 4; ++i) {
      auto offered = p.offer_random(prng, ++request);
      std::vector<int32_t> to;  // no destination twice: the fetches run at the same time
      while (to.size() < offered.blocks.size()) to.push_back(next_block++);
      auto fetch = d.fetch_into(offered, 0, offered.n_tokens, to);
      fetch.grant.port = proxy.port();
      open.emplace(request, std::pair{offered, fetch});
      if (prng.chance(0.3)) d.node->hold(fetch.grant);
      d.node->fetch(fetch);
      if (prng.chance(0.2)) d.node->cancel(request);
    }
    for (auto& [id, pair] : open) {
      auto event = d.next_of(id, Kind::kFetched);
      ASSERT_TRUE(event) << "no event for fetch " << id;
      auto& [offered, fetch] = pair;
      ASSERT_LE(event->valid_tokens, fetch.n_tokens);
      EXPECT_TRUE(event->error || event->valid_tokens == fetch.n_tokens);
      EXPECT_TRUE(d.holds(fetch, offered, p, event->valid_tokens)) << (event->error ? event->error->message : "no error");
      ++(!event->error ? complete : event->valid_tokens > 0 ? partial : failed);
    }
    proxy.clear();
    for (auto& [id, pair] : open) {
      auto released = p.next_of(id, Kind::kGrantReleased, p.node->grants_live() == 0 ? 0 : 2'000);
      EXPECT_TRUE(released || p.next_of(id, Kind::kGrantExpired)) << "grant " << id << " did not end";
    }
    ASSERT_EQ(p.node->grants_live(), 0);
    EXPECT_EQ(d.kept(Kind::kFetched), 0u);
    EXPECT_EQ(p.kept(Kind::kGrantReleased) + p.kept(Kind::kGrantExpired), 0u);
  }
  RecordProperty("complete", complete);
  RecordProperty("partial", partial);
  RecordProperty("failed", failed);
  EXPECT_GT(complete, 0);
  EXPECT_GT(failed + partial, 0);
}

}  // namespace
}  // namespace baton::transfer
