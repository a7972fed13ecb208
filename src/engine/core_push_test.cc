// Both legs of a push step by step: the prefill leg says what is ready, the decode leg waits, takes the first token early, and
// every way either can end.
#include <gtest/gtest.h>

#include "engine/testing/worker_pair.h"

namespace baton::engine {
namespace {

using testing::alone;
using testing::Ask;
using testing::collect;
using testing::Handle;
using testing::Outcome;
using testing::random_prompt;
using testing::submit;
using testing::WorkerPair;
using testing::WorkerSetup;

struct PushPair : WorkerPair {
  using WorkerPair::WorkerPair;
  // What the sidecar does: both legs under one token.
  struct Legs {
    Handle prefill, decode;
    std::string token;
  };
  // Of a prompt that is split, `front` tokens are the prefill worker's: whole blocks, as generate.cc cuts it.
  Legs begin(Ask ask) {
    const auto whole = static_cast<int32_t>(ask.prompt.size());
    return begin(std::move(ask), whole);
  }
  Legs begin(Ask ask, int32_t front) {
    const std::vector<int32_t> head(ask.prompt.begin(), ask.prompt.begin() + front);
    std::string token = cat("ffffffffffffffffffffffffffffffff", next_token++);
    token = token.substr(token.size() - 32);
    SamplingParams sampling = ask.sampling;
    sampling.min_tokens = 0;  // as prepare_submission() makes a prefill leg
    Legs legs{.prefill = submit(
                  prefill, {.prompt = head, .sampling = sampling, .max_tokens = 1, .prefill_leg = true, .push_token = token}),
              .decode = {},
              .token = token};
    ask.remote = RemotePrompt{.grant = {.token = token, .engine_id = {}, .host = {}},
                              .digest = token_digest(head),
                              .n_tokens = front,
                              .push = true,
                              .takes_first_token = head.size() == ask.prompt.size()};
    legs.decode = submit(decode, ask);
    return legs;
  }
  int next_token = 0;
};

TEST(PushLegs, DecodeComputesNoPromptToken) {
  Prng prng(40);
  for (int round = 0; round < 20; ++round) {
    Ask ask{.prompt = random_prompt(prng, 1, 200), .max_tokens = static_cast<int32_t>(prng.between(1, 20))};
    if (round % 2) ask.sampling = {.temperature = 1, .seed = prng.next()};
    const auto want = alone(ask).tokens;
    PushPair pair;
    const auto legs = pair.begin(ask);
    pair.decode.run();
    EXPECT_EQ(pair.decode.node.pending.size(), 1u) << "decode reserved its blocks and asks before the prefill began";
    EXPECT_GT(pair.decode.usage(), 0);
    pair.settle();
    EXPECT_EQ(collect(legs.decode)[0].tokens, want) << "round " << round;
    EXPECT_EQ(pair.decode.model.tokens, static_cast<int64_t>(want.size()) - 1);
    EXPECT_EQ(pair.decode.em.source_external.value(), static_cast<double>(ask.prompt.size()));
    pair.expect_clean();
  }
}

TEST(PushLegs, EachComputedChunkIsAnnounced) {
  Prng prng(41);
  PushPair pair;
  pair.decode.node.auto_complete = false;
  const auto legs = pair.begin({.prompt = random_prompt(prng, 100, 100)});
  auto& said = pair.prefill.node.ready[legs.prefill.first_id];
  pair.prefill.core->step();
  EXPECT_EQ(said, (std::vector<int32_t>{0, 32}));
  EXPECT_TRUE(pair.prefill.node.completed.empty());
  pair.prefill.core->step();
  EXPECT_EQ(said, (std::vector<int32_t>{0, 32, 64}));
  pair.prefill.run();
  EXPECT_EQ(said, (std::vector<int32_t>{0, 32, 64, 96}));
  EXPECT_EQ(pair.prefill.node.completed.size(), 1u);
  EXPECT_GT(pair.prefill.usage(), 0) << "kept for its reader";
  const Outcome leg = std::move(collect(legs.prefill)[0]);
  ASSERT_TRUE(leg.hand_over && leg.hand_over->x_kv);
  EXPECT_EQ(leg.hand_over->x_kv->grant, legs.token) << "a decode worker that was not told of the token may still pull";
  EXPECT_TRUE(leg.hand_over->x_kv->can_push);
  pair.decode.node.auto_complete = true;
  pair.expect_clean();
}

TEST(PushLegs, PrefixHitsAreReadyBeforeAnythingIsComputed) {
  Prng prng(42);
  PushPair pair;
  Ask ask{.prompt = random_prompt(prng, 100, 100)};
  const Handle fill = submit(pair.prefill, {.prompt = {ask.prompt.begin(), ask.prompt.begin() + 64}, .max_tokens = 1});
  pair.prefill.run();
  const auto legs = pair.begin(ask);
  pair.prefill.core->step();
  EXPECT_EQ(pair.prefill.node.ready[legs.prefill.first_id].front(), 64);
  pair.settle();
  EXPECT_EQ(collect(legs.decode)[0].tokens, alone(ask).tokens);
  pair.expect_clean();
}

TEST(PushLegs, TheFirstTokenDoesNotWaitForTheLastBlocks) {
  Prng prng(43);
  for (int32_t valid : {0, 48, 99, 100}) {
    Ask ask{.prompt = random_prompt(prng, 100, 100)};
    const auto want = alone(ask).tokens;
    PushPair pair;
    pair.decode.node.auto_complete = false;
    const auto legs = pair.begin(ask);
    pair.decode.run();
    pair.prefill.run();
    ASSERT_TRUE(pair.decode.node.tell_completion());
    pair.decode.run();
    auto first = legs.decode.mailbox->try_pop();
    ASSERT_TRUE(first && first->first) << "no block has come yet";
    EXPECT_EQ(first->token, want[0]);
    EXPECT_EQ(pair.decode.model.tokens, 0);
    // What fails afterwards is computed here, and the token that went out is not said twice.
    pair.decode.node.complete(valid, valid == 100 ? std::nullopt : std::optional(Error{Code::kUnavailable, "peer is gone"}));
    pair.decode.run();
    auto rest = collect(legs.decode)[0].tokens;
    rest.insert(rest.begin(), *first->token);
    EXPECT_EQ(rest, want) << valid << " tokens came";
    EXPECT_EQ(pair.decode.model.tokens, static_cast<int64_t>(want.size()) - 1 + 100 - valid);
    pair.expect_clean();
  }
}

TEST(PushLegs, AFirstTokenThatEndsTheAnswerStopsTheTransfer) {
  Prng prng(44);
  Ask ask{.prompt = random_prompt(prng, 100, 100)};
  ask.eos = {alone(ask).tokens[0]};
  for (int32_t min_tokens : {0, 3}) {
    ask.sampling.min_tokens = min_tokens;
    ask.sampling.masked_until_min = ask.eos;
    const auto want = alone(ask).tokens;
    PushPair pair;
    pair.decode.node.auto_complete = false;
    const auto legs = pair.begin(ask);
    pair.decode.run();
    pair.prefill.run();
    ASSERT_TRUE(pair.decode.node.tell_completion());
    pair.decode.run();
    if (min_tokens == 0) {
      EXPECT_EQ(pair.decode.node.cancelled, std::vector<uint64_t>{legs.decode.first_id});
      EXPECT_GT(pair.decode.usage(), 0) << "a write may still be on its way";
      pair.decode.node.complete(16, Error{Code::kCancelled, "cancelled"});
    } else {  // the prefill leg did not know of min_tokens: its token is not ours
      EXPECT_EQ(legs.decode.mailbox->try_pop(), std::nullopt);
      pair.decode.node.complete(100, std::nullopt);
    }
    pair.decode.run();
    EXPECT_EQ(collect(legs.decode)[0].tokens, want);
    pair.expect_clean();
  }
}

TEST(PushLegs, AProducerThatFailsIsReplacedByOurOwnModel) {
  Prng prng(45);
  for (int32_t valid : {0, 16, 96}) {
    Ask ask{.prompt = random_prompt(prng, 100, 100)};
    const auto want = alone(ask).tokens;
    PushPair pair;
    pair.decode.node.auto_complete = false;
    const auto legs = pair.begin(ask);
    pair.decode.run();
    pair.prefill.run();
    pair.decode.node.complete(valid, Error{Code::kAborted, "the producer took the grant back"});
    pair.decode.run();
    EXPECT_EQ(collect(legs.decode)[0].tokens, want);
    EXPECT_EQ(pair.decode.model.tokens, static_cast<int64_t>(want.size()) - 1 + 100 - valid) << "verified chunks are kept";
    pair.expect_clean();
  }
}

TEST(PushLegs, AnAbortedPrefillKeepsItsBlocksUntilTheReaderIsOut) {
  Prng prng(46);
  PushPair pair;
  const auto legs = pair.begin({.prompt = random_prompt(prng, 100, 100)});
  pair.prefill.core->step();
  // The node says when no reader touches them any more.
  auto held = std::exchange(pair.prefill.node.offers, {});
  pair.prefill.core->abort(legs.prefill.first_id, 1);
  EXPECT_GT(pair.prefill.usage(), 0);
  pair.prefill.node.offers = std::move(held);
  pair.prefill.node.release(legs.prefill.first_id);
  pair.prefill.run();
  EXPECT_EQ(pair.prefill.usage(), 0);
  pair.decode.core->abort(legs.decode.first_id, 1);
  pair.expect_clean();
}

TEST(PushLegs, APromptWhoseReaderLeftKeepsNothing) {
  Prng prng(47);
  for (int when = 0; when < 3; ++when) {
    PushPair pair;
    pair.decode.node.auto_complete = false;
    const auto leave = [&](const PushPair::Legs& legs) { pair.prefill.node.release(legs.prefill.first_id); };
    PushPair::Legs legs = pair.begin({.prompt = random_prompt(prng, 100, 100)});
    if (when == 0) leave(legs);
    pair.prefill.core->step();
    if (when == 1) leave(legs);
    pair.prefill.core->step();
    if (when == 2) leave(legs);
    pair.prefill.run();
    EXPECT_EQ(pair.prefill.usage(), 0) << when;
    const Outcome leg = std::move(collect(legs.prefill)[0]);
    EXPECT_EQ(leg.finish, Finish::kLength);
    EXPECT_FALSE(leg.hand_over) << "a promise that was broken is offered to nobody";
    pair.decode.core->abort(legs.decode.first_id, 1);
    pair.decode.run();
    if (!pair.decode.node.pending.empty()) pair.decode.node.complete(0, Error{Code::kCancelled, ""});
    pair.expect_clean();
  }
}

// A prompt that both compute: the front is pushed while it is computed, the tail is decode's, and what prefill samples after the
// front is no token of the answer.
TEST(PushLegs, TheTailOfASplitPromptIsDecodes) {
  Prng prng(49);
  for (int round = 0; round < 30; ++round) {
    SCOPED_TRACE(::testing::Message() << "round " << round);
    Ask ask{.prompt = random_prompt(prng, 17, 200), .max_tokens = static_cast<int32_t>(prng.between(1, 20))};
    const auto size = static_cast<int32_t>(ask.prompt.size());
    const auto front = static_cast<int32_t>(prng.between(1, (size - 1) / 16)) * 16;
    const auto want = alone(ask).tokens;
    PushPair pair;
    pair.decode.node.auto_complete = false;
    const auto legs = pair.begin(ask, front);
    pair.decode.run();
    ASSERT_EQ(pair.decode.node.pending.size(), 1u);
    EXPECT_EQ(pair.decode.node.pending.front().n_tokens, front);
    pair.prefill.run();
    EXPECT_EQ(pair.prefill.model.tokens, front);
    ASSERT_TRUE(pair.decode.node.tell_completion());
    pair.decode.run();
    EXPECT_EQ(legs.decode.mailbox->try_pop(), std::nullopt) << "prefill's token follows the front, not the prompt";
    // All of it, or what had come when the prefill worker failed.
    const auto valid = round % 3 == 0 ? static_cast<int32_t>(prng.between(0, front / 16 - 1)) * 16 : front;
    pair.decode.node.complete(valid, valid == front ? std::nullopt : std::optional(Error{Code::kUnavailable, "peer is gone"}));
    pair.decode.run();
    EXPECT_EQ(collect(legs.decode)[0].tokens, want);
    EXPECT_EQ(pair.decode.model.tokens, static_cast<int64_t>(want.size()) - 1 + size - valid) << "no prompt token twice";
    pair.expect_clean();
  }
}

TEST(PushLegs, ARefusedPrefillBreaksItsPromise) {
  PushPair pair({}, {.blocks = 101, .retained_share_max = 0.1});
  Prng prng(48);
  const auto first = pair.begin({.prompt = random_prompt(prng, 300, 300)});
  const auto second = pair.begin({.prompt = random_prompt(prng, 300, 300)});
  EXPECT_EQ(collect(second.prefill)[0].error->code, Code::kUnavailable);
  EXPECT_EQ(pair.prefill.node.offers.size(), 1u) << "its reader is told";
  pair.settle();
  EXPECT_EQ(collect(first.decode)[0].finish, Finish::kLength);
  pair.decode.core->abort(second.decode.first_id, 1);
  ASSERT_EQ(pair.decode.node.pending.size(), 1u);
  pair.decode.node.complete(0, Error{Code::kCancelled, "cancelled"});
  pair.expect_clean();
}

TEST(PushLegs, RandomLivesLeakNothing) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Prng prng(seed);
    PushPair pair({.blocks = 60, .scheduler = {.max_num_batched_tokens = 64, .max_num_seqs = 6, .max_model_len = 400}},
                  {.blocks = 60, .scheduler = {.max_num_batched_tokens = 64, .max_model_len = 400}, .retained_share_max = 1});
    pair.decode.node.auto_complete = false;
    struct Live {
      Ask ask;
      PushPair::Legs legs;
      std::vector<int32_t> tokens;
    };
    std::vector<Live> live;
    auto& node = pair.decode.node;
    for (int i = 0; i < 80; ++i) {
      if (prng.chance(0.3)) {
        Ask ask{.prompt = random_prompt(prng, 1, 120), .max_tokens = static_cast<int32_t>(prng.between(1, 30))};
        auto legs = pair.begin(ask);
        live.push_back({std::move(ask), std::move(legs), {}});
      }
      if (prng.chance(0.2)) submit(pair.prefill, {.prompt = random_prompt(prng, 1, 60), .max_tokens = 30});  // others run too
      if (!node.pending.empty() && prng.chance(0.6)) {
        const bool done = node.tell_completion();
        if (prng.chance(0.5)) pair.decode.core->step();
        const int32_t n = node.pending.front().n_tokens;
        const auto& token = node.pending.front().grant.token;
        const auto offer = pair.prefill.node.offers.find(token);
        const bool gone = offer == pair.prefill.node.offers.end();
        if (done && prng.chance(0.7)) {
          node.complete(n, std::nullopt);
        } else if (gone || prng.chance(0.2)) {
          const auto& said = gone ? std::vector<int32_t>{} : pair.prefill.node.ready[offer->second.request];
          const int32_t first = node.pending.front().first_token;
          const int32_t there = said.empty() ? 0 : std::clamp(said.back() / 16 * 16 - first, 0, n);
          node.complete(static_cast<int32_t>(prng.below(static_cast<uint64_t>(there) + 1)), Error{Code::kUnavailable, "x"});
        }
      }
      if (!live.empty() && prng.chance(0.06)) {
        const size_t victim = prng.below(live.size());
        if (prng.chance(0.5)) {
          pair.decode.core->abort(live[victim].legs.decode.first_id, 1);
          live.erase(live.begin() + static_cast<std::ptrdiff_t>(victim));
        } else {
          pair.prefill.core->abort(live[victim].legs.prefill.first_id, 1);
        }
      }
      pair.decode.core->step();
      pair.prefill.core->step();
    }
    for (int round = 0; round < 200 && !(pair.decode.core->idle() && pair.prefill.core->idle() && node.pending.empty());
         ++round) {
      pair.prefill.run();
      pair.decode.run();
      if (node.pending.empty()) continue;
      if (node.tell_completion())
        node.complete(node.pending.front().n_tokens, std::nullopt);
      else
        node.complete(0, Error{Code::kUnavailable, "x"});
    }
    for (const auto& one : live) {
      const Outcome got = std::move(collect(one.legs.decode)[0]);
      EXPECT_EQ(got.tokens, alone({.prompt = one.ask.prompt, .max_tokens = one.ask.max_tokens}).tokens);
      EXPECT_EQ(got.ends, 1);
    }
    // Grants whose reader never came are released by the end of their lease.
    while (!pair.prefill.node.offers.empty()) pair.prefill.node.release(pair.prefill.node.offers.begin()->second.request);
    pair.expect_clean();
  }
}

}  // namespace
}  // namespace baton::engine
