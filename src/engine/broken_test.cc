// Logits that are not numbers: never an answer. One prompt fails alone; weights that are broken end the service.
#include <gtest/gtest.h>

#include "base/log.h"
#include "engine/testing/test_engine.h"
#include "engine/testing/worker.h"

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

TEST(Broken, OneBadPromptFailsAlone) {
  int broken = 0;
  Worker w({.on_broken = [&] { ++broken; }});
  w.model.no_number = [](int32_t token) { return token == 299; };
  Prng prng(40);
  const Ask good{.prompt = random_prompt(prng, 20, 20), .max_tokens = 3};
  const Handle a = submit(w, good), bad = submit(w, {.prompt = {5, 299}});
  w.run();
  const Outcome failed = std::move(collect(bad)[0]);
  EXPECT_EQ(failed.finish, Finish::kError);
  EXPECT_EQ(failed.error->code, Code::kInternal);
  EXPECT_TRUE(failed.tokens.empty());
  EXPECT_EQ(collect(a)[0].tokens, alone(good).tokens);
  EXPECT_EQ(broken, 0);
  EXPECT_EQ(w.em.corrupted.value(), 1);
  EXPECT_EQ(w.usage(), 0);
}

TEST(Broken, BadWeightsAnswerNobody) {
  int broken = 0;
  Worker w({.on_broken = [&] { ++broken; }});
  Prng prng(41);
  std::vector<Handle> handles;
  for (int i = 0; i < 3; ++i) handles.push_back(submit(w, {.prompt = random_prompt(prng, 20, 20), .max_tokens = 50}));
  for (int i = 0; i < 4; ++i) w.core->step();
  w.model.no_number = [](int32_t) { return true; };
  w.run();
  handles.push_back(submit(w, {.prompt = {1, 2, 3}}));
  w.run();
  for (const Handle& handle : handles) {
    const Outcome o = std::move(collect(handle)[0]);
    EXPECT_EQ(o.finish, Finish::kError);
    EXPECT_EQ(o.error->code, Code::kInternal);
    EXPECT_EQ(o.ends, 1);
  }
  EXPECT_EQ(broken, 1);
  EXPECT_EQ(w.usage(), 0);
  EXPECT_TRUE(w.core->idle());
}

// What a client and a probe see of it.
TEST(Broken, HealthSaysSo) {
  testing::TestEngine e;
  const std::string ask = R"({"prompt":"hello","max_tokens":3,"temperature":0})";
  EXPECT_EQ(e.post("/v1/completions", ask).status, 200);
  e.model->no_number = [](int32_t) { return true; };
  for (int i = 0; i < 2; ++i) {
    const auto reply = e.post("/v1/completions", ask);
    EXPECT_EQ(reply.status, 500) << reply.body;
    EXPECT_EQ(reply.json().find_path({"error", "type"})->text, "InternalServerError");
    EXPECT_EQ(e.get("/health").status, 503);
  }
  EXPECT_EQ(e.get("/metrics").status, 200);
  e.expect_idle();
}

}  // namespace
}  // namespace baton::engine
