// HTTP/2 in front of the same handlers: a client's library on plaintext with prior knowledge, and raw frames.
#include <future>
#include <thread>

#include "net/grpc_test_client.h"
#include "net/h2_test_frames.h"
#include "net/http.h"
#include "net/mailbox.h"

namespace baton::net {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using Fields = std::vector<std::pair<std::string, std::string>>;

Task<> echo(Request& request, ResponseWriter& writer) {
  Response response = Response::text(200, request.body);
  auto host = request.headers.get("host").value_or("");
  response.headers.set("X-Seen", cat(request.method, ' ', request.path, ' ', request.query, ' ', host));
  (void)co_await writer.send(std::move(response));
}

std::unique_ptr<Server> serve(Handler handler, ServerOptions options = {}) {
  options.http2 = true;
  auto server = std::make_unique<Server>(options, [handler] { return handler; });
  BATON_CHECK(server->start().has_value());
  return server;
}

std::unique_ptr<GrpcTestClient::Call> get(GrpcTestClient& client, std::string_view target, std::string method = "GET") {
  auto call = client.open(target, {{":method", std::move(method)}, {"content-type", "text/plain"}});
  call->half_close();
  return call;
}

TEST(Http2, AnswersRequests) {
  auto server = serve(echo);
  GrpcTestClient client(server->port());
  auto call = client.open("/a/b?x=1", {{"content-type", "text/plain"}});
  call->send_raw("hello");
  call->half_close();
  call->wait_end();
  EXPECT_EQ(call->field(":status"), "200");
  EXPECT_EQ(call->body(), "hello");
  EXPECT_EQ(call->field("x-seen"), "POST /a/b x=1 test");
  EXPECT_EQ(call->field("content-length"), "5");
  EXPECT_FALSE(call->field("date").empty());
  auto head = get(client, "/", "HEAD");
  head->wait_end();
  EXPECT_EQ(head->field(":status"), "200");
  EXPECT_EQ(head->body(), "");
}

TEST(Http2, BothVersionsOnOnePort) {
  auto server = serve(echo);
  TestSocket one(server->port());
  one.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab");
  EXPECT_THAT(one.read_until("\r\n\r\nab"), StartsWith("HTTP/1.1 200 OK\r\n"));
  TestSocket odd(server->port());
  odd.send("PRI");
  odd.send("NT / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(odd.read_until("\r\n\r\n"), StartsWith("HTTP/1.1 200 OK\r\n"));
  TestSocket two(server->port());
  std::string start = cat(kTestPreface, frame(Frame::kSettings, 0, 0), frame(Frame::kPing, 0, 0, "12345678"));
  for (char c : start) two.send(std::string_view(&c, 1));
  EXPECT_THAT(two.read_until("12345678"), HasSubstr(frame(Frame::kPing, kAck, 0, "12345678")));
  ServerOptions off;
  Server plain(off, [] { return Handler(echo); });
  ASSERT_TRUE(plain.start().has_value());
  TestSocket refused(plain.port());
  refused.send(start);
  EXPECT_THAT(refused.read_to_end(), StartsWith("HTTP/1.1 400 "));
}

TEST(Http2, LargeBodiesBothWaysAndManyAtOnce) {
  auto server = serve(echo);
  GrpcTestClient client(server->port());
  std::vector<std::unique_ptr<GrpcTestClient::Call>> calls;
  std::string body(3 << 20, 'x');
  for (size_t i = 0; i < body.size(); i += 4099) body[i] = static_cast<char>('a' + i % 26);
  client.corked = true;
  for (int i = 0; i < 8; ++i) {
    calls.push_back(client.open("/", {{"content-type", "text/plain"}}));
    calls.back()->send_raw(body);
    calls.back()->half_close();
  }
  for (int i = 0; i < 500; ++i) calls.push_back(get(client, cat("/", i)));
  for (size_t i = 0; i < calls.size(); ++i) {
    calls[i]->wait_end();
    EXPECT_EQ(calls[i]->field(":status"), "200");
    if (i < 8) EXPECT_TRUE(calls[i]->body() == body) << i;
  }
}

TEST(Http2, StreamsWithBackPressure) {
  std::atomic<int> written{0};
  auto server = serve([&](Request&, ResponseWriter& writer) -> Task<> {
    (void)co_await writer.begin(200, {{"content-type", "text/event-stream"}});
    for (int i = 0; i < 200; ++i) {
      auto ok = co_await writer.write(cat("data: ", i, std::string(10'000, '.'), "\n\n"));
      if (!ok) co_return;
      ++written;
    }
    (void)co_await writer.finish();
  });
  GrpcTestClient client(server->port(), nullptr, "", 5'000);
  auto call = get(client, "/");
  client.pump_until([&] { return !call->body().empty(); });
  EXPECT_LT(written, 100);  // a window of 5,000 bytes lets only the queue fill
  call->wait_end();
  EXPECT_EQ(written, 200);
  EXPECT_THAT(call->body(), HasSubstr("data: 199."));
  EXPECT_EQ(call->reset_code(), 0u);
}

// Waits until its client is gone.
struct Waiting {
  std::promise<void> entered, cancelled;
  Handler handler() {
    return [this](Request&, ResponseWriter& writer) -> Task<> {
      (void)co_await writer.begin(200, {});
      entered.set_value();
      Mailbox<int> gone;
      auto hook = writer.cancel().on_cancel([&] { gone.close(); });
      co_await gone.pop();
      EXPECT_EQ((co_await writer.write("x")).error().code, Code::kCancelled);
      cancelled.set_value();
    };
  }
  bool was_cancelled() { return cancelled.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready; }
};

TEST(Http2, ResetAndLossCancelTheHandler) {
  for (bool reset : {true, false}) {
    Waiting waiting;
    auto server = serve(waiting.handler());
    GrpcTestClient client(server->port());
    auto call = get(client, "/");
    waiting.entered.get_future().wait();
    if (reset) {
      call->cancel();
    } else {
      ::shutdown(client.fd(), SHUT_RDWR);
    }
    EXPECT_TRUE(waiting.was_cancelled()) << reset;
  }
}

TEST(Http2, LimitsAnswerAsHttp1Does) {
  ServerOptions options;
  options.header_bytes_max = 2000;
  options.body_bytes_max = 1000;
  options.body_timeout = Millis(30);
  auto server = serve(echo, options);
  GrpcTestClient client(server->port());
  auto status = [&](Fields fields, std::string_view body, bool half_close = true) {
    fields.emplace_back("content-type", "text/plain");
    auto call = client.open("/", std::move(fields));
    call->send_raw(body);
    if (half_close) call->half_close();
    call->wait_end();
    if (call->field(":status") != "200") EXPECT_THAT(call->body(), HasSubstr("\"message\""));
    return call->field(":status");
  };
  EXPECT_EQ(status({}, std::string(1001, 'b')), "413");
  EXPECT_EQ(status({{"a", std::string(3000, 'a')}}, ""), "431");
  EXPECT_EQ(status({}, "never ends", false), "408");
  EXPECT_EQ(status({}, std::string(1000, 'b')), "200");
  EXPECT_FALSE(client.lost());
}

TEST(Http2, HandlersThatFail) {
  auto server = serve([](Request& request, ResponseWriter& writer) -> Task<> {
    if (request.path == "/throw") throw std::runtime_error("boom");
    if (request.path == "/silent") co_return;
    (void)co_await writer.begin(200, {{"content-length", "10"}});
    auto wrote = co_await writer.write(request.path == "/long" ? "more than ten bytes" : "short");
    EXPECT_EQ(wrote.has_value(), request.path != "/long");
    if (request.path == "/left") co_return;
    (void)co_await writer.finish();
  });
  GrpcTestClient client(server->port());
  for (std::string_view path : {"/throw", "/silent"}) {
    auto call = get(client, path);
    call->wait_end();
    EXPECT_EQ(call->field(":status"), "500") << path;
  }
  for (std::string_view path : {"/long", "/short", "/left"}) {
    auto call = get(client, path);
    call->wait_end();
    EXPECT_EQ(call->reset_code(), 2u) << path;  // INTERNAL_ERROR: no cut answer looks complete
  }
}

TEST(Http2, AClientThatDoesNotReadIsReset) {
  ServerOptions options;
  options.write_timeout = Millis(30);
  std::promise<Result<>> ended;
  auto server = serve(
      [&](Request&, ResponseWriter& writer) -> Task<> {
        (void)co_await writer.begin(200, {});
        Result<> written;
        while (written) written = co_await writer.write(std::string(100'000, 'x'));
        EXPECT_TRUE(written.error().code == Code::kCancelled);
        ended.set_value(written);
      },
      options);
  TestSocket socket(server->port());  // grants 65,535 bytes and never more
  socket.send(cat(kTestPreface, frame(Frame::kSettings, 0, 0),
                  frame(Frame::kHeaders, kEndHeaders | kEndStream, 1,
                        header_block({{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"}}))));
  EXPECT_EQ(ended.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
}

TEST(Http2, IdleConnectionsEnd) {
  ServerOptions options;
  options.idle_timeout = Millis(20);
  auto server = serve(echo, options);
  GrpcTestClient client(server->port());
  EXPECT_TRUE(client.wait_lost());
}

TEST(Http2, DrainAnswersWhatIsInFlight) {
  Mailbox<int>* gate = nullptr;
  std::promise<void> entered;
  auto server = serve([&](Request&, ResponseWriter& writer) -> Task<> {
    Mailbox<int> open;
    gate = &open;
    entered.set_value();
    co_await open.pop();
    (void)co_await writer.send(Response::text(200, "answered"));
  });
  GrpcTestClient client(server->port());
  auto call = get(client, "/");
  entered.get_future().wait();
  std::thread stopper([&] { server->stop(Millis(10'000)); });
  EXPECT_TRUE(client.pump_until([&] { return client.goaways().size() == 2; }));
  gate->push(1);
  call->wait_end();
  EXPECT_EQ(call->body(), "answered");
  EXPECT_TRUE(client.wait_lost());
  stopper.join();
}

// A peer that is not ours. Skipped where curl, or its HTTP/2, is missing.
TEST(Http2, Curl) {
  auto run = [](const std::string& command) {
    std::string out;
    FILE* pipe = ::popen(command.c_str(), "r");
    if (!pipe) return out;
    char block[4096];
    for (size_t n; (n = std::fread(block, 1, sizeof block, pipe)) > 0;) out.append(block, n);
    ::pclose(pipe);
    return out;
  };
  if (run("curl --version 2>&1").find("HTTP2") == std::string::npos) GTEST_SKIP() << "no curl with HTTP/2";
  auto server = serve(echo);
  std::string curl = "curl -s -k --max-time 10 -d body -w '|%{http_version} %{http_code}' --http";
  EXPECT_EQ(run(cat(curl, "2-prior-knowledge http://127.0.0.1:", server->port(), "/p")), "body|2 200");
  ServerOptions options;
  auto tls = TlsServer::make({});
  ASSERT_TRUE(tls.has_value());
  options.tls = *tls;
  auto secure = serve(echo, options);
  for (std::string_view version : {"2", "1.1"}) {
    EXPECT_EQ(run(cat(curl, version, " https://127.0.0.1:", secure->port(), "/p")), cat("body|", version, " 200"));
  }
}

}  // namespace
}  // namespace baton::net
