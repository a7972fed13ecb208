// Two and three nodes in one process over loopback, both transports: what must arrive arrives whole, what must not is refused
// with its reason, and every grant and fetch ends exactly once.
#include "transfer/transfer.h"

#include <gtest/gtest.h>

#include "transfer/testing/cluster.h"

namespace baton::transfer {
namespace {

using testing::Cluster;
using testing::TestNode;

class Transfer : public ::testing::TestWithParam<const char*> {
 protected:
  std::string transport() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Paths, Transfer, ::testing::Values("shm", "tcp"), [](const auto& p) { return std::string(p.param); });

TEST_P(Transfer, MovesRandomBlockListsWithPartialLastBlock) {
  uint64_t seed = secure_random_u64();
  SCOPED_TRACE(cat("seed ", seed));
  Prng prng(seed);
  Cluster cluster({.transport = transport()});
  auto& p = cluster.add();
  auto& d = cluster.add({&p});
  for (int round = 0; round < 30; ++round) {
    auto offered = p.offer_random(prng, round);
    auto blocks = static_cast<int32_t>(offered.blocks.size());
    auto first = static_cast<int32_t>(prng.below(static_cast<uint64_t>(blocks))) * d.layout.block_tokens;
    auto fetch = d.fetch_for(prng, offered, first, offered.n_tokens - first);
    d.node->fetch(fetch);
    auto event = d.next(Event::Kind::kFetched);
    ASSERT_FALSE(event.error) << event.error->message;
    EXPECT_EQ(event.valid_tokens, fetch.n_tokens);
    EXPECT_EQ(event.transport, transport());
    EXPECT_TRUE(d.holds(fetch, offered, p, event.valid_tokens));
    EXPECT_EQ(p.next(Event::Kind::kGrantReleased).request, offered.request);
  }
  EXPECT_EQ(p.node->grants_live(), 0);
}

}  // namespace
}  // namespace baton::transfer
