// Prefill and decode legs step by step, with fetches that end when and how the test says.
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
using testing::Worker;
using testing::WorkerPair;
using testing::WorkerSetup;

struct Pair : WorkerPair {
  using WorkerPair::WorkerPair;
  RemotePrompt prefill_leg(const std::vector<int32_t>& prompt, const SamplingParams& sampling = {.temperature = 0}) {
    const Handle handle = submit(prefill, {.prompt = prompt, .sampling = sampling, .max_tokens = 1, .prefill_leg = true});
    prefill.run();
    const Outcome o = std::move(collect(handle)[0]);
    EXPECT_TRUE(o.hand_over && o.hand_over->x_kv);
    const wire::XKv& x = *o.hand_over->x_kv;
    EXPECT_EQ(x.n_tokens, static_cast<int32_t>(prompt.size()));
    EXPECT_EQ(x.first_token_id, o.tokens[0]);
    return {.grant = {.token = x.grant, .incarnation = x.incarnation, .engine_id = {}, .host = {}},
            .digest = token_digest(prompt),
            .n_tokens = x.n_tokens,
            .first_token = x.first_token_id};
  }
};

TEST(HandOver, DecodeComputesNoPromptToken) {
  Prng prng(20);
  for (int round = 0; round < 20; ++round) {
    Ask ask{.prompt = random_prompt(prng, 1, 200), .max_tokens = static_cast<int32_t>(prng.between(1, 20))};
    if (round % 2) ask.sampling = {.temperature = 1, .seed = prng.next()};
    const auto want = alone(ask).tokens;
    Pair pair;
    ask.remote = pair.prefill_leg(ask.prompt, ask.sampling);
    EXPECT_GT(pair.prefill.usage(), 0);  // kept for the decode worker
    const Handle handle = submit(pair.decode, ask);
    pair.decode.run();
    EXPECT_EQ(collect(handle)[0].tokens, want) << "round " << round;
    EXPECT_EQ(pair.decode.model.tokens, static_cast<int64_t>(want.size()) - 1);
    EXPECT_EQ(pair.decode.em.source_external.value(), static_cast<double>(ask.prompt.size()));
    EXPECT_EQ(pair.decode.node.held, 1);
    pair.expect_clean();
  }
}

// The one worker forces the first token, or the other goes on counting.
TEST(HandOver, AThinkingBudgetIsTheSame) {
  const auto marks = std::make_shared<const ThinkingMarks>(ThinkingMarks{.open = {11}, .close = {7}, .forced = {9, 7}});
  Prng prng(24);
  for (const int64_t budget : {0, 1, 5}) {
    Ask ask{.prompt = random_prompt(prng, 100, 100)};
    ask.prompt.push_back(11);
    ask.sampling.thinking = marks;
    ask.sampling.thinking_budget = budget;
    const auto want = alone(ask).tokens;
    EXPECT_EQ(want[static_cast<size_t>(budget)], 9);
    EXPECT_EQ(want[static_cast<size_t>(budget) + 1], 7);
    Pair pair;
    ask.remote = pair.prefill_leg(ask.prompt, ask.sampling);
    const Handle handle = submit(pair.decode, ask);
    pair.decode.run();
    EXPECT_EQ(collect(handle)[0].tokens, want) << budget;
    pair.expect_clean();
  }
}

TEST(HandOver, WithoutTheFirstTokenOnePromptTokenIsRecomputed) {
  Prng prng(21);
  Ask ask{.prompt = random_prompt(prng, 100, 100)};
  const auto want = alone(ask).tokens;
  Pair pair;
  ask.remote = pair.prefill_leg(ask.prompt);
  ask.remote->first_token.reset();
  const Handle handle = submit(pair.decode, ask);
  pair.decode.run();
  EXPECT_EQ(collect(handle)[0].tokens, want);
  EXPECT_EQ(pair.decode.model.tokens, static_cast<int64_t>(want.size()));
  pair.expect_clean();
}

TEST(HandOver, AFirstTokenThatEndsTheAnswerEndsIt) {
  Prng prng(22);
  const auto prompt = random_prompt(prng, 40, 40);
  Pair pair;
  const RemotePrompt remote = pair.prefill_leg(prompt);
  const Handle handle = submit(pair.decode, {.prompt = prompt, .eos = {*remote.first_token}, .remote = remote});
  pair.decode.run();
  const Outcome o = std::move(collect(handle)[0]);
  EXPECT_EQ(o.finish, Finish::kStop);
  EXPECT_EQ(o.tokens.size(), 1u);
  EXPECT_EQ(pair.decode.model.tokens, 0);
  pair.expect_clean();
}

TEST(HandOver, EveryFailureIsRecomputedHere) {
  Prng prng(23);
  for (int32_t valid : {0, 5, 16, 48, 99}) {
    Ask ask{.prompt = random_prompt(prng, 100, 100)};
    const auto want = alone(ask).tokens;
    Pair pair;
    ask.remote = pair.prefill_leg(ask.prompt);
    pair.decode.node.auto_complete = false;
    const Handle handle = submit(pair.decode, ask);
    pair.decode.run();
    ASSERT_EQ(pair.decode.node.pending.size(), 1u);
    pair.decode.node.complete(valid, Error{Code::kUnavailable, "peer is gone"});
    pair.decode.run();
    EXPECT_EQ(collect(handle)[0].tokens, want) << valid << " tokens arrived";
    EXPECT_NE(pair.decode.metrics.text().find("kv_fallback_total{reason=\"UNAVAILABLE\"} 1"), std::string::npos);
    pair.expect_clean();
  }
}

TEST(HandOver, PolicyFailFailsTheRequestAndFreesEverything) {
  Prng prng(24);
  Ask ask{.prompt = random_prompt(prng, 100, 100)};
  Pair pair({.fail_on_load_error = true});
  ask.remote = pair.prefill_leg(ask.prompt);
  pair.decode.node.auto_complete = false;
  const Handle handle = submit(pair.decode, ask);
  pair.decode.run();
  pair.decode.node.complete(32, Error{Code::kDataLoss, "checksum"});
  pair.decode.run();
  const Outcome o = std::move(collect(handle)[0]);
  EXPECT_EQ(o.finish, Finish::kError);
  EXPECT_EQ(o.error->code, Code::kInternal);
  pair.expect_clean();
}

TEST(HandOver, AbortWhileFetchingKeepsTheBlocksUntilTheTransferEnds) {
  Prng prng(25);
  Ask ask{.prompt = random_prompt(prng, 100, 100)};
  Pair pair;
  ask.remote = pair.prefill_leg(ask.prompt);
  pair.decode.node.auto_complete = false;
  const Handle handle = submit(pair.decode, ask);
  pair.decode.run();
  pair.decode.core->abort(handle.first_id, 1);
  pair.decode.run();
  EXPECT_EQ(pair.decode.node.cancelled, std::vector<uint64_t>{handle.first_id});
  EXPECT_GT(pair.decode.usage(), 0) << "a write may still be on its way into these blocks";
  pair.decode.node.complete(0, Error{Code::kCancelled, "cancelled"});
  pair.expect_clean();
}

TEST(HandOver, GrantsThatAreNotNeededAreDeclined) {
  Prng prng(26);
  Ask ask{.prompt = random_prompt(prng, 96, 96)};
  const auto want = alone(ask).tokens;
  {  // all of it is in the local prefix cache
    Pair pair;
    const Handle fill = submit(pair.decode, ask);
    pair.decode.run();
    ask.remote = pair.prefill_leg(ask.prompt);
    const Handle handle = submit(pair.decode, ask);
    pair.decode.run();
    EXPECT_EQ(collect(handle)[0].tokens, want);
    pair.expect_clean();
  }
  {  // aborted before it was scheduled
    Pair pair({.scheduler = {.max_num_batched_tokens = 256, .max_num_seqs = 1, .max_model_len = 2048}});
    const Handle first = submit(pair.decode, {.prompt = ask.prompt, .max_tokens = 1000});
    pair.decode.core->step();
    ask.remote = pair.prefill_leg(ask.prompt);
    const Handle handle = submit(pair.decode, ask);
    pair.decode.core->step();
    pair.decode.core->abort(handle.first_id, 1);
    EXPECT_EQ(pair.decode.node.declined, 1);
    pair.decode.core->abort(first.first_id, 1);
    pair.expect_clean();
  }
  {  // refused: can never fit
    Pair pair({.blocks = 4});
    ask.remote = pair.prefill_leg(ask.prompt);
    const Handle handle = submit(pair.decode, ask);
    pair.decode.run();
    EXPECT_EQ(collect(handle)[0].finish, Finish::kError);
    EXPECT_EQ(pair.decode.node.declined, 1);
    pair.expect_clean();
  }
}

TEST(HandOver, PartOfThePromptHitsLocally) {
  Prng prng(27);
  const auto shared = random_prompt(prng, 64, 64);
  Ask ask{.prompt = shared};
  const auto tail = random_prompt(prng, 50, 50);
  ask.prompt.insert(ask.prompt.end(), tail.begin(), tail.end());
  const auto want = alone(ask).tokens;
  Pair pair;
  const Handle fill = submit(pair.decode, {.prompt = shared});
  pair.decode.run();
  const int64_t before = pair.decode.model.tokens;
  ask.remote = pair.prefill_leg(ask.prompt);
  const Handle handle = submit(pair.decode, ask);
  pair.decode.run();
  EXPECT_EQ(collect(handle)[0].tokens, want);
  EXPECT_EQ(pair.decode.model.tokens - before, static_cast<int64_t>(want.size()) - 1);
  EXPECT_EQ(pair.decode.em.source_external.value(), 114 - 64);  // the shared blocks were not fetched again
  pair.expect_clean();
}

TEST(HandOver, AFullPrefillWorkerSaysSo) {
  Prng prng(28);
  Worker w({.blocks = 101, .retained_share_max = 0.4});
  const auto leg = [&](int64_t tokens) {
    const Handle handle = submit(w, {.prompt = random_prompt(prng, tokens, tokens), .max_tokens = 1, .prefill_leg = true});
    w.run();
    return std::move(collect(handle)[0]);
  };
  EXPECT_EQ(leg(480).finish, Finish::kLength);  // 30 of 40 blocks
  const Outcome refused = leg(200);
  EXPECT_EQ(refused.finish, Finish::kError);
  EXPECT_EQ(refused.error->code, Code::kUnavailable);
  EXPECT_EQ(leg(150).finish, Finish::kLength);  // 10 more fit
  w.core->release_grant(1);
  w.run();
  EXPECT_EQ(leg(200).finish, Finish::kLength);
}

TEST(HandOver, OneOverlongPromptIsStillServed) {
  Worker w({.blocks = 101, .retained_share_max = 0.1});
  Prng prng(29);
  const Handle handle = submit(w, {.prompt = random_prompt(prng, 800, 800), .max_tokens = 1, .prefill_leg = true});
  w.run();
  EXPECT_EQ(collect(handle)[0].finish, Finish::kLength);
}

// Random life of a pair: submissions of every kind, fetches that end well, badly or partly, aborts at any time. At the end every
// finished answer is right and nothing is held.
TEST(HandOver, RandomLivesLeakNothing) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Prng prng(seed);
    Pair pair({.blocks = 60, .scheduler = {.max_num_batched_tokens = 64, .max_num_seqs = 6, .max_model_len = 400}});
    pair.decode.node.auto_complete = false;
    std::vector<std::pair<Ask, Handle>> live;
    for (int i = 0; i < 60; ++i) {
      if (prng.chance(0.4)) {
        Ask ask{.prompt = random_prompt(prng, 1, 120), .max_tokens = static_cast<int32_t>(prng.between(1, 30))};
        if (prng.chance(0.7)) ask.remote = pair.prefill_leg(ask.prompt);
        if (ask.remote && prng.chance(0.3)) ask.remote->first_token.reset();
        if (ask.remote && prng.chance(0.1)) pair.prefill.core->release_grant(pair.prefill.node.offers.begin()->second.request);
        Handle handle = submit(pair.decode, ask);
        live.emplace_back(std::move(ask), std::move(handle));
      }
      if (!pair.decode.node.pending.empty() && prng.chance(0.5)) {
        const bool good = prng.chance(0.6);
        const int32_t n = pair.decode.node.pending.front().n_tokens;
        const auto part = static_cast<int32_t>(prng.below(static_cast<uint64_t>(n) + 1));
        pair.decode.node.complete(good ? n : part, good ? std::nullopt : std::optional(Error{Code::kUnavailable, "x"}));
      }
      if (!live.empty() && prng.chance(0.05)) {
        const size_t victim = prng.below(live.size());
        pair.decode.core->abort(live[victim].second.first_id, 1);
        live.erase(live.begin() + static_cast<std::ptrdiff_t>(victim));
      }
      pair.decode.core->step();
      pair.prefill.core->step();
    }
    pair.decode.node.auto_complete = true;
    pair.decode.run();
    for (const auto& [ask, handle] : live) {
      const Outcome got = std::move(collect(handle)[0]);
      EXPECT_EQ(got.tokens, alone({.prompt = ask.prompt, .max_tokens = ask.max_tokens}).tokens);
      EXPECT_EQ(got.ends, 1);
    }
    pair.expect_clean();
  }
}

}  // namespace
}  // namespace baton::engine
