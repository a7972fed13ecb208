// Speculative decoding: whatever is drafted, and whatever else happens, each answer is what it is without.
#include <gtest/gtest.h>

#include "engine/testing/worker_pair.h"
#include "grammar/constraint.h"

namespace baton::engine {
namespace {

using testing::Ask;
using testing::collect;
using testing::expect_same;
using testing::Handle;
using testing::Outcome;
using testing::random_prompt;
using testing::submit;
using testing::Worker;
using testing::WorkerPair;
using testing::WorkerSetup;

constexpr double kHabit = 6;  // three of four tokens are the usual ones

// Prompts that repeat themselves and each other, with every parameter that changes what is drawn.
std::vector<Ask> random_asks(uint64_t seed, int count) {
  Prng prng(seed);
  const auto shared = random_prompt(prng, 40, 90);
  const auto marks = std::make_shared<const ThinkingMarks>(ThinkingMarks{.open = {4}, .close = {6}, .forced = {1, 6}});
  std::vector<Ask> asks;
  for (int i = 0; i < count; ++i) {
    Ask ask{.prompt = prng.chance(0.5) ? shared : std::vector<int32_t>{}};
    const auto tail = random_prompt(prng, 1, 40);
    for (uint64_t n = 1 + prng.below(3); n > 0; --n) ask.prompt.insert(ask.prompt.end(), tail.begin(), tail.end());
    ask.max_tokens = static_cast<int32_t>(prng.between(1, 60));
    SamplingParams& p = ask.sampling;
    if (prng.chance(0.5)) {
      p = {.temperature = 0.3, .seed = prng.next()};
      if (prng.chance(0.5)) p.top_p = 0.9;
      if (prng.chance(0.3)) p.top_k = 20;
      if (prng.chance(0.3)) p.min_p = 0.05;
      ask.n = static_cast<int32_t>(prng.between(1, 3));
    }
    if (prng.chance(0.3)) p.repetition_penalty = 1.1;
    if (prng.chance(0.2)) p.frequency_penalty = 0.3;
    if (prng.chance(0.2)) p.presence_penalty = 0.5;
    if (prng.chance(0.2)) p.bad_words = {{1, 2}, {7}};
    if (prng.chance(0.2)) p.logit_bias = {{3, 2.0f}, {9, -1.0f}};
    if (prng.chance(0.4)) ask.eos = {2};
    if (prng.chance(0.3)) ask.stops = {static_cast<int32_t>(prng.below(12)), 200};
    if (prng.chance(0.5)) {
      p.min_tokens = static_cast<int32_t>(prng.below(static_cast<uint64_t>(ask.max_tokens)));
      p.masked_until_min = ask.eos;
      p.masked_until_min.insert(p.masked_until_min.end(), ask.stops.begin(), ask.stops.end());
    }
    if (prng.chance(0.3)) ask.logprobs = static_cast<int32_t>(prng.below(4));
    if (prng.chance(0.2)) p.thinking = marks, p.thinking_budget = static_cast<int64_t>(prng.below(5));
    if (prng.chance(0.1)) ask.repetition = {.max_pattern = 12, .min_count = 2};
    asks.push_back(std::move(ask));
  }
  return asks;
}

std::vector<Outcome> undrafted(const Ask& ask) {
  Worker w({.habit = kHabit});
  const Handle handle = submit(w, ask);
  w.run();
  return collect(handle, ask.n);
}

double accepted(const Worker& w) {
  double sum = 0;
  const std::string text = w.metrics.text(), name = "vllm:spec_decode_num_accepted_tokens_total";
  if (const size_t at = text.find("\n" + name + "{"); at != std::string::npos)
    sum = std::atof(text.c_str() + text.find("} ", at) + 2);
  return sum;
}

TEST(Speculation, AnswersAreWhatTheyAreWithout) {
  const SpeculativeConfig eager{.num_speculative_tokens = 5, .prompt_lookup_min = 1, .prompt_lookup_max = 3};
  const std::pair<const char*, WorkerSetup> setups[] = {
      {"plain", {.speculation = eager}},
      {"one draft token",
       {.speculation = SpeculativeConfig{.num_speculative_tokens = 1, .prompt_lookup_min = 1, .prompt_lookup_max = 1}}},
      {"many of them",
       {.speculation = SpeculativeConfig{.num_speculative_tokens = 40, .prompt_lookup_min = 2, .prompt_lookup_max = 4}}},
      {"no prefix cache", {.prefix_caching = false, .speculation = eager}},
      {"rows sampled by three threads", {.speculation = eager, .model_threads = 3}},
      {"tiny steps",
       {.scheduler = {.max_num_batched_tokens = 32, .max_num_seqs = 5, .max_model_len = 2048}, .speculation = eager}},
      {"tiny pool, so preemption",
       {.blocks = 36, .scheduler = {.max_num_batched_tokens = 256, .max_model_len = 500}, .speculation = eager}},
      {"answers cut by the model's length",
       {.scheduler = {.max_num_batched_tokens = 256, .max_model_len = 230}, .speculation = eager}},
  };
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    auto asks = random_asks(seed, 30);
    std::vector<std::vector<Outcome>> want;
    for (const Ask& ask : asks) want.push_back(undrafted(ask));
    for (auto [name, setup] : setups) {
      SCOPED_TRACE(::testing::Message() << name << ", seed " << seed);
      setup.habit = kHabit;
      Worker w(setup);
      std::vector<Handle> handles;
      Prng prng(seed + 100);
      for (const Ask& ask : asks) {
        handles.push_back(submit(w, ask));
        for (int i = 0; i < 8 && prng.chance(0.6); ++i) w.core->step();
      }
      w.run();
      for (size_t i = 0; i < asks.size(); ++i) {
        SCOPED_TRACE(::testing::Message() << "request " << i);
        const auto prompt = static_cast<int32_t>(asks[i].prompt.size());
        auto got = collect(handles[i], asks[i].n);
        for (size_t j = 0; j < got.size(); ++j) {
          Outcome expected = std::move(want[i][j]);
          const bool cut = prompt + static_cast<int32_t>(expected.tokens.size()) > setup.scheduler.max_model_len;
          if (cut) {  // said for this setup alone
            EXPECT_EQ(got[j].finish, prompt < setup.scheduler.max_model_len ? Finish::kLength : Finish::kError);
            ASSERT_LE(got[j].tokens.size(), expected.tokens.size());
            EXPECT_TRUE(std::ranges::equal(got[j].tokens, std::span(expected.tokens).first(got[j].tokens.size())));
          } else {
            expect_same(got[j], expected);
          }
          want[i][j] = std::move(expected);
        }
      }
      EXPECT_EQ(w.usage(), 0);
      EXPECT_TRUE(w.core->idle());
      EXPECT_GT(accepted(w), 20) << "nothing was speculated";
      if (setup.blocks == 36) EXPECT_GT(w.em.preemptions.value(), 0);
    }
  }
}

// What went into the prefix cache of an answer that was drafted is the answer, not the drafts: a conversation that goes on hits
// it.
// The mask moves with every draft that was right, and with none that was not.
TEST(Speculation, ConstrainedAnswersToo) {
  const std::string letters = "abcdefghijklmnopqrstuvwxyz";
  const auto bytes_of = [&](int32_t id) {
    return id == 0 ? std::string_view() : std::string_view(letters).substr(static_cast<size_t>(id) % 26, 1);
  };
  const auto vocabulary = std::make_shared<const grammar::Vocabulary>(300, bytes_of, false);
  const auto constraint =
      grammar::compile({.kind = grammar::Constraint::Kind::kRegex, .text = "([b-f]{2,9}[g-j]?[b-l]){4,12}"}, vocabulary).value();
  Worker w({.speculation = SpeculativeConfig{.num_speculative_tokens = 5, .prompt_lookup_min = 1, .prompt_lookup_max = 3},
            .habit = kHabit});
  std::vector<Ask> asks = random_asks(77, 24);
  std::vector<Handle> handles;
  for (Ask& ask : asks) {
    ask.eos = {0}, ask.stops = {}, ask.constraint = constraint, ask.max_tokens = 150;
    ask.sampling.thinking = nullptr, ask.repetition = {};  // they would cut a text off where the constraint does not let it end
    ask.sampling.min_tokens = 0, ask.sampling.masked_until_min = {}, ask.sampling.bad_words = {};
    handles.push_back(submit(w, ask));
  }
  w.run();
  for (size_t i = 0; i < asks.size(); ++i) {
    const std::vector<Outcome> got = collect(handles[i], asks[i].n), want = undrafted(asks[i]);
    for (size_t k = 0; k < got.size(); ++k) {
      expect_same(got[k], want[k]);
      EXPECT_EQ(got[k].finish, Finish::kStop);
    }
  }
  EXPECT_GT(accepted(w), 0);
}

TEST(Speculation, OnlyWhatWasRightIsCached) {
  const SpeculativeConfig config{.num_speculative_tokens = 8, .prompt_lookup_min = 1, .prompt_lookup_max = 2};
  Prng prng(31);
  for (int round = 0; round < 10; ++round) {
    Worker w({.speculation = config, .habit = kHabit});
    Ask ask{.prompt = random_prompt(prng, 20, 60), .max_tokens = 70};
    for (int turn = 0; turn < 4; ++turn) {
      const auto want = undrafted(ask)[0].tokens;
      const Handle handle = submit(w, ask);
      w.run();
      ASSERT_EQ(collect(handle)[0].tokens, want) << "round " << round << ", turn " << turn;
      ask.prompt.insert(ask.prompt.end(), want.begin(), want.end());
      ask.prompt.push_back(static_cast<int32_t>(prng.below(300)));
    }
    EXPECT_GT(w.em.prefix_hits.value(), 300);
    EXPECT_GT(accepted(w), 20);
  }
}

TEST(Speculation, ADecodeLegDrafts) {
  const SpeculativeConfig config{.num_speculative_tokens = 6, .prompt_lookup_min = 1, .prompt_lookup_max = 3};
  Prng prng(32);
  double drafted = 0;
  for (int round = 0; round < 20; ++round) {
    Ask ask{.prompt = random_prompt(prng, 5, 200), .max_tokens = static_cast<int32_t>(prng.between(1, 60))};
    if (round % 2) ask.sampling = {.temperature = 0.5, .seed = prng.next()};
    const auto want = undrafted(ask)[0].tokens;
    WorkerPair pair({.speculation = config, .habit = kHabit}, {.speculation = config, .habit = kHabit});
    const Handle first =
        submit(pair.prefill, {.prompt = ask.prompt, .sampling = ask.sampling, .max_tokens = 1, .prefill_leg = true});
    pair.prefill.run();
    const Outcome leg = std::move(collect(first)[0]);
    ASSERT_TRUE(leg.hand_over && leg.hand_over->x_kv);
    const wire::XKv& x = *leg.hand_over->x_kv;
    ask.remote = RemotePrompt{.grant = {.token = x.grant, .incarnation = x.incarnation, .engine_id = {}, .host = {}},
                              .digest = token_digest(ask.prompt),
                              .n_tokens = x.n_tokens,
                              .first_token = round % 3 ? x.first_token_id : std::nullopt};
    const Handle handle = submit(pair.decode, ask);
    pair.decode.run();
    EXPECT_EQ(collect(handle)[0].tokens, want) << "round " << round;
    EXPECT_EQ(accepted(pair.prefill), 0);
    drafted += accepted(pair.decode);
    pair.expect_clean();
  }
  EXPECT_GT(drafted, 20);
}

TEST(Speculation, RepetitionTakesFewerSteps) {
  Worker plain({.habit = 100}), drafting({.speculation = SpeculativeConfig{.num_speculative_tokens = 8}, .habit = 100});
  Prng prng(33);
  const Ask ask{.prompt = random_prompt(prng, 50, 50), .max_tokens = 400};
  for (Worker* w : {&plain, &drafting}) {
    const Handle handle = submit(*w, ask);
    w->run();
    EXPECT_EQ(collect(handle)[0].tokens.size(), 400u);
  }
  EXPECT_EQ(plain.model.steps, 400);
  EXPECT_LT(drafting.model.steps, 90);  // 20 tokens until it repeats itself, then nearly nine a step
  const std::string line = drafting.core->speculation_line(10);
  EXPECT_TRUE(line.starts_with("SpecDecoding metrics: Mean acceptance length: ")) << line;
  EXPECT_NE(line.find("Avg Draft acceptance rate: "), std::string::npos) << line;
  EXPECT_EQ(drafting.core->speculation_line(10), "");
  EXPECT_EQ(plain.core->speculation_line(10), "");
  const std::string text = drafting.metrics.text();
  for (const char* sample :
       {"vllm:spec_decode_num_drafts_total{", "vllm:spec_decode_num_draft_tokens_total{",
        "vllm:spec_decode_num_accepted_tokens_total{", "vllm:spec_decode_num_accepted_tokens_per_pos_total{"}) {
    EXPECT_NE(text.find(sample), std::string::npos) << sample;
  }
}

// Text that always looks like a repetition and never is one.
TEST(Speculation, WrongDraftsCostLittle) {
  const SpeculativeConfig config{.num_speculative_tokens = 8, .prompt_lookup_min = 1, .prompt_lookup_max = 1};
  Worker plain, drafting({.speculation = config});
  std::vector<int32_t> every_token(300);
  for (size_t i = 0; i < every_token.size(); ++i) every_token[i] = static_cast<int32_t>(i);
  const Ask ask{.prompt = every_token, .sampling = {.temperature = 1}, .max_tokens = 1000};
  for (Worker* w : {&plain, &drafting}) {
    const Handle handle = submit(*w, ask);
    w->run();
    EXPECT_EQ(collect(handle)[0].tokens.size(), 1000u);
  }
  EXPECT_GT(drafting.model.tokens, plain.model.tokens);
  EXPECT_LT(drafting.model.tokens, plain.model.tokens + 60);
}

TEST(Speculation, ALargeBatchDoesNotDraft) {
  const SpeculativeConfig config{
      .num_speculative_tokens = 4, .prompt_lookup_min = 1, .prompt_lookup_max = 2, .disable_by_batch_size = 4};
  for (const int streams : {4, 5}) {
    Worker w({.speculation = config, .habit = 100});
    std::vector<Handle> handles;
    Prng prng(35);
    for (int i = 0; i < streams; ++i) handles.push_back(submit(w, {.prompt = random_prompt(prng, 30, 30), .max_tokens = 100}));
    for (int i = 0; i < 20; ++i) w.core->step();
    EXPECT_EQ(accepted(w) > 0, streams == 4);
    w.run();
    for (const Handle& h : handles) EXPECT_EQ(collect(h)[0].tokens.size(), 100u);
  }
}

}  // namespace
}  // namespace baton::engine
