// What an operator asks of an engine: sleep, its documents, its place behind a proxy.
#include <algorithm>

#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using ::testing::HasSubstr;
using testing::Reply;
using testing::TestEngine;

constexpr const char* kGreedy = R"("prompt":"The quick brown fox jumps","max_tokens":8,"temperature":0)";

std::string text_of(const Reply& reply) {
  EXPECT_EQ(reply.status, 200) << reply.body;
  const Json json = reply.json();
  return json.find("choices")->items.at(0).find("text")->text;
}

// Which of vLLM's states /metrics shows: exactly one.
std::string sleep_state(TestEngine& e) {
  std::string out;
  for (const char* state : {"awake", "weights_offloaded", "discard_all"})
    if (e.metric("vllm:engine_sleep_state", cat(R"(sleep_state=")", state, "\"")) == 1) out += state;
  return out;
}

TEST(Admin, SleepsAndWakes) {
  EngineConfig config;
  config.dev_mode = true;
  TestEngine e(config);
  const std::string want = text_of(e.complete(kGreedy));
  EXPECT_EQ(e.get("/is_sleeping").body, R"({"is_sleeping":false})");
  EXPECT_EQ(sleep_state(e), "awake");
  EXPECT_EQ(e.post("/sleep?level=3", "{}").status, 400);
  const Reply slept = e.post("/sleep?level=1", "{}");
  EXPECT_EQ(slept.status, 200);
  EXPECT_EQ(slept.body, R"({"status":"sleeping","level":1,"kv_cache":"released","weights":"kept"})");
  EXPECT_TRUE(e.model->weights_kept);
  EXPECT_EQ(sleep_state(e), "weights_offloaded");
  EXPECT_EQ(e.get("/is_sleeping").body, R"({"is_sleeping":true})");
  const Reply refused = e.complete(kGreedy);
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.error(), HasSubstr("sleeping"));
  EXPECT_EQ(e.post("/sleep", "{}").status, 200);  // it does already
  EXPECT_EQ(e.post("/wake_up?tags=weights", "{}").status, 200);
  EXPECT_EQ(e.get("/is_sleeping").body, R"({"is_sleeping":true})");
  EXPECT_EQ(e.post("/wake_up", "{}").status, 200);
  EXPECT_EQ(e.get("/is_sleeping").body, R"({"is_sleeping":false})");
  EXPECT_EQ(sleep_state(e), "awake");
  EXPECT_EQ(text_of(e.complete(kGreedy)), want);  // nothing of the old cache is taken for true
  e.expect_idle();
}

TEST(Admin, LevelTwoGivesTheWeightsBack) {
  EngineConfig config;
  config.dev_mode = true;
  TestEngine e(config);
  const std::string want = text_of(e.complete(kGreedy));
  EXPECT_EQ(e.post("/sleep", "{}").status, 200);
  EXPECT_EQ(e.post("/sleep?level=2", "{}").body, R"({"status":"sleeping","level":2,"kv_cache":"released","weights":"released"})") << "deeper";
  EXPECT_FALSE(e.model->weights_kept);
  EXPECT_EQ(sleep_state(e), "discard_all");
  EXPECT_EQ(e.post("/wake_up?tags=nonsense", "{}").status, 400);
  EXPECT_EQ(e.post("/wake_up?tags=kv_cache", "{}").status, 200);
  EXPECT_EQ(e.get("/is_sleeping").body, R"({"is_sleeping":true})");
  EXPECT_EQ(e.complete(kGreedy).status, 503) << "the weights are missing";
  EXPECT_EQ(sleep_state(e), "discard_all");
  EXPECT_EQ(e.get("/health").status, 200);
  // Weights that cannot be loaded are told, and can be asked for again.
  e.model->fail_next = true;
  const Reply failed = e.post("/wake_up?tags=weights", "{}");
  EXPECT_EQ(failed.status, 500);
  EXPECT_THAT(failed.error(), HasSubstr("weights could not be loaded again"));
  EXPECT_EQ(e.get("/health").status, 503);
  EXPECT_THAT(e.get("/health").error(), HasSubstr("the weights could not be loaded again: told to fail"));
  EXPECT_EQ(e.complete(kGreedy).status, 503);
  EXPECT_EQ(e.post("/wake_up?tags=weights&tags=kv_cache", "{}").status, 200);
  EXPECT_EQ(e.get("/health").body, "");
  EXPECT_EQ(sleep_state(e), "awake");
  EXPECT_EQ(e.get("/health").status, 200);
  EXPECT_EQ(e.get("/is_sleeping").body, R"({"is_sleeping":false})");
  EXPECT_EQ(text_of(e.complete(kGreedy)), want);
  e.expect_idle();
}

TEST(Admin, DoesNotSleepUnderARequest) {
  EngineConfig config;
  config.dev_mode = true;
  config.responses_store = true;
  TestEngine e(config);
  e.close_gate();
  EXPECT_EQ(e.post("/v1/responses", R"({"input":"x","max_output_tokens":3,"background":true})").status, 200);
  EXPECT_TRUE(TestEngine::wait_for([&] { return e.metric("vllm:num_requests_running") == 1; }));
  e.open_gate();
  // Before its end or after it: a sleeping engine holds no request.
  const int status = e.post("/sleep", "{}").status;
  EXPECT_TRUE(status == 200 || status == 503);
  if (status == 200) EXPECT_EQ(e.metric("vllm:num_requests_running"), 0);
}

TEST(Admin, OnlyInDevelopmentMode) {
  TestEngine e;
  for (const char* path : {"/sleep", "/wake_up", "/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"})
    EXPECT_EQ(e.post(path, "{}").status, 404) << path;
  EXPECT_EQ(e.get("/is_sleeping").status, 404);
  EXPECT_EQ(e.get("/tokenizer_info").status, 404);
  EngineConfig config;
  config.dev_mode = true;
  TestEngine developed(config);
  for (const char* path : {"/reset_mm_cache", "/reset_encoder_cache"}) EXPECT_EQ(developed.post(path, "").status, 200) << path;
}

TEST(Admin, DocumentsAreTheRoutes) {
  TestEngine e;
  const Json json = e.get("/openapi.json").json();
  const Json& paths = *json.find("paths");
  EXPECT_GT(paths.keys.size(), 20u);
  for (size_t i = 0; i < paths.keys.size(); ++i) {
    std::string path = paths.keys[i];
    if (const size_t open = path.find('{'); open != std::string::npos) path.replace(open, path.find('}') - open + 1, "x");
    for (const std::string& method : paths.items[i].keys) {  // what is said to be there is: never "Method Not Allowed"
      const int status = method == "get" ? e.get(path).status : e.post(path, "{}").status;
      EXPECT_NE(status, 405) << method << " " << path;
    }
    EXPECT_THAT(e.get("/docs").body, HasSubstr(paths.keys[i]));
  }
  EXPECT_EQ(json.find_path({"paths", "/v1/chat/completions", "post", "operationId"})->text, "post_v1_chat_completions");
  EngineConfig config;
  config.docs = false;
  TestEngine without(config);
  EXPECT_EQ(without.get("/docs").status, 404);
  EXPECT_EQ(without.get("/openapi.json").status, 404);
}

TEST(Admin, RootPathIsTakenOff) {
  EngineConfig config;
  config.root_path = "/llm";
  config.api_keys = {"secret"};
  config.tokenizer_info = true;
  TestEngine e(config);
  EXPECT_EQ(e.get("/llm/health").status, 200);
  EXPECT_EQ(e.get("/health").status, 200);  // a proxy may have taken it off
  EXPECT_EQ(e.get("/llmx/health").status, 404);
  EXPECT_EQ(e.get("/llm/v1/models").status, 401);
  EXPECT_EQ(e.post("/inference/v1/generate", "{}").status, 401);
  EXPECT_EQ(e.get("/llm/tokenizer_info").body, "{}");  // tests bring none
  EXPECT_THAT(e.get("/llm/openapi.json").body, HasSubstr(R"("servers":[{"url":"/llm"}])"));
}

// ---- beams, which are the engine's on top of itself

// By the definition, step by step.
TEST(Beams, AreTheBestOfWhatTheModelSays) {
  TestEngine e;
  const auto ask = [&](const std::string& fields) {
    return e.complete(cat(R"("prompt":[20,21,22],"temperature":0,"ignore_eos":true,)", fields)).json();
  };
  // By hand: two steps, width 2.
  const auto next = [&](const std::string& prompt) {
    std::vector<std::pair<double, int32_t>> out;
    const Json json = e.complete(cat(R"("prompt":[)", prompt,
                                     R"(],"max_tokens":1,"temperature":0,"logprobs":4,)"
                                     R"("ignore_eos":true,"return_tokens_as_token_ids":true)"))
                          .json();
    const Json& top = json.find("choices")->items[0].find_path({"logprobs", "top_logprobs"})->items.at(0);
    for (size_t i = 0; i < 4; ++i)
      out.emplace_back(*top.items[i].as_double(), std::stoi(top.keys[i].substr(std::string("token_id:").size())));
    return out;
  };
  std::vector<std::pair<double, std::string>> ends;
  const auto first = next("20,21,22");
  for (size_t i = 0; i < 2; ++i) {
    for (const auto& [logprob, id] : next(cat("20,21,22,", first[i].second)))
      ends.emplace_back(first[i].first + logprob, cat(first[i].second, ",", id));
  }
  std::sort(ends.rbegin(), ends.rend());
  const Json json = ask(R"("max_tokens":2,"use_beam_search":true,"n":2,"return_token_ids":true)");
  const auto& choices = json.find("choices")->items;
  ASSERT_EQ(choices.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    std::string ids;
    for (const Json& id : choices[i].find("token_ids")->items) ids += cat(ids.empty() ? "" : ",", id.text);
    EXPECT_EQ(ids, ends[i].second) << i;
    EXPECT_EQ(choices[i].find("index")->as_int(), static_cast<int64_t>(i));
    EXPECT_EQ(choices[i].find("finish_reason")->text, "length");
  }
  EXPECT_EQ(json.find_path({"usage", "completion_tokens"})->as_int(), 4);
  // Width one is greedy.
  EXPECT_EQ(ask(R"("max_tokens":6,"use_beam_search":true)").find("choices")->items[0].find("text")->text,
            ask(R"("max_tokens":6)").find("choices")->items[0].find("text")->text);
  EXPECT_THAT(e.complete(R"("prompt":"x","use_beam_search":true,"n":11)").error(), HasSubstr("greater than max allowed: 20"));
  e.model->fail_next = true;
  EXPECT_EQ(e.complete(R"("prompt":"x","use_beam_search":true,"n":2)").status, 500);
  e.expect_idle();
}

}  // namespace
}  // namespace baton::engine
