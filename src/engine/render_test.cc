// Requests of other APIs rendered, and /invocations: one route for several APIs.
#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using ::testing::HasSubstr;
using testing::Reply;
using testing::TestEngine;

std::string ids_of(const Reply& reply) {
  EXPECT_EQ(reply.status, 200) << reply.body;
  const Json json = reply.json();
  const Json* ids = json.find("token_ids");
  std::string out;
  for (const Json& id : ids ? ids->items : std::vector<Json>()) out += cat(*id.as_int(), " ");
  EXPECT_FALSE(out.empty()) << reply.body;
  return out;
}

TEST(Render, MessagesAndResponsesAreTheChatTheyAre) {
  TestEngine e;
  const std::string chat = ids_of(e.post(
      "/v1/chat/completions/render", R"({"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"hi"}]})"));
  const Reply messages =
      e.post("/v1/messages/render", R"({"model":"tiny","max_tokens":7,"system":"Be brief.","messages":[{"role":"user","content":"hi"}]})");
  ASSERT_EQ(ids_of(messages), chat);
  EXPECT_EQ(messages.json().find_path({"sampling_params", "max_tokens"})->as_int(), 7);
  const Reply response = e.post("/v1/responses/render", R"({"instructions":"Be brief.","input":"hi","max_output_tokens":6})");
  ASSERT_EQ(ids_of(response), chat);
  EXPECT_EQ(response.json().find_path({"sampling_params", "max_tokens"})->as_int(), 6);

  const Reply stored = e.post("/v1/responses/render", R"({"input":"hi","previous_response_id":"resp_1"})");
  EXPECT_EQ(stored.status, 400);
  EXPECT_THAT(stored.body, HasSubstr("stateless render endpoint"));
  EXPECT_EQ(e.post("/v1/messages/render", R"({"max_tokens":1})").status, 400);
  EXPECT_EQ(e.post("/v1/responses/render", "{}").status, 400);
}

TEST(Invocations, TheBodySaysWhichApiIsMeant) {
  TestEngine e;
  const auto object = [](const Reply& reply) {
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.json().find("object")->text;
  };
  EXPECT_EQ(object(e.post("/invocations", R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":2})")), "chat.completion");
  EXPECT_EQ(object(e.post("/invocations", R"({"prompt":"hi","max_tokens":2})")), "text_completion");
  for (const char* body : {"[]", "5"}) {
    const Reply none = e.post("/invocations", body);
    EXPECT_EQ(none.status, 400) << body;
    EXPECT_THAT(none.body, HasSubstr("Cannot find suitable handler")) << body;
  }
  EXPECT_EQ(e.post("/invocations", R"({"input":"hi"})").status, 400);
  EXPECT_EQ(e.post("/invocations", "{").status, 400);

  EngineConfig config;
  config.runner = "pooling";
  TestEngine pooled(config);
  EXPECT_EQ(object(pooled.post("/invocations", R"({"input":"hi"})")), "list");
  EXPECT_EQ(pooled.post("/invocations", R"({"prompt":"hi"})").status, 400);
}

TEST(Routes, AnswerAsAWebFrameworkDoes) {
  TestEngine e;
  const Reply wrong = e.get("/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.get("allow"), "POST");
  EXPECT_THAT(wrong.body, HasSubstr(R"("detail":"Method Not Allowed")"));
  EXPECT_EQ(e.post("/ping", "").status, 200);
  EXPECT_EQ(e.get("/v1/mod%65ls").status, 200);
  EXPECT_EQ(e.get("/v1/mod%6").status, 404);

  EngineConfig config;
  config.api_keys = {"k"};
  TestEngine guarded(config);
  EXPECT_EQ(guarded.get("/%761/models").status, 401);
}

TEST(Routes, ABodyOfNothingLacksItsField) {
  TestEngine e;
  for (const char* body : {"", "null"}) {
    net::Headers headers;
    headers.set("Content-Type", "application/json");
    const Reply reply = e.post("/v1/completions", body, std::move(headers));
    EXPECT_EQ(reply.status, 400);
    EXPECT_THAT(reply.body, HasSubstr("Field required")) << body;
    EXPECT_THAT(reply.body, HasSubstr(R"("param":"body")")) << body;
  }
}

}  // namespace
}  // namespace baton::engine
