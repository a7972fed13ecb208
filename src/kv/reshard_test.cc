// The resharder against a plain model of memory: every byte of every destination is checked, for the parallelisms that P/D pairs
// have and for random ones.
#include "kv/reshard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kv/testing/memory_model.h"

namespace baton::kv {
namespace {

using testing::Rank;

struct Engine {
  int tp = 1, pp = 1;
  int32_t block_tokens = 16;
  TileOrder order = TileOrder::kTokenMajor;
};

std::vector<KvShard> ranks(KvLayout model, const Engine& e) {
  model.block_tokens = e.block_tokens;
  model.tile_order = e.order;
  auto shards = shards_of(model, e.tp, e.pp);
  BATON_CHECK(shards.has_value());
  return *shards;
}

// Every rank of d gets tokens [first, first + n) from the ranks of p; gives the number of copies.
size_t expect_moves(Prng& prng, const KvLayout& model, const Engine& p, const Engine& d, int32_t first, int32_t n) {
  SCOPED_TRACE(cat("P", p.tp, "x", p.pp, " b", p.block_tokens, " -> D", d.tp, "x", d.pp, " b", d.block_tokens, " heads ",
                   model.kv_heads, " tokens ", first, "+", n));
  auto room = [&](int32_t from, int32_t bt) { return static_cast<size_t>((first + n - from + bt - 1) / bt); };
  std::vector<Rank> sources;
  std::vector<BlockMap> maps;
  for (const auto& shard : ranks(model, p)) {
    auto from = first / p.block_tokens * p.block_tokens;
    sources.push_back(testing::make_rank(prng, shard, from, room(from, p.block_tokens)));
    testing::fill(sources.back());
  }
  for (const auto& s : sources) maps.push_back(s.map());
  size_t copies = 0;
  int rank = 0;
  for (const auto& shard : ranks(model, d)) {
    auto from = first / d.block_tokens * d.block_tokens;
    auto to = testing::make_rank(prng, shard, from, room(from, d.block_tokens));
    auto plan = reshard(maps, to.map(), rank++, first, n);
    EXPECT_TRUE(plan) << plan.error().message;
    if (!plan) continue;
    EXPECT_EQ(testing::judge(*plan, sources, to, first, first + n), "");
    copies += plan->size();
  }
  return copies;
}

const KvLayout kModel{.layers = 5, .kv_heads = 4, .head_dim = 6, .block_tokens = 16};

TEST(Reshard, ParallelismsOfPrefillAndDecode) {
  Prng prng(1);
  for (auto [p, d] : {std::pair{1, 2}, {2, 1}, {1, 4}, {4, 1}, {2, 4}, {4, 2}, {8, 1}, {1, 8}, {16, 8}, {3, 3}}) {
    auto model = kModel;
    if (p == 3) model.kv_heads = 3;
    expect_moves(prng, model, {.tp = p}, {.tp = d}, 0, 37);
    expect_moves(prng, model, {.tp = p, .block_tokens = 8}, {.tp = d, .block_tokens = 32}, 32, 61);
    expect_moves(prng, model, {.tp = p, .pp = 2}, {.tp = d, .pp = 3}, 16, 5);
  }
}

TEST(Reshard, RandomShapes) {
  auto seed = secure_random_u64();
  SCOPED_TRACE(cat("seed ", seed));
  Prng prng(seed);
  for (int round = 0; round < 300; ++round) {
    KvLayout model{.layers = 1 + static_cast<int32_t>(prng.below(4)),
                   .kv_heads = int32_t{1} << prng.below(4),
                   .head_dim = 2 + 2 * static_cast<int32_t>(prng.below(4)),
                   .dtype = static_cast<KvDtype>(prng.below(kKvDtypes))};
    auto engine = [&] {
      return Engine{.tp = 1 << prng.below(5),
                    .pp = 1 + static_cast<int>(prng.below(static_cast<uint64_t>(model.layers))),
                    .block_tokens = 2 + 2 * static_cast<int32_t>(prng.below(9)),
                    .order = prng.chance(0.5) ? TileOrder::kVnni : TileOrder::kTokenMajor};
    };
    auto p = engine(), d = engine();
    if (p.order == TileOrder::kTokenMajor && prng.chance(0.3)) p.block_tokens = 1 + 2 * static_cast<int32_t>(prng.below(3));
    expect_moves(prng, model, p, d, static_cast<int32_t>(prng.below(50)), 1 + static_cast<int32_t>(prng.below(70)));
    if (HasFailure()) return;
  }
}

// A cache of one byte an element, with and without scales: heads, block sizes and orders differ, and every scale goes with its
// token and head.
TEST(Reshard, ScalesGoWithTheirTokensAndHeads) {
  Prng prng(2);
  for (auto dtype : {KvDtype::kE4m3, KvDtype::kI8Scaled, KvDtype::kE4m3Scaled}) {
    auto model = kModel;
    model.dtype = dtype;
    for (auto order : {TileOrder::kTokenMajor, TileOrder::kVnni}) {
      for (auto [p, d] : {std::pair{1, 1}, {1, 2}, {4, 1}, {2, 8}}) {
        expect_moves(prng, model, {.tp = p, .order = order}, {.tp = d, .order = order}, 0, 37);
        expect_moves(prng, model, {.tp = p, .block_tokens = 8, .order = order}, {.tp = d, .block_tokens = 32}, 32, 61);
        expect_moves(prng, model, {.tp = p, .pp = 2}, {.tp = d, .pp = 3, .order = order}, 16, 5);
      }
    }
  }
}

// One block is one copy, and neighbours are one: at least 256 KiB a copy wherever memory allows it.
TEST(Reshard, CoalescesWhatIsContiguous) {
  KvLayout l{.layers = 30, .kv_heads = 3, .head_dim = 64, .block_tokens = 16, .tile_order = TileOrder::kVnni};
  std::vector<int32_t> from{7, 8, 9, 3, 4}, to{1, 2, 3, 4, 9};
  BlockMap a{whole_shard(l), from}, b{whole_shard(l), to};
  auto plan = *reshard(std::span(&a, 1), b, 0, 0, 80);
  ASSERT_EQ(plan.size(), 3u);
  EXPECT_EQ(plan[0].length, 3 * l.block_bytes());
  EXPECT_GE(plan[1].length, 256u << 10);
  // Half of the heads: one strided copy a block.
  auto model = kModel;
  auto halves = *shards_of(model, 2, 1);
  BlockMap whole{whole_shard(model), from}, half{halves[1], to};
  plan = *reshard(std::span(&whole, 1), half, 1, 0, 80);
  ASSERT_EQ(plan.size(), 5u);
  EXPECT_EQ(plan[0].length, 2 * model.tile_bytes());
  EXPECT_EQ(plan[0].rows, 2u * 5);
  // Another block size, all heads: one strided copy for each pair of blocks that meet.
  auto large = model;
  large.block_tokens = 32;
  BlockMap big{whole_shard(large), to};
  EXPECT_EQ(reshard(std::span(&whole, 1), big, 0, 0, 80)->size(), 5u);
  l.dtype = KvDtype::kI8Scaled;  // scales lie in the block: it stays one copy
  BlockMap c{whole_shard(l), from}, e{whole_shard(l), to};
  EXPECT_EQ(reshard(std::span(&c, 1), e, 0, 0, 80)->size(), 3u);
}

TEST(Reshard, ReplicasTakeTurns) {
  auto p = ranks({.layers = 2, .kv_heads = 2, .head_dim = 4}, {.tp = 8});  // each head on four ranks
  auto d = ranks({.layers = 2, .kv_heads = 2, .head_dim = 4}, {.tp = 4});
  int total = 0;
  for (size_t s = 0; s < p.size(); ++s) {
    auto n = *readers_of(p, s, d);
    EXPECT_LE(n, 1) << s;
    total += n;
  }
  EXPECT_EQ(total, 4);
  EXPECT_EQ((*parts_for(p, d[0], 0))[0].source, 0u);
  EXPECT_EQ((*parts_for(p, d[1], 1))[0].source, 1u);
}

TEST(Reshard, RefusesWhatCannotBe) {
  auto whole = ranks(kModel, {});
  auto p = ranks(kModel, {.tp = 4});
  EXPECT_FALSE(parts_for(std::span(p).first(3), whole[0], 0)) << "a head is missing";
  auto overlapping = ranks(kModel, {.tp = 2});
  overlapping.push_back(p[1]);
  EXPECT_FALSE(parts_for(overlapping, whole[0], 0)) << "a head twice";
  auto other = whole[0];
  other.layout.head_dim = 8;
  EXPECT_FALSE(parts_for(std::span(&other, 1), whole[0], 0)) << "another head size";
  other = whole[0];
  other.layout.dtype = KvDtype::kE4m3;
  EXPECT_FALSE(parts_for(std::span(&other, 1), whole[0], 0)) << "another dtype";
  EXPECT_FALSE(shards_of(kModel, 3, 1));
  EXPECT_FALSE(shards_of(kModel, 1, 6));
  EXPECT_FALSE(shards_of(kModel, 0, 1));
  std::vector<int32_t> blocks{0, 1};
  BlockMap a{whole[0], blocks}, b{whole[0], blocks};
  auto none = [](const Copy&) { ADD_FAILURE() << "no copy may come before the refusal"; };
  ShardPart all{0, 0, 5, 0, 4};
  EXPECT_FALSE(reshard(a, b, all, 0, 33, none)) << "more tokens than blocks";
  EXPECT_FALSE(reshard(a, b, all, -1, 2, none));
  a.first_token = 16;
  EXPECT_FALSE(reshard(a, b, all, 0, 32, none)) << "tokens before the first";
  a.first_token = 0;
  EXPECT_FALSE(reshard(a, b, {0, 0, 6, 0, 4}, 0, 32, none)) << "a layer that nobody has";
}

TEST(Shard, ChecksWhatAStrangerSays) {
  auto good = whole_shard(kModel);
  EXPECT_TRUE(check(good));
  auto bad = [&](auto change) {
    auto s = good;
    change(s);
    return !check(s);
  };
  EXPECT_TRUE(bad([](auto& s) { s.layout.layers = 0; }));
  EXPECT_TRUE(bad([](auto& s) { s.layout.block_tokens = 1 << 20; }));
  EXPECT_TRUE(bad([](auto& s) { s.layer_first = 1; }));
  EXPECT_TRUE(bad([](auto& s) { s.head_first = -1; }));
  EXPECT_TRUE(bad([](auto& s) { s.layer_first = INT32_MAX; }));
  EXPECT_TRUE(bad([](auto& s) { s.layout.dtype = static_cast<KvDtype>(9); }));
  EXPECT_TRUE(bad([](auto& s) { s.layout.tile_order = static_cast<TileOrder>(2); }));
  EXPECT_TRUE(bad([](auto& s) { s.layout.tile_order = TileOrder::kVnni, s.layout.block_tokens = 3; }));
  EXPECT_EQ(good.id(), kModel.id());
  EXPECT_THAT((*shards_of(kModel, 4, 1))[2].id(), ::testing::HasSubstr("h2/4"));
}

}  // namespace
}  // namespace baton::kv
