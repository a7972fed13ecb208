// The server against clients that break rules, stop reading, stop sending, or leave. Limits are injected; nothing sleeps.
#include <atomic>
#include <future>
#include <thread>

#include "base/json.h"
#include "net/limits.h"
#include "net/mailbox.h"
#include "net/test_socket.h"

namespace baton::net {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr std::string_view kGet = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

Task<> echo(Request& request, ResponseWriter& writer) { (void)co_await writer.send(Response::text(200, "got " + request.body)); }

std::unique_ptr<Server> serve(Handler handler, ServerOptions options = {}) {
  auto server = std::make_unique<Server>(options, [handler] { return handler; });
  BATON_CHECK(server->start().has_value());
  return server;
}

// A handler that waits until its client is gone, and the events a test waits for.
struct Waiting {
  std::promise<void> entered, cancelled;
  Result<> late_write;
  Handler handler(bool begin = false) {
    return [this, begin](Request&, ResponseWriter& writer) -> Task<> {
      if (begin) (void)co_await writer.begin(200, {});
      entered.set_value();
      Mailbox<int> gone;
      auto hook = writer.cancel().on_cancel([&] { gone.close(); });
      co_await gone.pop();
      late_write = begin ? co_await writer.write("x") : co_await writer.send(Response::text(200, "x"));
      cancelled.set_value();
    };
  }
  bool was_cancelled() { return cancelled.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready; }
};

std::string body_of(const std::string& response) {
  size_t at = response.find("\r\n\r\n");
  return at == std::string::npos ? "" : response.substr(at + 4);
}

TEST(Server, KeepAliveAndClose) {
  auto server = serve(echo);
  TestSocket socket(server->port());
  for (int i = 0; i < 3; ++i) {
    socket.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab");
    EXPECT_THAT(socket.read_until("got ab"), StartsWith("HTTP/1.1 200 OK\r\n"));
  }
  socket.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  std::string last = socket.read_to_end();
  EXPECT_THAT(last, HasSubstr("connection: close"));
}

TEST(Server, Http10) {
  auto server = serve([](Request& request, ResponseWriter& writer) -> Task<> {
    if (request.path == "/plain") co_return (void) co_await writer.send(Response::text(200, "plain"));
    (void)co_await writer.begin(200, {});
    (void)co_await writer.write("streamed");
    (void)co_await writer.finish();
  });
  TestSocket stream(server->port());
  stream.send("GET / HTTP/1.0\r\n\r\n");
  std::string answer = stream.read_to_end();
  EXPECT_EQ(body_of(answer), "streamed");
  EXPECT_THAT(answer, testing::Not(HasSubstr("chunked")));
  TestSocket kept(server->port());
  for (int i = 0; i < 2; ++i) {
    kept.send("GET /plain HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_THAT(kept.read_until("\r\n\r\nplain"), HasSubstr("connection: keep-alive"));
  }
}

TEST(Server, PipelinedRequestsAreAnsweredInOrder) {
  auto server = serve([](Request& request, ResponseWriter& writer) -> Task<> {
    if (request.path == "/0") co_await sleep_for(Millis(2));  // later ones arrive while this one is answered
    (void)co_await writer.send(Response::text(200, "<" + request.path + ">"));
  });
  TestSocket socket(server->port());
  std::string all;
  for (int i = 0; i < 50; ++i) all += cat("GET /", i, " HTTP/1.1\r\nHost: x\r\n\r\n");
  for (size_t at = 0; at < all.size(); at += 11) socket.send(std::string_view(all).substr(at, 11));
  for (int i = 0; i < 50; ++i) EXPECT_THAT(socket.read_until(">"), HasSubstr(cat("</", i, ">")));
}

TEST(Server, PipeliningIsBoundedAndLosesNothing) {
  std::promise<void> release;
  auto gate = release.get_future().share();
  int answered = 0;
  auto server = serve([&, gate](Request& request, ResponseWriter& writer) -> Task<> {
    while (gate.wait_for(std::chrono::seconds(0)) != std::future_status::ready) co_await sleep_for(Millis(1));
    answered += request.body.size() == 50'000;
    (void)co_await writer.send(Response::text(200, "ok."));
  });
  TestSocket socket(server->port());
  std::string post = cat("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n", std::string(50'000, 'x'));
  std::thread sender([&] {
    for (int i = 0; i < 40; ++i) socket.send(post);
  });
  while (server->in_flight() == 0) std::this_thread::yield();
  release.set_value();
  for (int i = 0; i < 40; ++i) EXPECT_THAT(socket.read_until("ok."), HasSubstr("200 OK"));
  sender.join();
  EXPECT_EQ(answered, 40);
}

TEST(Server, RefusalsAreOpenAiShapedAndReachTheClient) {
  ServerOptions options;
  options.header_bytes_max = 2000;
  options.body_bytes_max = 1000;
  auto server = serve(echo, options);
  auto refusal = [&](std::string_view text) {
    TestSocket socket(server->port());
    socket.send(text);
    return socket.read_to_end();
  };
  const std::pair<std::string, int> kCases[] = {
      {cat("GET / HTTP/1.1\r\nHost: x\r\nA: ", std::string(100'000, 'a'), "\r\n\r\n"), 431},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", 413},
      {cat("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n", std::string(3'000'000, 'b')), 413},
      {cat("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n", std::string(0xfffff, 'b')), 413},
      {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
      {"GET / HTTP/1.1\nHost: x\n\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"hello\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\n", 417},
  };
  for (const auto& [text, status] : kCases) {
    std::string answer = refusal(text);
    EXPECT_THAT(answer, StartsWith(cat("HTTP/1.1 ", status, ' '))) << text.substr(0, 100);
    EXPECT_THAT(answer, HasSubstr("connection: close"));
    auto json = parse_json(body_of(answer));
    ASSERT_TRUE(json.has_value()) << answer;
    EXPECT_EQ(json->find_path({"error", "code"})->as_int(), status);
    EXPECT_TRUE(json->find_path({"error", "message"})->is_string());
  }
  // The next request on another connection is not disturbed, and a smuggled second request was never run.
  TestSocket fine(server->port());
  fine.send(kGet);
  EXPECT_THAT(fine.read_until("got "), HasSubstr("200 OK"));
}

TEST(Server, ExpectContinue) {
  ServerOptions options;
  options.body_bytes_max = 1000;
  auto server = serve(echo, options);
  TestSocket socket(server->port());
  for (int i = 0; i < 2; ++i) {
    socket.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    EXPECT_EQ(socket.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    socket.send("body");
    EXPECT_THAT(socket.read_until("got body"), StartsWith("HTTP/1.1 200"));
  }
  socket.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody");  // did not wait
  EXPECT_THAT(socket.read_until("got body"), StartsWith("HTTP/1.1 200"));
  TestSocket large(server->port());  // refused before it is sent
  large.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4000\r\n\r\n");
  EXPECT_THAT(large.read_to_end(), StartsWith("HTTP/1.1 413"));
}

TEST(Server, SlowHeadsAndBodiesEnd) {
  ServerOptions options;
  options.header_timeout = options.body_timeout = Millis(30);
  options.idle_timeout = Millis(200);
  auto server = serve(echo, options);
  for (std::string_view text :
       {"GET / HT", "GET / HTTP/1.1\r\nHost: x\r\nA: b", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"}) {
    TestSocket socket(server->port());
    socket.send(text);
    EXPECT_THAT(socket.read_to_end(), StartsWith("HTTP/1.1 408 ")) << text;
  }
  TestSocket idle(server->port());
  EXPECT_EQ(idle.read_to_end(), "");  // an idle connection ends without a word
}

TEST(Server, ADripOfHeaderBytesDoesNotExtendTheDeadline) {
  ServerOptions options;
  options.header_timeout = Millis(50);
  auto server = serve(echo, options);
  TestSocket socket(server->port());
  std::atomic<bool> ended{false};
  std::thread drip([&] {
    while (!ended && socket.send("x")) std::this_thread::yield();
  });
  EXPECT_THAT(socket.read_to_end(), HasSubstr("408"));
  ended = true;
  drip.join();
}

TEST(Server, ABodyThatMakesProgressIsNotSlow) {
  ServerOptions options;
  options.body_timeout = Millis(500);
  options.idle_timeout = options.header_timeout = Millis(200);
  auto server = serve(echo, options);
  TestSocket socket(server->port());
  socket.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1200\r\n\r\n");
  for (int i = 0; i < 1200; ++i) socket.send("b");
  EXPECT_THAT(socket.read_until("got bbb"), StartsWith("HTTP/1.1 200"));
}

TEST(Server, CloseCancelsAHandlerThatOnlyWaits) {
  for (int how = 0; how < 3; ++how) {
    for (bool begun : {false, true}) {
      Waiting waiting;
      auto server = serve(waiting.handler(begun));
      TestSocket socket(server->port());
      socket.send(kGet);
      waiting.entered.get_future().wait();
      if (how == 0) socket.close();
      if (how == 1) socket.reset();
      if (how == 2) socket.half_close();  // as uvicorn: gone, although it still reads
      EXPECT_TRUE(waiting.was_cancelled()) << how;
      EXPECT_EQ(waiting.late_write.error().code, Code::kCancelled);
    }
  }
}

TEST(Server, LeavingAfterPipelinedBytesStillCancels) {
  Waiting waiting;
  auto server = serve(waiting.handler());
  TestSocket socket(server->port());
  socket.send(cat(kGet, kGet.substr(0, 10)));
  waiting.entered.get_future().wait();
  socket.close();
  EXPECT_TRUE(waiting.was_cancelled());
}

TEST(Server, AClientThatDoesNotReadIsDropped) {
  ServerOptions options;
  options.write_timeout = Millis(50);
  std::promise<Result<>> ended;
  auto server = serve(
      [&](Request&, ResponseWriter& writer) -> Task<> {
        (void)co_await writer.begin(200, {});
        std::string block(1 << 20, 'x');
        Result<> written;
        while (written) written = co_await writer.write(block);
        EXPECT_TRUE(writer.cancel().cancelled());
        ended.set_value(written);
      },
      options);
  TestSocket socket(server->port(), 4096);
  socket.send(kGet);
  auto outcome = ended.get_future();
  ASSERT_EQ(outcome.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_EQ(outcome.get().error().code, Code::kCancelled);
}

TEST(Server, ASlowReaderGetsEverything) {
  std::string block(1 << 20, 'y');
  auto server = serve([&](Request&, ResponseWriter& writer) -> Task<> {
    (void)co_await writer.begin(200, {{"content-length", std::to_string(8 * block.size())}});
    for (int i = 0; i < 8; ++i) (void)co_await writer.write(block);
    (void)co_await writer.finish();
  });
  TestSocket socket(server->port(), 4096);
  socket.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(body_of(socket.read_to_end()).size(), 8 * block.size());
}

TEST(Server, ConnectionsAreBounded) {
  ServerOptions options;
  options.connections_max = 2;
  auto server = serve(echo, options);
  TestSocket a(server->port()), b(server->port());
  for (TestSocket* s : {&a, &b}) {
    s->send(kGet);
    EXPECT_THAT(s->read_until("got "), HasSubstr("200 OK"));
  }
  TestSocket c(server->port());
  EXPECT_THAT(c.read_to_end(), StartsWith("HTTP/1.1 503"));
  a.close();
  for (;;) {  // until the server has seen that a is gone
    TestSocket d(server->port());
    d.send(kGet);
    if (d.read_until("got ").starts_with("HTTP/1.1 200")) break;
  }
}

// More than socket buffers hold: the server must go on reading what it does not want.
TEST(Server, ARefusalReachesAClientThatIsStillSending) {
  ServerOptions options;
  options.body_bytes_max = 1'000;
  auto server = serve(echo, options);
  TestSocket client(server->port());
  client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 40000000\r\n\r\n");
  const std::string part(1'000'000, 'x');
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(client.send(part)) << i;
  EXPECT_THAT(client.read_to_end(), StartsWith("HTTP/1.1 413"));
}

TEST(Server, BodiesAreHeardAsTheyArrive) {
  struct Ear : BodyListener {
    void on_body(std::string_view bytes) override { heard += bytes, ++pieces; }
    std::string heard;
    int pieces = 0;
  };
  ServerOptions options;
  std::atomic<int> asked{0};
  options.listen = [&](std::string_view method, std::string_view target) -> std::shared_ptr<BodyListener> {
    ++asked;
    EXPECT_EQ(method, "POST");
    return target == "/heard?x" ? std::make_shared<Ear>() : nullptr;
  };
  auto server = serve(
      [](Request& request, ResponseWriter& writer) -> Task<> {
        const auto ear = std::static_pointer_cast<Ear>(request.listener);
        const std::string_view what = !ear ? "nobody" : ear->heard == request.body ? "all" : "else";
        co_await writer.send(Response::text(200, cat("got ", what, ' ', request.body.size(), ' ', ear && ear->pieces > 1)));
      },
      options);
  TestSocket client(server->port());
  client.send("POST /heard?x HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n");
  while (asked < 1) std::this_thread::yield();
  for (int i = 0; i < 3; ++i) client.send(std::string(100'000, static_cast<char>('a' + i)));
  EXPECT_THAT(client.read_until("got all 300000 true"), HasSubstr("got all 300000 true"));
  client.send("POST /heard?x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
  while (asked < 2) std::this_thread::yield();  // else it may all come at once
  client.send("1\r\n!\r\n0\r\n\r\n");
  EXPECT_THAT(client.read_until("got all 6 true"), HasSubstr("got all 6 true"));
  client.send("POST /not HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n12");
  while (asked < 3) std::this_thread::yield();
  client.send("345");
  EXPECT_THAT(client.read_until("got nobody 5 false"), HasSubstr("got nobody 5 false"));
}

TEST(Server, AConnectionTooManyHearsSoWhileItSends) {
  ServerOptions options;
  options.connections_max = 1;
  auto server = serve(echo, options);
  TestSocket only(server->port());
  only.send(kGet);
  EXPECT_THAT(only.read_until("got "), HasSubstr("200 OK"));
  TestSocket client(server->port());
  client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n\r\n");
  const std::string part(1'000'000, 'x');
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(client.send(part)) << i;
  const std::string answer = client.read_to_end();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(answer, HasSubstr("retry-after: 1"));
}

TEST(Server, RandomBytesDisturbNobody) {
  ServerOptions options;
  options.header_timeout = Millis(100);
  auto server = serve(echo, options);
  uint64_t seed = 1;
  for (int i = 0; i < 200; ++i) {
    TestSocket socket(server->port());
    std::string noise;
    for (int n = 0; n < 200; ++n)
      noise += static_cast<char>((seed = seed * 6364136223846793005ULL + 1442695040888963407ULL) >> 56);
    if (i % 2) noise = cat("POST / HTTP/1.1\r\nHost: x\r\n", noise);
    socket.send(noise);
    if (i % 3 == 0) socket.reset();
  }
  TestSocket fine(server->port());
  fine.send(kGet);
  EXPECT_THAT(fine.read_until("got "), HasSubstr("200 OK"));
}

TEST(Server, PortInUseAndBadHostAreErrors) {
  auto server = serve(echo);
  ServerOptions options;
  options.port = server->port();
  Server second(options, [] { return Handler(echo); });
  auto started = second.start();
  EXPECT_EQ(started.error().code, Code::kUnavailable);
  EXPECT_THAT(started.error().message, HasSubstr("in use"));
  options.host = "999.1.1.1";
  EXPECT_FALSE(Server(options, [] { return Handler(echo); }).start().has_value());
}

TEST(Server, IPv6) {
  ServerOptions options;
  options.host = "::1";
  Server server(options, [] { return Handler(echo); });
  if (!server.start()) GTEST_SKIP() << "no IPv6 loopback on this machine";
  run_task([&]() -> Task<> {
    Client client;
    Call call;
    call.host = "::1";
    call.port = server.port();
    call.body = "six";
    call.method = "POST";
    auto response = co_await client.fetch(call);
    EXPECT_EQ(response->body, "got six");
  });
}

TEST(Server, AStaleConnectionIsReplacedOnce) {
  // A server that closes a kept connection as soon as the next request arrives on it: the worst moment.
  int served = 0;
  auto server = serve([&](Request&, ResponseWriter& writer) -> Task<> {
    if (++served == 2) {
      (void)co_await writer.begin(200, {{"content-length", "9"}});  // not kept: closes without an answer byte
      co_return;
    }
    (void)co_await writer.send(Response::text(200, cat("served ", served)));
  });
  run_task([&]() -> Task<> {
    Client client;
    Call call;
    call.host = "127.0.0.1";
    call.port = server->port();
    EXPECT_EQ((co_await client.fetch(call))->body, "served 1");
    auto second = co_await client.fetch(call);
    EXPECT_TRUE(second.has_value());
    if (second) EXPECT_EQ(second->body, "served 3");
  });
}

TEST(Server, RestartedUpstreamIsFoundAgain) {
  auto server = serve(echo);
  int port = server->port();
  run_task([&]() -> Task<> {
    Client client;
    Call call;
    call.host = "127.0.0.1";
    call.port = port;
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE((co_await client.fetch(call)).has_value());
      server->stop(Millis(0));
      EXPECT_EQ((co_await client.fetch(call)).error().code, Code::kUnavailable);
      ServerOptions options;
      options.port = port;
      server = serve(echo, options);
    }
  });
}

TEST(Server, UpstreamThatClosesInsideTheBody) {
  auto server = serve([](Request&, ResponseWriter& writer) -> Task<> {
    (void)co_await writer.begin(200, {});
    (void)co_await writer.write("part");
    co_await sleep_for(Millis(1));
  });
  run_task([&]() -> Task<> {
    Client client;
    Call call;
    call.host = "127.0.0.1";
    call.port = server->port();
    auto stream = co_await client.open(call);
    EXPECT_TRUE(stream.has_value());
    EXPECT_EQ(*co_await (*stream)->read(), "part");
    EXPECT_EQ((co_await (*stream)->read()).error().code, Code::kDataLoss);
  });
}

TEST(Server, DroppingAStreamClosesItsConnection) {
  Waiting waiting;
  auto server = serve(waiting.handler(true));
  run_task([&]() -> Task<> {
    Client client;
    Call call;
    call.host = "127.0.0.1";
    call.port = server->port();
    auto stream = co_await client.open(call);
    EXPECT_TRUE(stream.has_value());
    stream->reset();
  });
  EXPECT_TRUE(waiting.was_cancelled());
}

}  // namespace
}  // namespace baton::net
