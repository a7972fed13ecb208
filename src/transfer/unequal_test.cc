// Engines of unequal shape: other tensor and pipeline parallelism, block sizes and tile orders. Every byte that lands is judged
// by the plain model of memory, and every grant ends once however many ranks read it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kv/testing/memory_model.h"
#include "transfer/testing/cluster.h"
#include "transfer/testing/fault_proxy.h"

namespace baton::transfer {
namespace {

using testing::Cluster;
using testing::TestNode;
using Kind = Event::Kind;

constexpr int32_t kTokens = 75;

struct Shape {
  int tp = 1, pp = 1;
  int32_t block_tokens = 16;
  kv::TileOrder order = kv::TileOrder::kTokenMajor;
};

class Unequal : public ::testing::TestWithParam<std::string> {
 protected:
  std::vector<kv::KvShard> ranks(const Shape& s) const {
    auto m = model;
    m.block_tokens = s.block_tokens;
    m.tile_order = s.order;
    return *kv::shards_of(m, s.tp, s.pp);
  }
  // What the ranks of a producer hold: the model's elements in its own shapes and places.
  std::vector<Fetch> offer(const std::vector<TestNode*>& p, const std::vector<kv::KvShard>& shards, uint64_t request) {
    std::vector<Grant> grants;
    Digest digest{static_cast<uint8_t>(request)};
    for (size_t r = 0; r < p.size(); ++r) {
      auto bt = shards[r].layout.block_tokens;
      auto rank = kv::testing::make_rank(prng, shards[r], 0, static_cast<size_t>((kTokens + bt - 1) / bt));
      kv::testing::fill(rank);
      std::memcpy(p[r]->pool.bytes().data(), rank.pool.data(), rank.pool.size());
      grants.push_back(p[r]->node->offer({request, rank.blocks, kTokens, digest}));
    }
    Fetch fetch{.request = request,
                .grant = grants[0],
                .more = {grants.begin() + 1, grants.end()},
                .prompt_digest = digest,
                .blocks = {}};
    return {fetch};
  }
  struct Wanted {
    kv::testing::Rank rank;
    Fetch fetch;
  };
  // d's part of tokens [first, kTokens).
  Wanted want(TestNode& d, const kv::KvShard& shard, Fetch fetch, int32_t first) {
    auto bt = shard.layout.block_tokens;
    fetch.first_token = first / bt * bt;
    fetch.n_tokens = kTokens - fetch.first_token;
    auto rank = kv::testing::make_rank(prng, shard, fetch.first_token, static_cast<size_t>((fetch.n_tokens + bt - 1) / bt));
    fetch.blocks = rank.blocks;
    std::memset(d.pool.bytes().data(), static_cast<int>(kv::testing::kUntouched), d.pool.bytes().size());
    return {std::move(rank), std::move(fetch)};
  }
  // The first `valid` tokens are right, and nothing outside the destination's blocks was touched.
  void judge(TestNode& d, const Wanted& w, int32_t valid) {
    auto bytes = d.pool.bytes();
    size_t wrong = 0;
    kv::testing::for_each_element(w.rank, w.fetch.first_token, w.fetch.first_token + valid, [&](size_t at, uint32_t value, size_t n) {
      wrong += std::memcmp(bytes.data() + at, &value, n) != 0;
    });
    EXPECT_EQ(wrong, 0u) << "elements";
    for (size_t b = 0; (b + 1) * d.layout.block_bytes() <= bytes.size(); ++b) {
      if (std::find(w.fetch.blocks.begin(), w.fetch.blocks.end(), static_cast<int32_t>(b)) != w.fetch.blocks.end()) continue;
      for (auto byte : d.block(static_cast<int32_t>(b))) wrong += byte != kv::testing::kUntouched;
    }
    EXPECT_EQ(wrong, 0u) << "bytes of blocks that were not asked for";
  }
  void expect_moves(const Shape& ps, const Shape& ds, int32_t first) {
    SCOPED_TRACE(
        cat("P", ps.tp, "x", ps.pp, " b", ps.block_tokens, " -> D", ds.tp, "x", ds.pp, " b", ds.block_tokens, " from ", first));
    Cluster cluster({.transport = GetParam(), .blocks = 64});
    auto p_shards = ranks(ps), d_shards = ranks(ds);
    auto p = cluster.add_engine("p", p_shards);
    auto d = cluster.add_engine("d", d_shards, p);
    auto fetch = offer(p, p_shards, 7)[0];
    std::vector<Wanted> wanted;
    for (size_t r = 0; r < d.size(); ++r) {
      wanted.push_back(want(*d[r], d_shards[r], fetch, first));
      d[r]->node->fetch(wanted[r].fetch);
    }
    for (size_t r = 0; r < d.size(); ++r) {
      auto event = d[r]->next(Kind::kFetched);
      ASSERT_FALSE(event.error) << event.error->message;
      EXPECT_EQ(event.valid_tokens, wanted[r].fetch.n_tokens);
      EXPECT_EQ(event.transport, GetParam());
      judge(*d[r], wanted[r], event.valid_tokens);
    }
    for (auto* rank : p) {
      EXPECT_EQ(rank->next(Kind::kGrantReleased).request, 7u);
      EXPECT_EQ(rank->node->grants_live(), 0);
    }
  }
  kv::KvLayout model{.layers = 3, .kv_heads = 4, .head_dim = 8};
  uint64_t seed = secure_random_u64();
  ::testing::ScopedTrace trace{__FILE__, __LINE__, cat("seed ", seed)};
  Prng prng{seed};
};
INSTANTIATE_TEST_SUITE_P(Paths, Unequal, ::testing::ValuesIn(testing::all_paths()), [](const auto& p) { return p.param; });

TEST_P(Unequal, TensorParallelism) {
  for (auto [p, d] : {std::pair{1, 2}, {2, 1}, {1, 4}, {4, 1}, {2, 4}, {8, 1}, {2, 8}}) expect_moves({.tp = p}, {.tp = d}, 0);
}

TEST_P(Unequal, BlockSizesAndOrders) {
  for (auto [p, d] : {std::pair{16, 32}, {32, 16}, {16, 24}, {128, 4}}) {
    expect_moves({.block_tokens = p}, {.block_tokens = d}, 0);
    expect_moves({.block_tokens = p}, {.block_tokens = d}, 48);
    expect_moves({.tp = 2, .block_tokens = p, .order = kv::TileOrder::kVnni}, {.tp = 1, .block_tokens = d}, 24);
  }
  expect_moves({.order = kv::TileOrder::kVnni}, {.block_tokens = 8, .order = kv::TileOrder::kVnni}, 40);
}

// One byte an element, scales behind each head's: they arrive with their heads and tokens.
TEST_P(Unequal, ScalesOfEightBitCaches) {
  model.dtype = kv::KvDtype::kI8Scaled;
  expect_moves({}, {}, 0);
  expect_moves({.tp = 2, .order = kv::TileOrder::kVnni}, {.tp = 4, .block_tokens = 32, .order = kv::TileOrder::kVnni}, 0);
  expect_moves({.tp = 4, .pp = 3}, {.order = kv::TileOrder::kVnni}, 16);
}

TEST_P(Unequal, PipelineParallelism) {
  expect_moves({.tp = 2, .pp = 3}, {}, 0);
  expect_moves({}, {.tp = 2, .pp = 2}, 16);
}

// Not enough ranks, a rank that is not there, and one that goes away in the middle: one event, and no grant is left behind.
TEST_P(Unequal, PartsThatFailFailTheWholeOnce) {
  Cluster cluster({.transport = GetParam(), .blocks = 64});
  auto shards = ranks({.tp = 2});
  auto p = cluster.add_engine("p", shards);
  auto& d = *cluster.add_engine("d", ranks({}), p)[0];
  auto fetch = offer(p, shards, 1)[0];
  auto w = want(d, ranks({})[0], fetch, 0);
  auto half = w.fetch;
  half.more.clear();
  d.node->fetch(half);
  auto event = d.next(Kind::kFetched);
  ASSERT_TRUE(event.error);
  EXPECT_EQ(event.error->code, Code::kFailedPrecondition) << event.error->message;
  EXPECT_EQ(p[0]->next(Kind::kGrantReleased).request, 1u);
  p[1]->node->release(1);
  EXPECT_EQ(p[1]->next(Kind::kGrantReleased).request, 1u);

  w = want(d, ranks({})[0], offer(p, shards, 2)[0], 0);
  p[1]->node->release(2);  // before the consumer comes: its part is refused, the other one is stopped or read for nothing
  EXPECT_EQ(p[1]->next(Kind::kGrantReleased).request, 2u);
  d.node->fetch(w.fetch);
  event = d.next(Kind::kFetched);
  ASSERT_TRUE(event.error);
  EXPECT_EQ(event.error->code, Code::kNotFound) << event.error->message;
  EXPECT_EQ(event.valid_tokens, 0);
  EXPECT_EQ(p[0]->next(Kind::kGrantReleased).request, 2u);

  auto gone = p[1]->address();
  fetch = offer(p, shards, 3)[0];
  cluster.kill(*p[1]);
  ASSERT_TRUE(d.wait_peer(gone, "connecting"));
  d.node->fetch(want(d, ranks({})[0], fetch, 0).fetch);
  event = d.next(Kind::kFetched);
  ASSERT_TRUE(event.error);
  EXPECT_EQ(event.error->code, Code::kUnavailable) << event.error->message;
  EXPECT_EQ(p[0]->next(Kind::kGrantReleased).request, 3u) << "declined: nobody will come for it";
}

// Bits that flip on the way are caught before a byte of the pool is written.
TEST_P(Unequal, CorruptChunksNeverReachThePool) {
  if (GetParam() != "tcp") GTEST_SKIP() << "a proxy cannot touch shared memory";
  Cluster cluster({.transport = "tcp", .blocks = 64});
  auto shards = ranks({.block_tokens = 32});
  auto p = cluster.add_engine("p", shards);
  testing::FaultProxy proxy(p[0]->node->port(), seed);
  auto& d = cluster.add({.transport = "tcp", .layout = ranks({})[0].layout, .blocks = 64}, {proxy.address()});
  ASSERT_TRUE(d.wait_peer(proxy.address(), "connected"));
  auto w = want(d, ranks({})[0], offer(p, shards, 1)[0], 0);
  proxy.arm({.kind = testing::Fault::Kind::kFlip, .after = 600});
  d.node->fetch(w.fetch);
  EXPECT_TRUE(proxy.wait_triggered());
  auto event = d.next(Kind::kFetched);
  ASSERT_TRUE(event.error);
  EXPECT_LT(event.valid_tokens, w.fetch.n_tokens);
  judge(d, w, event.valid_tokens);
}

}  // namespace
}  // namespace baton::transfer
