#include "model/rank_group.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "base/prng.h"
#include "model/lora.h"
#include "model/testing/tiny_lora.h"

namespace baton::model {
namespace {

constexpr int kHidden = 24;

std::unique_ptr<RankGroup> group_of(int ranks, int64_t patience_ms = kRankPatienceMs) {
  auto made = RankGroup::create({.ranks = ranks, .hidden = kHidden, .vocab = 40, .order_words = 400, .patience_ms = patience_ms});
  EXPECT_TRUE(made) << made.error().message;
  return *std::move(made);
}

// What a rank gives in a round.
float given(int rank, int round, int i) { return static_cast<float>(rank * 1000 + round) + static_cast<float>(i) / 64; }

// Writes, meets, and reads what all gave; false if any of it is of another round.
bool take_rounds(RankGroup& group, int rounds) {
  bool right = true;
  for (int round = 0; round < rounds; ++round) {
    float* const mine = group.part(round % 2, group.rank());
    for (int i = 0; i < kHidden; ++i) mine[i] = given(group.rank(), round, i);
    group.meet();
    for (int rank = 0; rank < group.ranks(); ++rank)
      for (int i = 0; i < kHidden; ++i) right &= group.part(round % 2, rank)[i] == given(rank, round, i);
  }
  return right;
}

TEST(RankGroup, EveryRankSeesWhatAllGaveInEveryRound) {
  for (const int ranks : {1, 2, 4}) {
    const auto group = group_of(ranks);
    std::vector<int> right(static_cast<size_t>(ranks));
    std::vector<std::thread> others;
    for (int rank = 1; rank < ranks; ++rank)
      others.emplace_back([&, rank] { right[static_cast<size_t>(rank)] = take_rounds(*group->beside(rank), 300); });
    right[0] = take_rounds(*group, 300);
    for (std::thread& t : others) t.join();
    EXPECT_EQ(std::ranges::count(right, 1), ranks);
    EXPECT_FALSE(group->failed());
  }
}

TEST(RankGroup, MeetsAcrossProcesses) {
  const auto group = group_of(2);
  const pid_t child = ::fork();
  if (child == 0) {
    auto mine = RankGroup::attach(group->fd(), 1);
    ::_exit(mine && take_rounds(**mine, 200) ? 0 : 1);
  }
  ASSERT_GT(child, 0);
  EXPECT_TRUE(take_rounds(*group, 200));
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(RankGroup::attach(group->fd(), 2));
  EXPECT_FALSE(RankGroup::attach(STDIN_FILENO, 1));
}

TEST(RankGroup, AFailureEndsEveryWaitForGood) {
  const auto group = group_of(3);
  std::vector<std::thread> waiting;
  waiting.emplace_back([&] { group->beside(1)->meet(); });
  waiting.emplace_back([&] { EXPECT_FALSE(group->beside(2)->await_order()); });
  group->fail();
  for (std::thread& t : waiting) t.join();
  EXPECT_TRUE(group->failed());
  group->meet();
  EXPECT_FALSE(group->beside(1)->await_order());
}

TEST(RankGroup, WhoStaysAwayIsTakenForLost) {
  const auto group = group_of(2, 30);
  group->meet();  // alone
  EXPECT_TRUE(group->failed());
}

TEST(RankGroup, OrdersArriveAsTheyWereGiven) {
  using Order = RankGroup::Order;
  const auto group = group_of(2);
  const auto other = group->beside(1);
  const auto none = [](int32_t) -> const LoraAdapter* { return nullptr; };
  Prng prng(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::vector<int32_t>> lists;
    std::vector<SeqInput> seqs;
    for (int i = static_cast<int>(prng.below(4)); i >= 0; --i) {
      for (int list = 0; list < 2; ++list) {
        auto& one = lists.emplace_back();
        for (uint64_t n = prng.below(20); n > 0; --n) one.push_back(static_cast<int32_t>(prng.below(5000)));
      }
    }
    for (size_t i = 0; i < lists.size(); i += 2)
      seqs.push_back({.tokens = lists[i],
                      .first_position = static_cast<int32_t>(prng.below(99)),
                      .blocks = lists[i + 1],
                      .last_logits = prng.chance(0.5),
                      .all_logits = prng.chance(0.5),
                      .hidden = true});
    ASSERT_TRUE(group->give(Order::kStep, seqs));
    ASSERT_EQ(other->await_order(), Order::kStep);
    const auto got = other->step(none);
    ASSERT_TRUE(got) << got.error().message;
    ASSERT_EQ(got->size(), seqs.size());
    for (size_t i = 0; i < seqs.size(); ++i) {
      EXPECT_TRUE(std::ranges::equal((*got)[i].tokens, seqs[i].tokens));
      EXPECT_TRUE(std::ranges::equal((*got)[i].blocks, seqs[i].blocks));
      EXPECT_EQ((*got)[i].first_position, seqs[i].first_position);
      EXPECT_EQ((*got)[i].last_logits, seqs[i].last_logits);
      EXPECT_EQ((*got)[i].all_logits, seqs[i].all_logits);
      EXPECT_FALSE((*got)[i].hidden);  // rank 0 alone gives them
    }
  }
  const testing::TinySpec spec{.layers = 1};
  const std::string tensors = testing::tiny_lora_tensors({}, spec);
  const auto adapter = [&](int32_t number) {
    ModelConfig c;
    c.layers = spec.layers, c.hidden = spec.hidden, c.heads = spec.heads, c.kv_heads = spec.kv_heads, c.head_dim = spec.head_dim, c.ffn = spec.ffn;
    return *LoraAdapter::read(testing::tiny_lora_config({}, spec), std::as_bytes(std::span(tensors)), c, 16, {.number = number});
  };
  const auto mine = adapter(7), yours = adapter(7), alone = adapter(0);
  const std::vector<int32_t> token = {1};
  const std::vector<SeqInput> adapted = {{.tokens = token, .blocks = {}, .lora = mine.get()}, {.tokens = token, .blocks = {}}};
  ASSERT_TRUE(group->give(Order::kStep, adapted));
  ASSERT_EQ(other->await_order(), Order::kStep);
  EXPECT_EQ(other->step(none).error().code, Code::kInternal) << "another rank has not loaded it";
  const auto found = other->step([&](int32_t number) { return number == 7 ? yours.get() : nullptr; });
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ((*found)[0].lora, yours.get());
  EXPECT_EQ((*found)[1].lora, nullptr);
  const SeqInput nameless{.tokens = token, .blocks = {}, .lora = alone.get()};
  EXPECT_EQ(group->give(Order::kStep, {&nameless, 1}).error().code, Code::kInvalidArgument);
  ASSERT_TRUE(group->give(Order::kTakePool));
  EXPECT_EQ(other->await_order(), Order::kTakePool);
  const std::vector<int32_t> many(500, 1);
  const SeqInput large{.tokens = many, .blocks = {}};
  const auto refused = group->give(Order::kStep, {&large, 1});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  ASSERT_TRUE(group->give(Order::kLeavePool));  // nobody heard of the one before
  EXPECT_EQ(other->await_order(), Order::kLeavePool);
}

}  // namespace
}  // namespace baton::model
