// The gateway between real sockets: fake workers behind it, the client of net/ before it.
#include <algorithm>

#include "base/trace.h"
#include "gateway/gateway_fixture.h"

namespace baton::gateway {
namespace {

using testing::HasSubstr;

TEST_F(GatewayTest, ForwardsVerbatimAndNamesThePrefillWorker) {
  FakeWorker decode(always(200, R"({"answer":1})")), prefill(always(500, ""));
  start({prefill.member("prefill"), decode.member("decode")});
  const std::string body =
      "{ \"model\" : \"m\",\n \"prompt\":\"caf\xC3\xA9 \\u00e9\", \"unknown\":18446744073709551615, \"n\":1.0, \"n\":2 }";
  const auto response = post(body, {{"X-Custom", "kept"}, {"Authorization", "Bearer abc"}});
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, R"({"answer":1})");
  EXPECT_EQ(response.headers.get("x-baton-worker"), "decode=" + decode.address() + ",prefill=" + prefill.address());
  ASSERT_EQ(decode.seen().size(), 1u);
  const net::Request seen = decode.seen()[0];
  EXPECT_EQ(seen.body, body) << "not one byte may change";
  EXPECT_EQ(seen.headers.get("x-prefiller-host-port"), prefill.address());
  EXPECT_EQ(seen.headers.get("x-custom"), "kept");
  EXPECT_EQ(seen.headers.get("authorization"), "Bearer abc");
  EXPECT_EQ(seen.headers.get("x-request-id"), response.headers.get("x-request-id"));
  EXPECT_EQ(prefill.posts, 0) << "the sidecar talks to the prefill worker, not the gateway";
}

TEST_F(GatewayTest, ATraceGoesOnToTheWorker) {
  const SteadyClock clock;
  Tracer tracer({}, clock);
  config.tracer = &tracer;
  FakeWorker worker(always(200, R"({"choices":[]})"));
  start({worker.member("")});
  EXPECT_EQ(post(R"({"model":"m","prompt":"hi"})", {{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
                                                    {"tracestate", "vendor=1"}})
                .status,
            200);
  gateway.reset();
  const auto seen = worker.seen().at(0);
  EXPECT_EQ(seen.headers.get("tracestate"), "vendor=1");
  EXPECT_EQ(seen.headers.get_all("traceparent").size(), 1u);
  const auto spans = tracer.take(100);
  const auto request = std::ranges::find(spans, "gateway.request", &SpanRecord::name);
  ASSERT_NE(request, spans.end());
  EXPECT_EQ(seen.headers.get("traceparent"), traceparent(request->context));
  EXPECT_EQ(request->parent, parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")->span_id);
}

TEST_F(GatewayTest, MetricsAreReadByWhomTheGuardLets) {
  config.host = "127.0.0.1";
  config.http_port = 0;
  gateway = std::make_unique<Gateway>(config);
  gateway->guard_metrics([]() -> discovery::AccessGuard {
    return [](const net::Request& request) -> net::Task<std::optional<net::Response>> {
      if (request.headers.get("authorization") == "Bearer good") co_return std::nullopt;
      co_return net::Response::text(401, "Unauthorized\n");
    };
  });
  ASSERT_TRUE(gateway->start());
  for (const char* path : {"/metrics", "/debug/plugins/state"}) {
    EXPECT_EQ(call(gateway->port(), "GET", path).status, 401) << path;
    EXPECT_EQ(call(gateway->port(), "GET", path, "", {{"authorization", "Bearer good"}}).status, 200) << path;
  }
  EXPECT_NE(call(gateway->port(), "GET", "/health").status, 401);
}

TEST_F(GatewayTest, HopByHopFieldsStayOnTheirHop) {
  FakeWorker decode(always(200, "{}"));
  start({decode.member("decode")});
  net::TestSocket client(gateway->port());
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: gw\r\nConnection: keep-alive, X-Hop\r\nx-hop: 1\r\nTE: trailers\r\nContent-Length: "
      "2\r\n\r\n{}");
  EXPECT_THAT(client.read_until("{}"), HasSubstr("200 OK"));
  const net::Request seen = decode.seen()[0];
  EXPECT_FALSE(seen.headers.get("x-hop"));
  EXPECT_FALSE(seen.headers.get("te"));
  EXPECT_EQ(seen.headers.get("host"), decode.address());
}

TEST_F(GatewayTest, ClientsCannotRouteOrReadKv) {
  FakeWorker decode(always(200, "{}"));
  start({decode.member("decode")});
  EXPECT_EQ(post("{\"model\":\"m\", \"kv_transfer_params\":{\"remote_host\":\"evil\"} ,\"prompt\":\"a,b\"}",
                 {{"x-prefiller-host-port", "evil:1"},
                  {"X-Prefiller-Url", "http://evil"},
                  {"x-data-parallel-rank", "3"},
                  {"x-data-parallel-host-port", "evil:2"},
                  {"x-kv-cache-source-host-port", "evil:3"},
                  {"x-gateway-destination-endpoint", "evil:4"},
                  {"x-request-id", "my-id"}})
                .headers.get("x-request-id"),
            "my-id");
  const net::Request seen = decode.seen()[0];
  EXPECT_EQ(seen.body, "{\"model\":\"m\", \"prompt\":\"a,b\"}");
  for (const auto& [name, value] : seen.headers.fields()) EXPECT_THAT(value, testing::Not(HasSubstr("evil"))) << name;
  EXPECT_FALSE(seen.headers.get("x-data-parallel-rank"));
  EXPECT_EQ(post("{\"kv_transfer_params\":1,\"model\":\"m\",\"kv_transfer_params\":2}").status, 200);
  EXPECT_EQ(decode.seen()[1].body, "{\"model\":\"m\"}");
  EXPECT_NE(post(R"({"model":"m"})", {{"x-request-id", "spaces are refused"}}).headers.get("x-request-id"), "spaces are refused");
}

TEST_F(GatewayTest, StreamsPiecesAsTheyCome) {
  std::atomic<int> released{0};
  FakeWorker decode([&](net::Request&, net::ResponseWriter& writer) -> net::Task<> {
    (void)co_await writer.begin(200, {{"Content-Type", "text/event-stream; charset=utf-8"}});
    for (int i = 0; i < 5; ++i) {
      (void)co_await writer.write("data: " + std::to_string(i) + "\n\n");
      while (released <= i) co_await net::sleep_for(net::Millis(1));  // not before the client has this piece
    }
    (void)co_await writer.finish();
  });
  start({decode.member("decode")});
  std::string all;
  net::run_task([&]() -> net::Task<> {
    net::Client client;
    net::Call request;
    request.host = "127.0.0.1", request.port = gateway->port(), request.method = "POST", request.target = "/v1/chat/completions";
    request.body = R"({"model":"m","messages":[],"stream":true})";
    request.idle_timeout = net::Millis(20'000);
    auto stream = co_await client.open(std::move(request));
    EXPECT_EQ((*stream)->headers().get("content-type"), "text/event-stream; charset=utf-8");
    for (;;) {
      auto bytes = co_await (*stream)->read();
      EXPECT_TRUE(bytes);
      if (!bytes || bytes->empty()) break;
      all += *bytes;
      ++released;
    }
  });
  EXPECT_EQ(all, "data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n");
}

TEST_F(GatewayTest, RetriesOnAnotherWorkerBeforeTheFirstByte) {
  const std::string kFailures[] = {
      "",                                                                   // closed before the head
      "HTTP/1.1 200 O",                                                     // inside the head
      "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy",  // not ready
      "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbad",
  };
  for (const std::string& failure : kFailures) {
    SCOPED_TRACE("failure: " + failure.substr(0, 20));
    RawWorker broken(failure);
    FakeWorker good(always(200, R"({"ok":true})"));
    good.waiting = 10;  // the scorers prefer the broken one
    start({broken.member("decode"), good.member("decode")});
    eventually([&] { return metric("inference_pool_average_queue_size{name=\"baton\"}") == "5.0"; }, "queue not scraped");
    for (int i = 0; i < 3; ++i) {
      const auto response = post();
      EXPECT_EQ(response.status, 200) << response.body;
      EXPECT_EQ(response.body, R"({"ok":true})");
    }
    EXPECT_GE(broken.posts, 1);
    EXPECT_EQ(good.posts, 3);
  }
}

TEST_F(GatewayTest, RefusedConnectionGoesToAnotherWorkerAndMarksTheFirstDown) {
  FakeWorker gone(always(200, "gone")), good(always(200, "good"));
  good.waiting = 10;
  config.refresh_metrics_interval_ms = 1'000;  // the prober does not notice first
  start({gone.member("decode"), good.member("decode")});
  gone.stop();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(post().body, "good");
  gone.start(gone.port());
  wait_ready(2);
}

TEST_F(GatewayTest, AllWorkersFailing) {
  FakeWorker a(always(503, R"({"error":"a"})")), b(always(503, R"({"error":"a"})"));
  start({a.member("decode"), b.member("decode")});
  const auto response = post();
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.body, R"({"error":"a"})") << "the worker's own words";
  EXPECT_TRUE(response.headers.get("retry-after"));
  EXPECT_EQ(a.posts + b.posts, 2) << "each is tried once";
}

TEST_F(GatewayTest, NoWorkerAtAll) {
  start({}, 0);
  const auto response = post();
  EXPECT_EQ(response.status, 503);
  EXPECT_TRUE(response.headers.get("retry-after"));
  EXPECT_EQ(parse_json(response.body)->find_path({"error", "code"})->as_int(), 503);
  EXPECT_EQ(call(gateway->port(), "GET", "/health").status, 503);
}

// --on-prefill-failure error: the decode worker's sidecar answers 502 while a prefill worker is named.
TEST_F(GatewayTest, FailingPrefillIsLeftOut) {
  const FakeWorker::Script script = [](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
    const bool remote = request.headers.get("x-prefiller-host-port").has_value();
    (void)co_await writer.send(net::Response::json(remote ? 502 : 200, remote ? "prefill failed" : "local"));
  };
  FakeWorker decode(script);
  FakeWorker prefill(always(500, ""));
  config.prefill_may_decode = false;
  start({decode.member("decode"), prefill.member("prefill")});
  const auto response = post();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "local");
  EXPECT_EQ(decode.posts, 2);
}

TEST_F(GatewayTest, DeadDecodeEngineIsLeftWhateverThePrefillWorkers) {
  FakeWorker dead(always(502, "engine gone")), good(always(200, "good"));
  FakeWorker p1(always(500, "")), p2(always(500, "")), p3(always(500, ""));
  good.waiting = 10;  // the scorers prefer the dead one
  start({dead.member("decode"), good.member("decode"), p1.member("prefill"), p2.member("prefill"), p3.member("prefill")});
  eventually(
      [&] {
        return metric("inference_pool_per_pod_queue_size{model_server_pod=\"" + good.address() + "\",name=\"baton\"}") == "10.0";
      },
      "queue not scraped");
  EXPECT_EQ(post().body, "good");
  EXPECT_LE(dead.posts, 2);
}

// The default policy: the sidecar falls back by itself and says so.
TEST_F(GatewayTest, HeaderTellsWhoReallyPrefilled) {
  const FakeWorker::Script script = [](net::Request&, net::ResponseWriter& writer) -> net::Task<> {
    net::Response response = net::Response::json(200, "{}");
    response.headers.set("x-baton-ttft", "prefill_failed=3.00,queue=0.1");
    (void)co_await writer.send(std::move(response));
  };
  FakeWorker decode(script);
  FakeWorker prefill(always(500, ""));
  start({decode.member("decode"), prefill.member("prefill")});
  const auto response = post();
  EXPECT_EQ(response.headers.get("x-baton-worker"), "decode=" + decode.address());
  EXPECT_EQ(response.headers.get("x-baton-ttft"), "prefill_failed=3.00,queue=0.1");
  EXPECT_EQ(metric(R"(baton_gateway_retries_total{reason="prefill_failed"})"), "1.0");
  wait_ready(2);
}

TEST_F(GatewayTest, PrefillWorkerServesAllWhenDecodeIsGone) {
  FakeWorker prefill(always(200, "whole"));
  start({prefill.member("prefill")});
  EXPECT_EQ(post().body, "whole");
  EXPECT_EQ(call(gateway->port(), "GET", "/health").status, 200);
  EXPECT_FALSE(prefill.seen()[0].headers.get("x-prefiller-host-port"));
}

TEST_F(GatewayTest, ClientErrorsOfTheWorkerPassThrough) {
  FakeWorker decode(always(400, R"({"error":{"message":"max_tokens is too large: 5"}})"));
  start({decode.member("decode")});
  const auto response = post();
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.body, R"({"error":{"message":"max_tokens is too large: 5"}})");
  EXPECT_EQ(decode.posts, 1);
}

TEST_F(GatewayTest, LeavingClientCancelsTheWorkerAtOnce) {
  std::atomic<bool> began{false}, cancelled{false};
  FakeWorker decode([&](net::Request&, net::ResponseWriter& writer) -> net::Task<> {
    auto guard = writer.cancel().on_cancel([&] { cancelled = true; });
    began = true;
    while (!writer.cancel().cancelled()) co_await net::sleep_for(net::Millis(1));  // never answers
  });
  start({decode.member("decode")});
  net::TestSocket client(gateway->port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"model\":\"m\"}");
  eventually([&] { return began.load(); }, "request does not arrive");
  client.close();
  eventually([&] { return cancelled.load(); }, "the worker does not learn that the client left");
  eventually([&] { return metric("baton_gateway_endpoint_inflight_requests{endpoint=\"" + decode.address() + "\"}") == "0"; },
             "in-flight leaks");
}

TEST_F(GatewayTest, LostWorkerEndsAnEventStreamWithAnError) {
  RawWorker broken("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: abc\r\n");
  start({broken.member("decode")});
  const auto response = post();
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.body, testing::StartsWith("data: abc\n\ndata: {\"error\":"));
  EXPECT_THAT(response.body, testing::EndsWith("\n\ndata: [DONE]\n\n"));
}

TEST_F(GatewayTest, LostWorkerCutsOffAPlainBody) {
  RawWorker broken("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"half\":");
  start({broken.member("decode")});
  EXPECT_EQ(post().status, -static_cast<int>(Code::kDataLoss)) << "a client must not take half an answer for a whole one";
}

TEST_F(GatewayTest, ErrorsAreOpenAiShaped) {
  FakeWorker decode(always(200, "{}"));
  config.api_key = "secret";
  start({decode.member("decode")});
  const net::Headers key = {{"Authorization", "Bearer secret"}};
  const auto unknown = post(R"({"model":"nope","prompt":"x"})", key);
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.body,
            R"({"error":{"message":"The model `nope` does not exist.","type":"NotFoundError","param":"model","code":404}})");
  for (const char* bad : {"", "{", "[]", "\"x\"", "{\"model\":5}", "{\"model\":\"\xff\"}"}) {
    const auto response = post(bad, key);
    EXPECT_EQ(response.status, 400) << bad;
    EXPECT_EQ(parse_json(response.body)->find_path({"error", "type"})->text, "BadRequestError") << bad;
  }
  EXPECT_EQ(post(std::string(100'000, '['), key).status, 400);
  for (const net::Headers& headers :
       {net::Headers{}, net::Headers{{"Authorization", "Bearer secre"}}, net::Headers{{"Authorization", "Bearer secret1"}}}) {
    EXPECT_EQ(post("{}", headers).status, 401);
    EXPECT_EQ(post("{}", headers).body, R"({"error":"Unauthorized"})");
  }
  EXPECT_EQ(call(gateway->port(), "GET", "/health").status, 200) << "probes need no key";
  EXPECT_EQ(call(gateway->port(), "GET", "/v1/completions", "", key).status, 405);
  EXPECT_EQ(call(gateway->port(), "POST", "/health", "").status, 405);
  EXPECT_EQ(call(gateway->port(), "POST", "/sleep", "{}", key).status, 404);
  EXPECT_EQ(call(gateway->port(), "GET", "/v1/../health", "", key).status, 404);
  EXPECT_EQ(decode.posts, 0);
}

TEST_F(GatewayTest, LimitsConcurrentRequests) {
  std::atomic<bool> release{false};
  FakeWorker decode([&](net::Request&, net::ResponseWriter& writer) -> net::Task<> {
    while (!release) co_await net::sleep_for(net::Millis(1));
    (void)co_await writer.send(net::Response::json(200, "{}"));
  });
  config.concurrent_requests_max = 1;
  start({decode.member("decode")});
  net::TestSocket first(gateway->port());
  first.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
  eventually([&] { return decode.posts == 1; }, "request does not arrive");
  const auto second = post();
  EXPECT_EQ(second.status, 429);
  EXPECT_TRUE(second.headers.get("retry-after"));
  EXPECT_EQ(call(gateway->port(), "GET", "/health").status, 200) << "probes are not limited";
  release = true;
  EXPECT_THAT(first.read_until("{}"), HasSubstr("200 OK"));
  eventually([&] { return post().status == 200; }, "the place is not given back");
}

TEST_F(GatewayTest, MergesModelsAndRoutesByThem) {
  FakeWorker a(always(200, "a"), "model-a"), a2(always(200, "a"), "model-a"), b(always(200, "b"), "model-b");
  start({a.member("decode"), a2.member("decode"), b.member("decode")});
  EXPECT_EQ(call(gateway->port(), "GET", "/v1/models").body,
            R"({"object":"list","data":[{"id":"model-a","object":"model","x":1},{"id":"model-b","object":"model","x":1}]})");
  EXPECT_EQ(call(gateway->port(), "GET", "/v1/models/model-b").body, R"({"id":"model-b","object":"model","x":1})");
  EXPECT_EQ(call(gateway->port(), "GET", "/v1/models/model-c").status, 404);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(post(R"({"model":"model-b","prompt":"x"})").body, "b");
}

TEST_F(GatewayTest, HealthFollowsTheWorkers) {
  FakeWorker decode(always(200, "{}"));
  start({decode.member("decode")});
  EXPECT_EQ(call(gateway->port(), "GET", "/health").status, 200);
  decode.health = 503;
  wait_ready(0);
  EXPECT_EQ(call(gateway->port(), "GET", "/health").status, 503);
  EXPECT_EQ(post().status, 503);
  decode.health = 200;
  wait_ready(1);
  EXPECT_EQ(post().status, 200);
}

TEST_F(GatewayTest, KeepsAPromptOnTheWorkerThatKnowsIt) {
  FakeWorker a(always(200, "a")), b(always(200, "b"));
  start({a.member("decode"), b.member("decode")});
  const std::string prompt(2'000, 'q');
  const std::string first = post(R"({"model":"m","prompt":")" + prompt + "\"}").body;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(post(R"({"model":"m","prompt":")" + prompt + std::to_string(i) + "\"}").body, first);
}

TEST_F(GatewayTest, MembersChangeUnderLoad) {
  FakeWorker a(always(200, "a")), b(always(200, "b")), c(always(200, "c"));
  start({a.member("decode"), b.member("decode"), c.member("decode")});
  std::atomic<bool> stop{false};
  std::atomic<int> answered{0}, failed{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < 3; ++t) {
    clients.emplace_back([&] {
      while (!stop) (post().status == 200 ? answered : failed) += 1;
    });
  }
  for (int round = 0; round < 30; ++round) {
    // `a` always stays; the others come and go.
    gateway->set_members(round % 2 == 0 ? std::vector{a.member("decode"), b.member("decode")}
                                        : std::vector{c.member("prefill"), a.member("both")});
    const int before = answered;
    eventually([&] { return answered > before + 3 || failed > 0; }, "no progress");
  }
  stop = true;
  for (auto& client : clients) client.join();
  EXPECT_EQ(failed, 0);
  EXPECT_GE(answered, 90);
}

TEST_F(GatewayTest, StopDrainsRequestsInFlight) {
  std::atomic<bool> release{false};
  FakeWorker decode([&](net::Request&, net::ResponseWriter& writer) -> net::Task<> {
    while (!release) co_await net::sleep_for(net::Millis(1));
    (void)co_await writer.send(net::Response::json(200, R"({"late":1})"));
  });
  start({decode.member("decode")});
  net::TestSocket client(gateway->port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
  eventually([&] { return decode.posts == 1; }, "request does not arrive");
  std::thread stopper([&] { gateway->stop(); });
  release = true;
  EXPECT_THAT(client.read_until(R"({"late":1})"), HasSubstr("200 OK"));
  gateway->wait();
  gateway->stop();
  stopper.join();
}

TEST_F(GatewayTest, CountsWhatItDid) {
  FakeWorker decode(always(200, "{}")), prefill(always(200, "{}"));
  start({decode.member("decode"), prefill.member("prefill")});
  EXPECT_EQ(post().status, 200);
  EXPECT_EQ(post(R"({"model":"made-up","prompt":"x"})").status, 404);
  EXPECT_EQ(metric(R"(inference_objective_request_total{model_name="m",priority="0",target_model_name="m"})"), "1.0");
  EXPECT_EQ(metric(R"(baton_gateway_requests_total{code="200",pool="baton"})"), "1.0");
  EXPECT_EQ(metric(R"(baton_gateway_requests_total{code="404",pool="baton"})"), "1.0");
  EXPECT_EQ(metric(R"(baton_gateway_first_byte_seconds_count{model_name="m"})"), "1.0");
  EXPECT_EQ(metric("inference_pool_ready_pods{name=\"baton\"}"), "2.0");
  EXPECT_EQ(metric(R"(llm_d_inference_scheduler_pd_decision_total{decision_type="prefill-decode",model_name="m"})"), "1.0");
  EXPECT_EQ(metric("baton_gateway_picks_total{endpoint=\"" + prefill.address() + "\",pool=\"baton\",role=\"prefill\"}"), "1.0");
  EXPECT_EQ(metric(R"(baton_gateway_decisions_total{pool="baton",why="remote-prefill"})"), "1.0");
  EXPECT_EQ(metric("baton_gateway_running_requests"), "0.0");
}

TEST_F(GatewayTest, StartFailsClearly) {
  config.scorers = "made-up-scorer";
  config.pd_decider = "prefix-based-pd-decider";
  const auto bad = Gateway(config).start();
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message, testing::AllOf(HasSubstr("made-up-scorer"), HasSubstr("--non-cached-tokens")));
  GatewayConfig missing;
  missing.http_port = 0;
  missing.endpoints_file = "/nonexistent/endpoints.yaml";
  EXPECT_FALSE(Gateway(missing).start());
}

}  // namespace
}  // namespace baton::gateway
