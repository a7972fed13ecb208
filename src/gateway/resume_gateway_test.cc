// Streams over real sockets whose worker breaks off in the middle: another one goes on.
#include "gateway/gateway_fixture.h"
#include "wire/openai_response.h"

namespace baton::gateway {
namespace {

using testing::HasSubstr;

const wire::Head kFirst{.id = "cmpl-1", .model = "m", .created = 100}, kSecond{.id = "cmpl-2", .model = "m", .created = 200};

std::string chunk(const wire::Head& head, std::string text, std::string finish = "") {
  wire::Choice choice;
  choice.text = std::move(text), choice.stop.finish_reason = std::move(finish);
  return wire::sse_event(wire::completion_chunk(head, choice, nullptr));
}

// What a worker sends that dies behind `events`.
std::string cut_off(const std::string& events) {
  char size[16];
  std::snprintf(size, sizeof size, "%zx", events.size());
  return cat("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", size, "\r\n", events,
             "\r\n");
}

FakeWorker::Script stream(std::string events) {
  return [=](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
    if (request.path == "/tokenize") {
      const auto body = parse_json(request.body);  // a token a character
      (void)co_await writer.send(net::Response::json(200, cat("{\"count\":", body->find("prompt")->text.size(), "}")));
      co_return;
    }
    (void)co_await writer.begin(200, {{"Content-Type", "text/event-stream"}});
    (void)co_await writer.write(events);
    (void)co_await writer.finish();
  };
}

class ResumeGatewayTest : public GatewayTest {
 protected:
  // `first` gets the request, `second` is there for the rest.
  void start_pair(const discovery::Member& first, FakeWorker& second) {
    second.waiting = 100;
    start({first, second.member("decode")});
    eventually([&] { return metric("inference_pool_average_queue_size{name=\"baton\"}") == "50.0"; }, "queue not scraped");
  }
  const std::string body = R"({"model":"m","prompt":"Once","max_tokens":20,"stream":true})";
};

TEST_F(ResumeGatewayTest, AnotherWorkerGoesOnAndTheClientSeesOneStream) {
  RawWorker first(cut_off(chunk(kFirst, " upon") + chunk(kFirst, " a") + "data: {\"id\":\"cmpl-1\",\"half"));
  FakeWorker second(stream(chunk(kSecond, " time") + chunk(kSecond, ".", "stop") + std::string(wire::kSseDone)));
  start_pair(first.member("decode"), second);
  const auto response = post(body);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, chunk(kFirst, " upon") + chunk(kFirst, " a") + chunk(kFirst, " time") + chunk(kFirst, ".", "stop") +
                               std::string(wire::kSseDone));
  ASSERT_EQ(second.seen().size(), 3u) << "two counts, one question";
  const auto asked = parse_json(second.seen()[2].body);
  EXPECT_EQ(asked->find("prompt")->text, "Once upon a");
  EXPECT_EQ(asked->find("max_tokens")->as_int(), 13);
  EXPECT_EQ(metric(R"(baton_gateway_resumed_streams_total{result="resumed"})"), "1.0");
  EXPECT_EQ(metric("baton_gateway_endpoint_inflight_requests{endpoint=\"" + second.address() + "\"}"), "0");
}

// The worker is asked for token ids, which the client does not see; the next one goes on from them.
TEST_F(ResumeGatewayTest, AnotherWorkerGoesOnFromTheIdsThatWereSampled) {
  const auto event = [](std::string text, std::vector<int32_t> ids, std::optional<std::vector<int32_t>> prompt = {}) {
    wire::Choice choice{.text = std::move(text), .token_ids = std::move(ids)};
    choice.prompt_token_ids = std::move(prompt);
    return wire::sse_event(wire::completion_chunk(kFirst, choice, nullptr));
  };
  RawWorker first(cut_off(event(" rain", {5}, std::vector<int32_t>{1, 4}) + event("storm", {6})));
  FakeWorker second([](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
    const auto body = parse_json(request.body);
    if (request.path == "/detokenize") {
      const bool all = body->find("tokens")->items.size() == 4;
      (void)co_await writer.send(net::Response::json(200, all ? R"({"prompt":"Once rainstorm"})" : R"({"prompt":"Once"})"));
      co_return;
    }
    (void)co_await writer.begin(200, {{"Content-Type", "text/event-stream"}});
    (void)co_await writer.write(chunk(kSecond, ".", "stop") + std::string(wire::kSseDone));
    (void)co_await writer.finish();
  });
  start_pair(first.member("decode"), second);
  EXPECT_EQ(post(body).body,
            chunk(kFirst, " rain") + chunk(kFirst, "storm") + chunk(kFirst, ".", "stop") + std::string(wire::kSseDone));
  ASSERT_EQ(second.seen().size(), 3u) << "two texts, one question";
  const auto asked = parse_json(second.seen()[2].body);
  EXPECT_EQ(asked->find("prompt")->raw(second.seen()[2].body), "[1,4,5,6]");
  EXPECT_EQ(asked->find("max_tokens")->as_int(), 18);
}

TEST_F(ResumeGatewayTest, AWorkerThatTakesNoFieldItDoesNotKnowIsAskedWithoutIt) {
  FakeWorker strict([](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
    if (request.body.find("return_token_ids") != std::string::npos)
      (void)co_await writer.send(net::Response::json(400, R"({"error":{"message":"extra field","code":400}})"));
    else
      (void)co_await writer.send(net::Response::json(200, "{}"));
  });
  start({strict.member("decode")});
  EXPECT_EQ(post(body).status, 200);
  EXPECT_EQ(strict.posts, 2);
  EXPECT_EQ(post(body).status, 200);
  EXPECT_EQ(strict.posts, 3) << "once is enough";
  EXPECT_EQ(strict.seen()[2].body, body);
}

TEST_F(ResumeGatewayTest, AWorkerThatSaysItStopsIsReplacedToo) {
  FakeWorker first(stream(chunk(kFirst, " upon") +
                          "data: {\"error\":{\"message\":\"the engine is shutting down\",\"code\":503}}\n\n" +
                          std::string(wire::kSseDone)));
  FakeWorker second(stream(chunk(kSecond, " it", "stop") + std::string(wire::kSseDone)));
  start_pair(first.member("decode"), second);
  EXPECT_EQ(post(body).body, chunk(kFirst, " upon") + chunk(kFirst, " it", "stop") + std::string(wire::kSseDone));
}

TEST_F(ResumeGatewayTest, WithNobodyLeftThereIsOneClearError) {
  RawWorker only(cut_off(chunk(kFirst, " upon")));
  start({only.member("decode")});
  const auto response = post(body);
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.body, testing::StartsWith(chunk(kFirst, " upon")));
  EXPECT_THAT(response.body, testing::AllOf(HasSubstr("\"error\":"), testing::EndsWith("\n\ndata: [DONE]\n\n")));
  EXPECT_EQ(metric(R"(baton_gateway_resumed_streams_total{result="failed"})"), "1.0");
}

TEST_F(ResumeGatewayTest, WhatCannotBeContinuedIsNot) {
  RawWorker first(cut_off(chunk(kFirst, " upon")));
  FakeWorker second(stream("no"));
  start_pair(first.member("decode"), second);
  EXPECT_THAT(post(R"({"model":"m","prompt":"Once","stream":true,"seed":7,"temperature":1})").body, HasSubstr("\"error\":"));
  EXPECT_EQ(second.posts, 0);
  EXPECT_EQ(metric(R"(baton_gateway_resumed_streams_total{result="unfit"})"), "1.0");
}

TEST_F(ResumeGatewayTest, CanBeTurnedOff) {
  config.resume_streams = false;
  RawWorker first(cut_off(chunk(kFirst, " upon")));
  FakeWorker second(stream("no"));
  start_pair(first.member("decode"), second);
  EXPECT_THAT(post(body).body, HasSubstr("\"error\":"));
  EXPECT_EQ(second.posts, 0);
  gateway->stop();
  FakeWorker sees(always(200, "{}"));
  start({sees.member("decode")});
  post(body);
  EXPECT_EQ(sees.seen()[0].body, body) << "and nothing is asked for beside it";
}

TEST_F(ResumeGatewayTest, RefusedContinuationEndsWithTheError) {
  RawWorker first(cut_off(chunk(kFirst, " upon")));
  FakeWorker second(always(400, R"({"error":{"message":"no","code":400}})"));
  start_pair(first.member("decode"), second);
  EXPECT_THAT(post(body).body, testing::AllOf(HasSubstr("the worker was lost"), testing::Not(HasSubstr("\"no\""))));
}

}  // namespace
}  // namespace baton::gateway
