#pragma once
// Worker: a Core over FakeModel and FakeNode without threads, and the submissions and outcomes tests talk in.
//   Worker w;  Handle h = submit(w, {.prompt = prompt});  w.run();  collect(h)[0].tokens
#include <gtest/gtest.h>

#include "engine/core.h"
#include "engine/limits.h"
#include "engine/testing/fake_model.h"
#include "engine/testing/fake_node.h"

namespace baton::engine::testing {

struct WorkerSetup {
  int32_t blocks = 1000;
  sched::SchedulerConfig scheduler{.max_num_batched_tokens = 256, .max_model_len = 2048};
  bool prefix_caching = true;
  bool fail_on_load_error = false;
  double retained_share_max = 0.4;
  int32_t push_chunk_tokens = 32;
  std::function<void(std::vector<kv::CacheChange>)> on_cache_changes{};
  std::optional<SpeculativeConfig> speculation{};
  double habit = 0;     // FakeModel's
  int model_threads = 1;  // the same
  std::function<void()> on_broken{};
};

// One worker without threads: submit, then run() steps until nothing moves.
struct Worker {
  explicit Worker(const WorkerSetup& setup = {})
      : pool(static_cast<size_t>(setup.blocks) * model.kv_layout().block_bytes()), node(pool, model.kv_layout()) {
    EXPECT_TRUE(model.bind_kv(pool).has_value());
    model.habit = setup.habit;
    model.n_threads = setup.model_threads;
    CoreOptions options{.scheduler = setup.scheduler,
                        .prefix_caching = setup.prefix_caching,
                        .fail_on_load_error = setup.fail_on_load_error,
                        .retained_share_max = setup.retained_share_max,
                        .push_chunk_tokens = setup.push_chunk_tokens,
                        .speculation = setup.speculation,
                        .hash_root = kv::root_hash("test"),
                        .on_cache_changes = setup.on_cache_changes,
                        .on_broken = setup.on_broken};
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
  EngineMetrics em{metrics, {.model_name = "fake", .max_model_len = 2048, .block_tokens = 16, .blocks = 1000,
                            .speculative_tokens = kDraftTokensMax, .max_loras = 2}};
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
  RepetitionLimits repetition{};
  bool prefill_leg = false;
  std::optional<RemotePrompt> remote{};
  std::optional<double> threshold{};
  std::string push_token{};  // prefill leg of a push
  std::shared_ptr<const grammar::Compiled> constraint{};  // ends with eos
  std::shared_ptr<const Adapter> adapter{};
};

struct Handle {
  uint64_t first_id = 0;
  std::shared_ptr<TokenMailbox> mailbox;
};

inline Handle submit(Worker& w, const Ask& ask) {
  Submission s;
  s.first_id = w.next_id;
  w.next_id += static_cast<uint64_t>(ask.n);
  s.n = ask.n;
  s.prompt = ask.prompt;
  s.sampling = ask.sampling;
  s.max_tokens = ask.max_tokens;
  s.eos_ids = ask.eos;
  s.stop_ids = ask.stops;
  s.constraint = ask.constraint;
  s.adapter = ask.adapter;
  s.end_ids = ask.eos;
  s.logprobs = ask.logprobs;
  s.prompt_logprobs = ask.prompt_logprobs;
  s.repetition = ask.repetition;
  s.prefill_leg = ask.prefill_leg;
  s.send_first_token = ask.prefill_leg;
  s.remote = ask.remote;
  s.cache_hit_threshold = ask.threshold;
  s.out = std::make_shared<TokenMailbox>();
  if (!ask.push_token.empty()) {
    auto grant = w.node.promise(ask.push_token, {.request = s.first_id,
                                                 .blocks = {},
                                                 .n_tokens = static_cast<int32_t>(s.prompt.size()),
                                                 .prompt_digest = prompt_digest(s, s.prompt.size())});
    s.promised = *std::move(grant);
  }
  Handle handle{s.first_id, s.out};
  w.core->submit(std::move(s));
  return handle;
}

struct Outcome {
  std::vector<int32_t> tokens{};
  Finish finish = Finish::kNone;
  std::optional<int32_t> stop_token{};
  std::optional<Error> error{};
  std::vector<LogprobTable> rows{}, prompt_rows{};
  std::unique_ptr<wire::KvParams> hand_over{};
  int ends = 0;
};

inline std::vector<Outcome> collect(const Handle& handle, int32_t n = 1) {
  std::vector<Outcome> out(static_cast<size_t>(n));
  while (auto event = handle.mailbox->try_pop()) {
    Outcome& o = out[static_cast<size_t>(event->choice)];
    EXPECT_EQ(o.finish, Finish::kNone) << "an event after the end";
    if (event->token) o.tokens.push_back(*event->token);
    if (!event->logprobs.empty()) o.rows.push_back(std::move(event->logprobs));
    if (event->first) o.prompt_rows = std::move(event->first->prompt_logprobs);
    o.finish = event->finish;
    o.stop_token = event->stop_token;
    o.error = event->error;
    o.hand_over = std::move(event->hand_over);
    o.ends += event->finish != Finish::kNone;
  }
  return out;
}

inline void expect_same(const Outcome& got, const Outcome& want) {
  EXPECT_EQ(got.tokens, want.tokens);
  EXPECT_EQ(got.finish, want.finish);
  EXPECT_EQ(got.stop_token, want.stop_token);
  EXPECT_EQ(got.ends, 1);
  ASSERT_EQ(got.rows.size(), want.rows.size());
  for (size_t i = 0; i < got.rows.size(); ++i) {
    ASSERT_EQ(got.rows[i].size(), want.rows[i].size());
    for (size_t j = 0; j < got.rows[i].size(); ++j) {
      EXPECT_EQ(got.rows[i][j].id, want.rows[i][j].id);
      EXPECT_EQ(got.rows[i][j].logprob, want.rows[i][j].logprob);
    }
  }
}

inline Outcome alone(const Ask& ask, const WorkerSetup& setup = {}) {
  Worker w(setup);
  const Handle handle = submit(w, ask);
  w.run();
  return std::move(collect(handle)[0]);
}

inline std::vector<int32_t> random_prompt(Prng& prng, int64_t low = 1, int64_t high = 120) {
  std::vector<int32_t> out(static_cast<size_t>(prng.between(low, high)));
  for (int32_t& id : out) id = static_cast<int32_t>(prng.below(300));
  return out;
}

}  // namespace baton::engine::testing
