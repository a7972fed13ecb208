// Server and Client against each other over loopback: the happy paths, framing, reuse, cancellation, timeouts.
#include "net/http.h"

#include <atomic>
#include <future>
#include <latch>
#include <thread>

#include "base/clock.h"
#include "base/json.h"
#include "net/mailbox.h"
#include "net/test_socket.h"

namespace baton::net {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::unique_ptr<Server> serve(Handler handler, ServerOptions options = {}) {
  auto server = std::make_unique<Server>(options, [handler] { return handler; });
  auto started = server->start();
  BATON_CHECK(started.has_value());
  return server;
}

Task<> echo(Request& request, ResponseWriter& writer) {
  Response response = Response::text(200, request.body);
  response.headers.set("x-method", request.method);
  response.headers.set("x-path", request.path);
  response.headers.set("x-query", request.query);
  (void)co_await writer.send(std::move(response));
}

Call to(const Server& server, std::string method = "GET", std::string target = "/") {
  Call call;
  call.host = "127.0.0.1";
  call.port = server.port();
  call.method = std::move(method);
  call.target = std::move(target);
  return call;
}

Result<Response> fetch(Call call) {
  Result<Response> result = fail(Code::kUnknown, "not run");
  run_task([&]() -> Task<> {
    Client client;
    result = co_await client.fetch(call);
  });
  return result;
}

TEST(Http, AnswersARequest) {
  auto server = serve(echo);
  Call call = to(*server, "POST", "/a/b?x=1&y=2");
  call.body = "hello";
  auto response = fetch(call);
  ASSERT_TRUE(response.has_value()) << response.error().message;
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->body, "hello");
  EXPECT_EQ(response->headers.get("X-Method"), "POST");
  EXPECT_EQ(response->headers.get("x-path"), "/a/b");
  EXPECT_EQ(response->headers.get("x-query"), "x=1&y=2");
  EXPECT_EQ(response->headers.get("content-length"), "5");
  EXPECT_TRUE(response->headers.get("date").has_value());
}

TEST(Http, ThousandsOfRequestsOnOneConnection) {
  std::atomic<int> peers{0};
  auto server = serve([&peers, last = std::make_shared<std::string>()](Request& request, ResponseWriter& writer) -> Task<> {
    if (*last != request.peer) ++peers;
    *last = request.peer;
    (void)co_await writer.send(Response::text(200, request.body));
  });
  int right = 0;
  run_task([&]() -> Task<> {
    Client client;
    for (int i = 0; i < 5000; ++i) {
      std::string body(static_cast<size_t>(i % 300), static_cast<char>('a' + i % 26));
      Call call = to(*server, "POST");
      call.body = body;
      auto response = co_await client.fetch(call);
      if (response && response->body == body) ++right;
    }
  });
  EXPECT_EQ(right, 5000);
  EXPECT_EQ(peers, 1);
}

TEST(Http, LargeBodiesBothWays) {
  auto server = serve(echo);
  std::string body(20 << 20, 'x');
  for (size_t i = 0; i < body.size(); i += 4099) body[i] = static_cast<char>('a' + i % 26);
  Call call = to(*server, "POST");
  call.body = body;
  auto response = fetch(call);
  ASSERT_TRUE(response.has_value()) << response.error().message;
  EXPECT_TRUE(response->body == body);
}

TEST(Http, ManyClientsManyThreads) {
  ServerOptions options;
  options.threads = 3;
  auto server = serve(echo, options);
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      run_task([&]() -> Task<> {
        Client client;
        Mailbox<int> done;
        for (int c = 0; c < 16; ++c) {
          spawn_here([](Client& cl, Call call, Mailbox<int>& d, std::atomic<int>& ok, int id) -> Task<> {
            for (int i = 0; i < 25; ++i) {
              std::string body = cat("body ", id, ' ', i);
              call.body = body;
              auto response = co_await cl.fetch(call);
              if (response && response->body == body) ++ok;
            }
            d.push(1);
          }(client, to(*server, "POST"), done, right, t * 100 + c));
        }
        for (int c = 0; c < 16; ++c) co_await done.pop();
      });
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 4 * 16 * 25);
}

TEST(Http, StreamsChunksAsTheyAreWritten) {
  // The handler writes a chunk only after the client has read the one before: nothing on the way may hold bytes back.
  Mailbox<int>* read_by_client = nullptr;
  auto server = serve([&](Request&, ResponseWriter& writer) -> Task<> {
    Mailbox<int> box;
    read_by_client = &box;
    (void)co_await writer.begin(200, {{"content-type", "text/event-stream"}});
    for (int i = 0; i < 20; ++i) {
      (void)co_await writer.write(cat("data: ", i, "\n\n"));
      co_await box.pop();
    }
    (void)co_await writer.finish();
  });
  std::vector<std::string> pieces;
  run_task([&]() -> Task<> {
    Client client;
    auto stream = co_await client.open(to(*server));
    EXPECT_TRUE(stream.has_value());
    EXPECT_EQ((*stream)->status(), 200);
    for (;;) {
      auto piece = co_await (*stream)->read();
      EXPECT_TRUE(piece.has_value());
      if (!piece || piece->empty()) break;
      pieces.push_back(*piece);
      read_by_client->push(1);
    }
  });
  ASSERT_EQ(pieces.size(), 20u);
  EXPECT_EQ(pieces[7], "data: 7\n\n");
}

TEST(Http, HeadAndFirstChunkLeaveTogether) {
  auto server = serve([](Request&, ResponseWriter& writer) -> Task<> {
    (void)co_await writer.begin(200, {});
    (void)co_await writer.write("first");
    (void)co_await writer.finish();
  });
  TestSocket socket(server->port());
  socket.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(socket.read_some(), HasSubstr("\r\n\r\n5\r\nfirst\r\n"));
}

TEST(Http, HeadGoesOutWhenTheHandlerSuspends) {
  std::promise<void> release;
  auto gate = release.get_future().share();
  auto server = serve([gate](Request&, ResponseWriter& writer) -> Task<> {
    (void)co_await writer.begin(200, {});
    while (gate.wait_for(std::chrono::seconds(0)) != std::future_status::ready) co_await sleep_for(Millis(1));
    (void)co_await writer.write("late");
    (void)co_await writer.finish();
  });
  TestSocket socket(server->port());
  socket.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(socket.read_until("\r\n\r\n"), HasSubstr("transfer-encoding: chunked"));
  release.set_value();
  EXPECT_EQ(socket.read_until("0\r\n\r\n"), "4\r\nlate\r\n0\r\n\r\n");
}

TEST(Http, HeadAndBodilessAnswers) {
  auto server = serve([](Request& request, ResponseWriter& writer) -> Task<> {
    if (request.path == "/none") {
      (void)co_await writer.send({.status = 204, .headers = {}, .body = ""});
    } else if (request.path == "/stream") {
      (void)co_await writer.begin(200, {});
      (void)co_await writer.write("body");
      (void)co_await writer.finish();
    } else {
      (void)co_await writer.send(Response::text(request.path == "/same" ? 304 : 200, "body"));
    }
  });
  run_task([&]() -> Task<> {
    Client client;
    for (const char* path : {"/", "/stream"}) {
      auto head = co_await client.fetch(to(*server, "HEAD", path));
      EXPECT_TRUE(head.has_value());
      EXPECT_EQ(head->body, "");
    }
    auto none = co_await client.fetch(to(*server, "GET", "/none"));
    EXPECT_EQ(none->status, 204);
    EXPECT_FALSE(none->headers.get("content-length").has_value());
    auto same = co_await client.fetch(to(*server, "GET", "/same"));
    EXPECT_EQ(same->status, 304);
    EXPECT_EQ(same->body, "");
    auto after = co_await client.fetch(to(*server, "GET", "/"));  // framing is still in step
    EXPECT_EQ(after->body, "body");
  });
}

TEST(Http, ContentLengthGivenByTheHandlerIsKept) {
  auto server = serve([](Request& request, ResponseWriter& writer) -> Task<> {
    (void)co_await writer.begin(200, {{"Content-Length", "6"}, {"Transfer-Encoding", "chunked"}, {"Connection", "upgrade"}});
    (void)co_await writer.write("abc");
    if (request.path == "/long") (void)co_await writer.write("defg");
    if (request.path == "/right") (void)co_await writer.write("def");
    (void)co_await writer.finish();
  });
  auto right = fetch(to(*server, "GET", "/right"));
  ASSERT_TRUE(right.has_value());
  EXPECT_EQ(right->body, "abcdef");
  EXPECT_FALSE(right->headers.get("transfer-encoding").has_value());
  // A handler that breaks its word must not produce something that looks complete.
  EXPECT_EQ(fetch(to(*server, "GET", "/short")).error().code, Code::kDataLoss);
  EXPECT_EQ(fetch(to(*server, "GET", "/long")).error().code, Code::kDataLoss);
}

TEST(Http, HandlerFailuresBecomeAnswers) {
  auto server = serve([](Request& request, ResponseWriter& writer) -> Task<> {
    if (request.path == "/throw") throw std::runtime_error("boom");
    if (request.path == "/half") {
      (void)co_await writer.begin(200, {});
      (void)co_await writer.write("half");
    }
  });
  for (const char* path : {"/throw", "/silent"}) {
    auto response = fetch(to(*server, "GET", path));
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->status, 500);
    EXPECT_THAT(response->body, HasSubstr("InternalServerError"));
  }
  EXPECT_EQ(fetch(to(*server, "GET", "/half")).error().code, Code::kDataLoss);
}

TEST(Http, ResponseHeadersCannotBeSplit) {
  auto server = serve([](Request&, ResponseWriter& writer) -> Task<> {
    (void)co_await writer.send(
        {.status = 200, .headers = {{"x-echo", "a\r\nset-cookie: evil=1"}, {"bad name", "x"}}, .body = ""});
  });
  auto response = fetch(to(*server));
  ASSERT_TRUE(response.has_value());
  EXPECT_FALSE(response->headers.get("set-cookie").has_value());
  EXPECT_EQ(response->headers.get("x-echo"), "a  set-cookie: evil=1");
}

TEST(Http, ClientErrors) {
  int closed_port = 0;
  {
    auto server = serve(echo);
    closed_port = server->port();
  }
  Call call;
  call.host = "127.0.0.1";
  call.port = closed_port;
  EXPECT_EQ(fetch(call).error().code, Code::kUnavailable);
  EXPECT_THAT(fetch(call).error().message, HasSubstr("refused"));
  call.target = "/a b";
  EXPECT_EQ(fetch(call).error().code, Code::kInvalidArgument);
  call.target = "/\r\nx: y";
  EXPECT_EQ(fetch(call).error().code, Code::kInvalidArgument);
}

TEST(Http, ClientTimeouts) {
  auto server = serve([](Request& request, ResponseWriter& writer) -> Task<> {
    if (request.path == "/body") {
      (void)co_await writer.begin(200, {});
      (void)co_await writer.write("some");
    }
    Mailbox<int> never;
    auto hook = writer.cancel().on_cancel([&] { never.close(); });
    co_await never.pop();
  });
  Call call = to(*server);
  call.first_byte_timeout = Millis(20);
  EXPECT_EQ(fetch(call).error().code, Code::kDeadlineExceeded);
  call = to(*server, "GET", "/body");
  call.idle_timeout = Millis(20);
  EXPECT_EQ(fetch(call).error().code, Code::kDeadlineExceeded);
}

TEST(Http, ClientCancel) {
  std::promise<void> cancelled_at_server;
  auto server = serve([&](Request&, ResponseWriter& writer) -> Task<> {
    Mailbox<int> never;
    auto hook = writer.cancel().on_cancel([&] { never.close(); });
    co_await never.pop();
    auto late = co_await writer.send(Response::text(200, "too late"));
    EXPECT_EQ(late.error().code, Code::kCancelled);
    cancelled_at_server.set_value();
  });
  run_task([&]() -> Task<> {
    Client client;
    Cancel cancel;
    spawn_here([](Cancel& c, Server& s) -> Task<> {
      while (s.in_flight() == 0) co_await sleep_for(Millis(1));
      c.cancel();
    }(cancel, *server));
    Call call = to(*server);
    call.cancel = &cancel;
    auto response = co_await client.fetch(call);
    EXPECT_EQ(response.error().code, Code::kCancelled);
    auto again = co_await client.fetch(call);  // already cancelled: ends at once
    EXPECT_EQ(again.error().code, Code::kCancelled);
  });
  EXPECT_EQ(cancelled_at_server.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
}

TEST(Http, FetchIsBounded) {
  auto server = serve([](Request&, ResponseWriter& writer) -> Task<> {
    (void)co_await writer.begin(200, {});
    std::string block(64 << 10, 'x');
    while (co_await writer.write(block)) {
    }
  });
  Call call = to(*server);
  call.body_bytes_max = 1 << 20;
  EXPECT_EQ(fetch(call).error().code, Code::kResourceExhausted);
}

TEST(Http, StoppingTheThreadEndsCallsAndSleeps) {
  auto server = serve([](Request&, ResponseWriter& writer) -> Task<> {
    Mailbox<int> never;
    auto hook = writer.cancel().on_cancel([&] { never.close(); });
    co_await never.pop();
  });
  std::atomic<int> ended{0};
  IoThread thread;
  thread.spawn([&]() -> Task<> {
    co_await sleep_for(std::chrono::hours(1));
    ++ended;
  });
  thread.spawn([&]() -> Task<> {
    Client client;
    auto response = co_await client.fetch(to(*server));
    EXPECT_EQ(response.error().code, Code::kCancelled);
    ++ended;
  });
  thread.spawn([&]() -> Task<> {
    Mailbox<int> never;
    EXPECT_FALSE((co_await never.pop()).has_value());
    ++ended;
  });
  while (server->in_flight() == 0) std::this_thread::yield();
  thread.stop();
  EXPECT_EQ(ended, 3);
}

TEST(Http, StopDrainsWhatIsInFlight) {
  std::promise<void> release;
  auto gate = release.get_future().share();
  auto server = serve([gate](Request&, ResponseWriter& writer) -> Task<> {
    while (gate.wait_for(std::chrono::seconds(0)) != std::future_status::ready) co_await sleep_for(Millis(1));
    (void)co_await writer.send(Response::text(200, "drained"));
  });
  TestSocket idle(server->port()), busy(server->port());
  busy.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  while (server->in_flight() == 0) std::this_thread::yield();
  std::thread stopper([&] { server->stop(std::chrono::seconds(10)); });
  EXPECT_EQ(idle.read_to_end(), "");  // idle connections close at once
  release.set_value();
  std::string answer = busy.read_to_end();
  EXPECT_THAT(answer, HasSubstr("connection: close"));
  EXPECT_THAT(answer, HasSubstr("drained"));
  busy.close();
  stopper.join();
}

TEST(Http, StopGivesUpAfterTheGrace) {
  auto server = serve([](Request&, ResponseWriter&) -> Task<> {
    Mailbox<int> never;
    co_await never.pop();  // ignores its Cancel; the stopping thread ends the wait
  });
  TestSocket busy(server->port());
  busy.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  while (server->in_flight() == 0) std::this_thread::yield();
  server->stop(Millis(1));
  server->stop(Millis(1));
  EXPECT_EQ(busy.read_to_end(), "");
}

TEST(Mailbox, ValuesArriveInOrderFromOtherThreads) {
  constexpr int kValues = 20000;
  int64_t sum = 0;
  bool ordered = true, ended = false;
  run_task([&]() -> Task<> {
    Mailbox<int> box;
    std::thread producer([&box] {
      for (int i = 0; i < kValues; ++i) box.push(i);
      box.close();
    });
    int next = 0;
    while (auto v = co_await box.pop()) {
      ordered &= *v == next++;
      sum += *v;
    }
    ended = next == kValues;
    box.push(1);
    EXPECT_FALSE(box.try_pop().has_value());
    producer.join();
  });
  EXPECT_TRUE(ordered && ended);
  EXPECT_EQ(sum, int64_t{kValues} * (kValues - 1) / 2);
}

}  // namespace
}  // namespace baton::net
