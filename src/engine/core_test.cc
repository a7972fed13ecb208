#include "engine/core.h"

#include <gtest/gtest.h>

#include "base/log.h"
#include "engine/testing/fake_model.h"
#include "engine/testing/fake_node.h"

namespace baton::engine {
namespace {

using testing::FakeModel;
using testing::FakeNode;

struct WorkerSetup {
  int32_t blocks = 1000;
  sched::SchedulerConfig scheduler{.max_num_batched_tokens = 256, .max_model_len = 2048};
  bool prefix_caching = true;
  bool fail_on_load_error = false;
  double retained_share_max = 0.4;
};

// One worker without threads: submit, then run() steps until nothing moves.
struct Worker {
  explicit Worker(const WorkerSetup& setup = {})
      : pool(static_cast<size_t>(setup.blocks) * model.kv_layout().block_bytes()), node(pool, model.kv_layout()) {
    EXPECT_TRUE(model.bind_kv(pool).has_value());
    CoreOptions options{.scheduler = setup.scheduler,
                        .prefix_caching = setup.prefix_caching,
                        .fail_on_load_error = setup.fail_on_load_error,
                        .retained_share_max = setup.retained_share_max,
                        .hash_root = kv::root_hash("test")};
    core.emplace(options, model, kv::BlockPool(setup.blocks, setup.prefix_caching), &node, em, clock);
  }
  void run() {
    for (int quiet = 0; quiet < 2;) quiet = core->step() ? 0 : quiet + 1;
  }
  double usage() { return em.kv_usage.value(); }

  FakeModel model;
  std::vector<std::byte> pool;
  FakeNode node;
  Metrics metrics;
  EngineMetrics em{metrics, {.model_name = "fake", .max_model_len = 2048, .block_tokens = 16, .blocks = 1000}};
  ManualClock clock;
  std::optional<Core> core;
  uint64_t next_id = 1;
};

struct Ask {
  std::vector<int32_t> prompt;
  SamplingParams sampling{.temperature = 0};
  int32_t max_tokens = 20, n = 1;
  std::vector<int32_t> eos{}, stops{};
  std::optional<int32_t> logprobs{}, prompt_logprobs{};
  bool prefill_leg = false;
  std::optional<RemotePrompt> remote{};
  std::optional<double> threshold{};
};

struct Handle {
  uint64_t first_id = 0;
  std::shared_ptr<TokenMailbox> mailbox;
};

Handle submit(Worker& w, const Ask& ask) {
  Submission s;
  s.first_id = w.next_id;
  w.next_id += static_cast<uint64_t>(ask.n);
  s.n = ask.n;
  s.prompt = ask.prompt;
  s.sampling = ask.sampling;
  s.max_tokens = ask.max_tokens;
  s.eos_ids = ask.eos;
  s.stop_ids = ask.stops;
  s.logprobs = ask.logprobs;
  s.prompt_logprobs = ask.prompt_logprobs;
  s.prefill_leg = ask.prefill_leg;
  s.send_first_token = ask.prefill_leg;
  s.remote = ask.remote;
  s.cache_hit_threshold = ask.threshold;
  s.out = std::make_shared<TokenMailbox>();
  Handle handle{s.first_id, s.out};
  w.core->submit(std::move(s));
  return handle;
}

struct Outcome {
  std::vector<int32_t> tokens{};
  Finish finish = Finish::kNone;
  std::optional<int32_t> stop_token{};
  std::optional<Error> error{};
  std::vector<LogprobTable> prompt_rows{};
  std::unique_ptr<wire::KvParams> hand_over{};
  int ends = 0;
};

std::vector<Outcome> collect(const Handle& handle, int32_t n = 1) {
  std::vector<Outcome> out(static_cast<size_t>(n));
  while (auto event = handle.mailbox->try_pop()) {
    Outcome& o = out[static_cast<size_t>(event->choice)];
    EXPECT_EQ(o.finish, Finish::kNone) << "an event after the end";
    if (event->token) o.tokens.push_back(*event->token);
    if (event->first) o.prompt_rows = std::move(event->first->prompt_logprobs);
    o.finish = event->finish;
    o.stop_token = event->stop_token;
    o.error = event->error;
    o.hand_over = std::move(event->hand_over);
    o.ends += event->finish != Finish::kNone;
  }
  return out;
}

Outcome alone(const Ask& ask, const WorkerSetup& setup = {}) {
  Worker w(setup);
  const Handle handle = submit(w, ask);
  w.run();
  return std::move(collect(handle)[0]);
}

std::vector<int32_t> random_prompt(Prng& prng, int64_t low = 1, int64_t high = 120) {
  std::vector<int32_t> out(static_cast<size_t>(prng.between(low, high)));
  for (int32_t& id : out) id = static_cast<int32_t>(prng.below(300));
  return out;
}

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
    asks.push_back(std::move(ask));
  }
  return asks;
}

TEST(Core, ManyTogetherAnswerAsEachAlone) {
  const std::pair<const char*, WorkerSetup> setups[] = {
      {"plain", {}},
      {"no prefix cache", {.prefix_caching = false}},
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
        EXPECT_EQ(got.tokens, want[i].tokens) << "request " << i;
        EXPECT_EQ(got.finish, want[i].finish) << "request " << i;
        EXPECT_EQ(got.ends, 1);
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

// ---- P/D

struct Pair {
  explicit Pair(const WorkerSetup& decode_setup = {}, const WorkerSetup& prefill_setup = {})
      : prefill(prefill_setup), decode(decode_setup) {
    log_setup("engine_test", LogLevel::kError);  // failed fetches are what we ask for
    decode.node.join(prefill.node);
  }
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
  void settle() {
    decode.run();
    prefill.run();
  }
  void expect_clean() {
    settle();
    EXPECT_EQ(prefill.usage(), 0);
    EXPECT_EQ(decode.usage(), 0);
    EXPECT_TRUE(prefill.node.offers.empty());
    EXPECT_TRUE(prefill.core->idle() && decode.core->idle());
  }
  Worker prefill, decode;
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
