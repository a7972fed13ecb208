#include "engine/core.h"

#include <gtest/gtest.h>

#include "engine/testing/worker.h"

namespace baton::engine {
namespace {

using testing::alone;
using testing::Ask;
using testing::collect;
using testing::expect_same;
using testing::Handle;
using testing::Outcome;
using testing::random_prompt;
using testing::submit;
using testing::Worker;
using testing::WorkerSetup;

std::vector<Ask> random_asks(uint64_t seed, int count) {
  Prng prng(seed);
  const auto shared = random_prompt(prng, 40, 90);
  std::vector<Ask> asks;
  for (int i = 0; i < count; ++i) {
    Ask ask{.prompt = prng.chance(0.5) ? shared : std::vector<int32_t>{}};
    const auto tail = random_prompt(prng);
    ask.prompt.insert(ask.prompt.end(), tail.begin(), tail.end());
    ask.max_tokens = static_cast<int32_t>(prng.between(1, 40));
    if (prng.chance(0.5)) {
      ask.sampling.temperature = 0.8;
      ask.sampling.seed = prng.next();
      ask.sampling.top_p = 0.9;
    }
    if (prng.chance(0.3)) ask.sampling.repetition_penalty = 1.2;
    if (prng.chance(0.3)) ask.eos = {2};
    if (prng.chance(0.3)) ask.logprobs = 3;
    asks.push_back(std::move(ask));
  }
  return asks;
}

TEST(Core, ManyTogetherAnswerAsEachAlone) {
  const std::pair<const char*, WorkerSetup> setups[] = {
      {"plain", {}},
      {"no prefix cache", {.prefix_caching = false}},
      {"rows sampled by three threads", {.model_threads = 3}},
      {"tiny steps", {.scheduler = {.max_num_batched_tokens = 32, .max_num_seqs = 5, .max_model_len = 2048}}},
      {"tiny pool, so preemption", {.blocks = 30, .scheduler = {.max_num_batched_tokens = 256, .max_model_len = 400}}},
      {"long prompt threshold",
       {.scheduler = {.max_num_batched_tokens = 256, .max_model_len = 2048, .long_prefill_token_threshold = 17}}},
  };
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    const auto asks = random_asks(seed, 32);
    std::vector<Outcome> want;
    for (const Ask& ask : asks) want.push_back(alone(ask));
    for (const auto& [name, setup] : setups) {
      SCOPED_TRACE(::testing::Message() << name << ", seed " << seed);
      Worker w(setup);
      std::vector<Handle> handles;
      Prng prng(seed + 100);
      for (const Ask& ask : asks) {
        handles.push_back(submit(w, ask));
        if (prng.chance(0.3)) w.core->step();
      }
      w.run();
      for (size_t i = 0; i < asks.size(); ++i) {
        const Outcome got = std::move(collect(handles[i])[0]);
        SCOPED_TRACE(::testing::Message() << "request " << i);
        expect_same(got, want[i]);
        EXPECT_EQ(got.rows.size(), asks[i].logprobs ? got.tokens.size() : 0);
      }
      EXPECT_EQ(w.usage(), 0);
      EXPECT_TRUE(w.core->idle());
      if (setup.blocks == 30) EXPECT_GT(w.em.preemptions.value(), 0);
    }
  }
}

TEST(Core, StopsForTheRightReason) {
  Prng prng(5);
  const auto prompt = random_prompt(prng, 20, 20);
  const auto tokens = alone({.prompt = prompt, .max_tokens = 10}).tokens;
  ASSERT_EQ(tokens.size(), 10u);
  const Outcome eos = alone({.prompt = prompt, .max_tokens = 10, .eos = {tokens[3]}});
  EXPECT_EQ(eos.finish, Finish::kStop);
  EXPECT_FALSE(eos.stop_token);
  EXPECT_EQ(eos.tokens, std::vector<int32_t>(tokens.begin(), tokens.begin() + 4));  // the stopping token counts
  const Outcome stop = alone({.prompt = prompt, .max_tokens = 10, .stops = {tokens[3]}});
  EXPECT_EQ(stop.stop_token, tokens[3]);
  SamplingParams sampling{.temperature = 0, .min_tokens = 6, .masked_until_min = {tokens[3]}};
  const Outcome masked = alone({.prompt = prompt, .sampling = sampling, .max_tokens = 10, .eos = {tokens[3]}});
  EXPECT_GE(masked.tokens.size(), 6u);
  EXPECT_EQ(alone({.prompt = prompt, .max_tokens = 1}).finish, Finish::kLength);
  const Outcome full =
      alone({.prompt = prompt, .max_tokens = 100}, {.scheduler = {.max_num_batched_tokens = 64, .max_model_len = 25}});
  EXPECT_EQ(full.tokens.size(), 5u);  // prompt and output reach max_model_len
  EXPECT_EQ(full.finish, Finish::kLength);
}

TEST(Core, AbortFreesBlocksAtOnce) {
  Worker w;
  Prng prng(6);
  const Handle a = submit(w, {.prompt = random_prompt(prng, 100, 100), .max_tokens = 1000});
  const Handle b = submit(w, {.prompt = random_prompt(prng, 100, 100), .max_tokens = 30});
  for (int i = 0; i < 5; ++i) w.core->step();
  EXPECT_GT(w.usage(), 0);
  w.core->abort(a.first_id, 1);
  w.core->abort(a.first_id, 1);  // twice, and
  w.core->abort(999, 3);         // unknown ids, are nothing
  w.run();
  EXPECT_EQ(w.usage(), 0);
  EXPECT_EQ(w.em.finished(Finish::kAbort).value(), 1);
  EXPECT_EQ(collect(b)[0].tokens.size(), 30u);
}

TEST(Core, AFailedStepFailsItsRequestsOnly) {
  Worker w;
  Prng prng(7);
  const auto prompt = random_prompt(prng, 50, 50);
  const Handle a = submit(w, {.prompt = prompt});
  w.model.fail_next = true;
  w.run();
  const Outcome failed = std::move(collect(a)[0]);
  EXPECT_EQ(failed.finish, Finish::kError);
  EXPECT_EQ(failed.error->code, Code::kInternal);
  EXPECT_EQ(w.usage(), 0);
  const Handle b = submit(w, {.prompt = prompt});
  w.run();
  EXPECT_EQ(collect(b)[0].tokens, alone({.prompt = prompt}).tokens);
}

TEST(Core, SiblingsShareThePrompt) {
  Prng prng(8);
  const auto prompt = random_prompt(prng, 161, 161);
  Ask ask{.prompt = prompt, .sampling = {.temperature = 1, .seed = 5}, .max_tokens = 10, .n = 4};
  Worker w;
  const Handle handle = submit(w, ask);
  w.run();
  const auto outcomes = collect(handle, 4);
  for (int i = 0; i < 4; ++i) {
    Ask single{.prompt = prompt, .sampling = {.temperature = 1, .seed = 5 + static_cast<uint64_t>(i)}, .max_tokens = 10};
    EXPECT_EQ(outcomes[static_cast<size_t>(i)].tokens, alone(single).tokens) << "sibling " << i;
  }
  // 10 full blocks of 161 tokens come from the cache for three of the four; each samples 10 tokens, the last not fed back.
  EXPECT_EQ(w.model.tokens, 161 + 3 * 1 + 4 * 9);
}

TEST(Core, SiblingsShareTheFateOfAFailedPrompt) {
  Worker w;
  Prng prng(9);
  const Handle handle = submit(w, {.prompt = random_prompt(prng, 50, 50), .sampling = {.temperature = 1}, .n = 3});
  w.model.fail_next = true;
  w.run();
  for (const Outcome& o : collect(handle, 3)) EXPECT_EQ(o.finish, Finish::kError);
}

TEST(Core, PromptLogprobsDoNotDependOnTheCut) {
  Prng prng(10);
  const Ask ask{.prompt = random_prompt(prng, 700, 700), .max_tokens = 3, .prompt_logprobs = 2};
  const WorkerSetup setups[] = {{.scheduler = {.max_num_batched_tokens = 1000, .max_model_len = 2048}},
                                {.scheduler = {.max_num_batched_tokens = 300, .max_model_len = 2048}},
                                {.scheduler = {.max_num_batched_tokens = 7, .max_model_len = 2048}}};
  std::vector<Outcome> outcomes;
  for (const WorkerSetup& setup : setups) {
    Worker w(setup);
    const Handle warm = submit(w, {.prompt = ask.prompt});  // a warm prefix cache must not swallow rows
    w.run();
    const Handle handle = submit(w, ask);
    w.run();
    outcomes.push_back(std::move(collect(handle)[0]));
  }
  for (const Outcome& o : outcomes) {
    ASSERT_EQ(o.prompt_rows.size(), 699u);
    EXPECT_EQ(o.tokens, outcomes[0].tokens);
    for (size_t i = 0; i < o.prompt_rows.size(); ++i) {
      ASSERT_GE(o.prompt_rows[i].size(), 2u) << i;
      EXPECT_EQ(o.prompt_rows[i][0].id, ask.prompt[i + 1]);
      EXPECT_EQ(o.prompt_rows[i][0].logprob, outcomes[0].prompt_rows[i][0].logprob) << i;
    }
  }
  EXPECT_EQ(outcomes[0].tokens, alone({.prompt = ask.prompt, .max_tokens = 3}).tokens);
}

TEST(Core, CacheThresholdEndsWithoutTokens) {
  Worker w;
  Prng prng(11);
  const auto prompt = random_prompt(prng, 100, 100);
  const Handle cold = submit(w, {.prompt = prompt, .threshold = 0.5});
  w.run();
  EXPECT_EQ(collect(cold)[0].finish, Finish::kCacheThreshold);
  const Handle fill = submit(w, {.prompt = prompt});
  w.run();
  const Handle warm = submit(w, {.prompt = prompt, .threshold = 0.5});
  w.run();
  EXPECT_EQ(collect(warm)[0].tokens, collect(fill)[0].tokens);
}

}  // namespace
}  // namespace baton::engine
