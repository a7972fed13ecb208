// /v1/responses that are made in the background and streamed, and what is kept of them.
#include <thread>

#include "engine/event_log.h"
#include "engine/response_store.h"
#include "engine/testing/answers.h"
#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using testing::at_event;
using ::testing::HasSubstr;
using testing::Reply;
using testing::talking;
using testing::TestEngine;
using testing::types_of;

// The id of the response in the first event of a stream.
std::string id_of(const std::string& stream) { return at_event(stream, "response.created").find_path({"response", "id"})->text; }

TEST(Responses, OneMadeInTheBackgroundIsFollowed) {
  TestEngine e(talking(true));
  const std::string ask = R"({"input":"x","temperature":0,"max_output_tokens":8,"stream":true,"background":true})";
  const Reply all = e.post("/v1/responses", ask);
  ASSERT_EQ(all.status, 200) << all.body;
  EXPECT_THAT(std::string(all.headers.get("content-type").value_or("")), HasSubstr("text/event-stream"));
  EXPECT_TRUE(types_of(all.body).starts_with("response.created response.in_progress ")) << all.body;
  EXPECT_TRUE(types_of(all.body).ends_with("response.completed ")) << all.body;
  const std::string path = "/v1/responses/" + id_of(all.body);
  EXPECT_EQ(e.get(path).json().find("status")->text, "incomplete") << "its tokens were used up";
  EXPECT_EQ(e.get(path + "?stream=true").body, all.body);
  // From behind any event on.
  size_t begin = 0;
  for (int n = 0; (begin = all.body.find("\n\n", begin) + 2) < all.body.size(); ++n) {
    const Reply rest = e.get(cat(path, "?stream=true&starting_after=", n));
    EXPECT_EQ(rest.body, all.body.substr(begin)) << n;
    EXPECT_THAT(rest.body, HasSubstr(cat("\"sequence_number\":", n + 1)));
  }
  EXPECT_EQ(e.get(path + "?stream=true&starting_after=1000").body, "") << "it has ended";
  for (const char* bad : {"x", "-1", "1x", "99999999999999999999"})
    EXPECT_EQ(e.get(cat(path, "?stream=true&starting_after=", bad)).status, 400) << bad;
  EXPECT_EQ(e.get("/v1/responses/resp_none?stream=true").status, 404);
  const Reply plain = e.post("/v1/responses", R"({"input":"x","temperature":0,"max_output_tokens":2})");
  EXPECT_EQ(e.get(cat("/v1/responses/", plain.json().find("id")->text, "?stream=true")).status, 400);
}

TEST(Responses, OneMadeInTheBackgroundGoesOnWithoutItsClient) {
  TestEngine e(talking(true));
  e.close_gate();
  // A client that leaves after the first token.
  std::string seen;
  net::run_task([&]() -> net::Task<> {
    net::Client client;
    net::Call c;
    c.host = "127.0.0.1", c.port = e.port(), c.method = "POST", c.target = "/v1/responses";
    c.headers.set("Content-Type", "application/json");
    const std::string body =
        R"({"input":"x","temperature":0,"max_output_tokens":8,"stream":true,"background":true,"request_id":"resp_left"})";
    c.body = body;
    e.allow_steps(1);
    auto stream = co_await client.open(std::move(c));
    EXPECT_TRUE(stream);
    if (auto bytes = stream ? co_await (*stream)->read() : Result<std::string>()) seen = *bytes;
  });
  EXPECT_THAT(seen, HasSubstr("response.created"));
  std::string followed;
  std::thread reader([&] { followed = e.get("/v1/responses/resp_left?stream=true&starting_after=0").body; });  // while it is made
  e.open_gate();
  reader.join();
  EXPECT_TRUE(types_of(followed).starts_with("response.in_progress ")) << followed;
  EXPECT_TRUE(types_of(followed).ends_with("response.completed ")) << followed;
  EXPECT_EQ(e.get("/v1/responses/resp_left").json().find_path({"usage", "output_tokens"})->as_int(), 8);
  e.expect_idle();
}

TEST(Responses, AStreamInTheBackgroundThatIsCancelledOrFailsEnds) {
  TestEngine e(talking(true));
  e.close_gate();
  std::string followed;
  std::thread client([&] {
    followed =
        e.post("/v1/responses", R"({"input":"x","max_output_tokens":8,"stream":true,"background":true,"request_id":"resp_c"})")
            .body;
  });
  e.allow_steps(1);
  EXPECT_TRUE(TestEngine::wait_for([&] { return e.get("/v1/responses/resp_c").status == 200; }));
  EXPECT_EQ(e.post("/v1/responses/resp_c/cancel", "{}").json().find("status")->text, "cancelled");
  client.join();
  EXPECT_THAT(followed, ::testing::Not(HasSubstr("response.completed")));
  e.open_gate();
  e.expect_idle();
  EXPECT_EQ(e.get("/v1/responses/resp_c").json().find("status")->text, "cancelled");
  e.model->fail_next = true;
  const Reply fails = e.post("/v1/responses", R"({"input":"x","stream":true,"background":true,"request_id":"resp_f"})");
  EXPECT_EQ(fails.status, 500) << fails.body;
  EXPECT_TRUE(TestEngine::wait_for([&] { return e.get("/v1/responses/resp_f").json().find("status")->text == "failed"; }));
  EXPECT_EQ(e.get("/v1/responses/resp_f?stream=true").status, 500);
}

TEST(EventLog, KeepsTheLastAndSaysWhatIsLost) {
  EventLog log(10);
  log.add("a\n\nb\n\n");
  EXPECT_EQ(log.read(0).bytes, "a\n\nb\n\n");
  log.add("cc\n\nd\n\n");
  EXPECT_TRUE(log.read(0).lost);
  EXPECT_EQ(log.read(1).bytes, "b\n\ncc\n\nd\n\n");
  EXPECT_EQ(log.read(4).bytes, "");
  EXPECT_FALSE(log.read(4).ended);
  log.end();
  log.add("e\n\n");
  EXPECT_TRUE(log.read(4).ended);
  EXPECT_EQ(log.read(7).next, 7u);
}

TEST(ResponseStore, LogsAreBounded) {
  ResponseStore store(100, 1 << 20, 2);
  const auto log = [] { return std::make_shared<EventLog>(100); };
  const auto first = log(), second = log();
  EXPECT_TRUE(store.put("1", {.json = "{}", .log = first}));
  EXPECT_TRUE(store.put("2", {.json = "{}", .log = second}));
  EXPECT_FALSE(store.put("3", {.json = "{}", .log = log()})) << "both are being written";
  EXPECT_FALSE(store.json("3"));
  second->end();
  EXPECT_TRUE(store.put("2", {.json = "{\"done\":1}"}));
  EXPECT_EQ(store.log("2"), second) << "the answer replaces what was there, not its events";
  EXPECT_TRUE(store.put("3", {.json = "{}", .log = log()}));
  EXPECT_EQ(store.log("2"), nullptr);
  EXPECT_TRUE(store.json("2"));
  EXPECT_EQ(store.log("1"), first);
}

}  // namespace
}  // namespace baton::engine
