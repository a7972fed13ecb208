// LoRA through Core: which KV is whose, who waits for a place, and what a scrape sees of it.
#include <gtest/gtest.h>

#include "engine/testing/lora_files.h"
#include "engine/testing/worker_pair.h"

namespace baton::engine {
namespace {

using testing::alone;
using testing::Ask;
using testing::collect;
using testing::Handle;
using testing::LoraFiles;
using testing::Outcome;
using testing::random_prompt;
using testing::submit;
using testing::Worker;
using testing::WorkerPair;
using testing::WorkerSetup;

TEST(CoreLora, ManyTogetherAnswerAsEachAlone) {
  const LoraFiles files;
  const std::shared_ptr<const Adapter> adapters[] = {nullptr, files.adapter(1, "a"), files.adapter(2, "b"), files.adapter(3, "c")};
  const std::pair<const char*, WorkerSetup> setups[] = {
      {"one adapter a step", {}},
      {"two, tiny pool, so preemption", {.blocks = 24, .scheduler = {.max_num_batched_tokens = 256, .max_model_len = 400, .max_loras = 2}}},
      {"all, tiny steps", {.scheduler = {.max_num_batched_tokens = 32, .max_num_seqs = 5, .max_model_len = 2048, .max_loras = 3}}}};
  Prng prng(3);
  const auto shared = random_prompt(prng, 60, 60);  // the same prompt under every adapter: their blocks must not meet
  std::vector<Ask> asks;
  for (int i = 0; i < 40; ++i) {
    Ask ask{.prompt = shared, .max_tokens = static_cast<int32_t>(prng.between(1, 40)), .adapter = adapters[prng.below(4)]};
    const auto tail = random_prompt(prng, 1, 30);
    ask.prompt.insert(ask.prompt.end(), tail.begin(), tail.end());
    if (prng.chance(0.2)) ask.prompt_logprobs = 1;
    asks.push_back(std::move(ask));
  }
  std::vector<Outcome> want;
  for (const Ask& ask : asks) want.push_back(alone(ask));
  for (const auto& [name, setup] : setups) {
    SCOPED_TRACE(name);
    Worker w(setup);
    std::vector<Handle> handles;
    for (const Ask& ask : asks) {
      handles.push_back(submit(w, ask));
      if (prng.chance(0.3)) w.core->step();
    }
    w.run();
    for (size_t i = 0; i < asks.size(); ++i) EXPECT_EQ(collect(handles[i])[0].tokens, want[i].tokens) << "request " << i;
    EXPECT_EQ(w.usage(), 0);
    EXPECT_TRUE(w.core->idle());
    EXPECT_GT(w.em.prefix_hits.value(), 0);
    if (setup.blocks == 24) EXPECT_GT(w.em.preemptions.value(), 0);
  }
}

std::string info(Worker& w) {
  const std::string text = w.metrics.text();
  const size_t at = text.find("\nvllm:lora_requests_info{");
  EXPECT_EQ(text.find("\nvllm:lora_requests_info{", at + 1), std::string::npos) << "one series, or readers must guess";
  const size_t open = text.find('{', at);
  return text.substr(open, text.find('}', at) - open + 1);
}

TEST(CoreLora, AScrapeSeesWhoRunsAndWhoWaits) {
  const LoraFiles files;
  const auto a = files.adapter(1, "a"), b = files.adapter(2, "b"), c = files.adapter(3, "c");
  Worker w({.scheduler = {.max_num_batched_tokens = 256, .max_model_len = 2048, .max_loras = 2}});
  EXPECT_EQ(info(w), R"({max_lora="2",running_lora_adapters="",waiting_lora_adapters=""})");
  Prng prng(4);
  const auto ask = [&](const std::shared_ptr<const Adapter>& adapter) {
    return submit(w, {.prompt = random_prompt(prng, 20, 20), .max_tokens = 5, .adapter = adapter});
  };
  std::vector<Handle> handles{ask(b), ask(a), ask(c), ask(nullptr), ask(c), ask(a)};
  w.core->step();
  EXPECT_EQ(info(w), R"({max_lora="2",running_lora_adapters="a,b",waiting_lora_adapters="c"})");
  EXPECT_EQ(w.em.running.value(), 4);
  EXPECT_EQ(w.em.waiting.value(), 2);
  EXPECT_EQ(w.em.waiting_deferred.value(), 2);
  EXPECT_EQ(w.em.waiting_capacity.value(), 0);
  w.run();
  EXPECT_EQ(info(w), R"({max_lora="2",running_lora_adapters="",waiting_lora_adapters=""})");
  EXPECT_EQ(w.em.waiting_deferred.value(), 0);
  for (const Handle& handle : handles) EXPECT_EQ(collect(handle)[0].finish, Finish::kLength);
}

// KV goes over where both legs read the prompt with the same weights, whatever they call them; else it is computed again.
TEST(CoreLora, LegsWithOtherWeightsDoNotMix) {
  const LoraFiles files;
  const auto a = files.adapter(1, "a"), renamed = std::make_shared<const Adapter>(kv::Adapter{.id = 9, .name = "z", .digest = a->key.digest}, a->weights);
  const std::shared_ptr<const Adapter> sides[] = {nullptr, a, renamed, files.adapter(2, "b")};
  Prng prng(5);
  for (size_t p = 0; p < 4; ++p) {
    for (size_t d = 0; d < 4; ++d) {
      for (const bool push : {false, true}) {
        SCOPED_TRACE(cat("prefill ", p, " decode ", d, push ? " push" : ""));
        Ask ask{.prompt = random_prompt(prng, 100, 100), .adapter = sides[d]};
        const auto want = alone(ask).tokens;
        WorkerPair pair;
        const std::string token = "0123456789abcdef0123456789abcdef";
        const Handle first = submit(pair.prefill, {.prompt = ask.prompt, .max_tokens = 1, .prefill_leg = true, .push_token = push ? token : "", .adapter = sides[p]});
        pair.prefill.run();
        const Outcome leg = std::move(collect(first)[0]);
        ASSERT_TRUE(leg.hand_over && leg.hand_over->x_kv);
        Submission mine;
        mine.prompt = ask.prompt;
        mine.adapter = ask.adapter;
        ask.remote = RemotePrompt{.grant = {.token = leg.hand_over->x_kv->grant, .incarnation = 7, .engine_id = {}, .host = {}},
                                  .digest = prompt_digest(mine, mine.prompt.size()),
                                  .n_tokens = 100};
        EXPECT_EQ(hex(ask.remote->digest) == leg.hand_over->x_kv->prompt_digest, p == d || (p % 3 != 0 && d % 3 != 0));
        const Handle handle = submit(pair.decode, ask);
        pair.decode.run();
        EXPECT_EQ(collect(handle)[0].tokens, want);
        const bool used = hex(ask.remote->digest) == leg.hand_over->x_kv->prompt_digest;
        EXPECT_EQ(pair.decode.em.source_external.value() > 0, used);
        pair.expect_clean();
      }
    }
  }
}

}  // namespace
}  // namespace baton::engine
