// The client against upstreams that are slow, odd or broken: raw sockets play them.
#include <functional>
#include <thread>

#include "net/http.h"
#include "net/test_socket.h"

namespace baton::net {
namespace {

using testing::HasSubstr;

// Accepts connections one after the other and plays `script` on each.
class RawUpstream {
 public:
  explicit RawUpstream(std::function<void(TestSocket&)> script, int connections = 1)
      : thread_([this, script = std::move(script), connections] {
          for (int i = 0; i < connections; ++i) {
            TestSocket peer(TestSocket::Accepted{listener_.accept()});
            script(peer);
          }
        }) {}
  ~RawUpstream() { thread_.join(); }
  int port() const { return listener_.port(); }

 private:
  TestListener listener_;
  std::thread thread_;
};

Call call_to(int port) {
  Call call;
  call.host = "127.0.0.1";
  call.port = port;
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

Result<Response> fetch_from(std::string_view answer) {
  RawUpstream upstream([&](TestSocket& peer) {
    peer.read_until("\r\n\r\n");
    peer.send(answer);
    peer.half_close();
    peer.read_to_end();
  });
  return fetch(call_to(upstream.port()));
}

TEST(Client, WritesAPlainRequest) {
  std::string seen;
  RawUpstream upstream([&](TestSocket& peer) {
    seen = peer.read_until("body");
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
  });
  Call call = call_to(upstream.port());
  call.method = "POST", call.target = "/p?q=1", call.body = "body";
  call.headers = {
      {"A", "b"}, {"Connection", "upgrade"}, {"Transfer-Encoding", "chunked"}, {"Content-Length", "99"}, {"X", "a\r\nY: z"}};
  EXPECT_EQ(fetch(call)->status, 200);
  EXPECT_EQ(seen, cat("POST /p?q=1 HTTP/1.1\r\nhost: 127.0.0.1:", upstream.port(),
                      "\r\nA: b\r\nX: a  Y: z\r\ncontent-length: 4\r\n\r\nbody"));
}

TEST(Client, EveryWayABodyCanEnd) {
  EXPECT_EQ(fetch_from("HTTP/1.1 200 OK\r\n\r\nuntil close")->body, "until close");
  EXPECT_EQ(fetch_from("HTTP/1.0 200 OK\r\n\r\n")->body, "");
  EXPECT_EQ(fetch_from("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef")->body, "abc");
  EXPECT_EQ(fetch_from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")->body, "abc");
  EXPECT_EQ(fetch_from(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
                ->body,
            "a");
  EXPECT_EQ(fetch_from("HTTP/1.1 204 No Content\r\n\r\n")->status, 204);
}

TEST(Client, EveryWayAnAnswerCanBreak) {
  EXPECT_EQ(fetch_from("").error().code, Code::kUnavailable);
  EXPECT_EQ(fetch_from("HTTP/1.1 200 O").error().code, Code::kUnavailable);
  EXPECT_EQ(fetch_from("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab").error().code, Code::kDataLoss);
  EXPECT_EQ(fetch_from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").error().code, Code::kDataLoss);
  EXPECT_EQ(fetch_from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n").error().code, Code::kInternal);
  EXPECT_EQ(fetch_from("SSH-2.0-OpenSSH\r\n").error().code, Code::kInternal);
  EXPECT_EQ(fetch_from(cat("HTTP/1.1 200 OK\r\nA: ", std::string(1 << 20, 'a'))).error().code, Code::kInternal);
}

TEST(Client, AnEarlyAnswerToALargeBodyIsSeen) {
  RawUpstream upstream([](TestSocket& peer) {
    peer.read_until("\r\n\r\n");
    peer.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig");
    peer.half_close();
    peer.read_to_end();
  });
  std::string body(16 << 20, 'x');
  Call call = call_to(upstream.port());
  call.method = "POST", call.body = body;
  auto response = fetch(call);
  ASSERT_TRUE(response.has_value()) << response.error().message;
  EXPECT_EQ(response->status, 413);
  EXPECT_EQ(response->body, "big");
}

TEST(Client, UnaskedBytesEndAConnectionsReuse) {
  // Bytes behind a response would be read as the next one: such a connection must not go back to the pool.
  int connections = 0;
  RawUpstream upstream(
      [&](TestSocket& peer) {
        ++connections;
        peer.read_until("\r\n\r\n");
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        peer.read_to_end();
      },
      2);
  run_task([&]() -> Task<> {
    Client client;
    for (int i = 0; i < 2; ++i) EXPECT_EQ((co_await client.fetch(call_to(upstream.port())))->body, "ok");
  });
  EXPECT_EQ(connections, 2);
}

TEST(Client, ConnectTimeout) {
  // A listener whose queue is full answers no SYN.
  TestListener listener(0);
  std::vector<std::unique_ptr<TestSocket>> fill;
  for (int i = 0; i < 4; ++i) fill.push_back(std::make_unique<TestSocket>(listener.port(), TestSocket::kNoWait));
  Call call = call_to(listener.port());
  call.connect_timeout = Millis(40);
  auto response = fetch(call);
  ASSERT_FALSE(response.has_value());
  EXPECT_EQ(response.error().code, Code::kUnavailable);
  EXPECT_THAT(response.error().message, HasSubstr("within 40 ms"));
}

TEST(Client, NamesAreResolved) {
  RawUpstream upstream([](TestSocket& peer) {
    peer.read_until("\r\n\r\n");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  });
  Call call = call_to(upstream.port());
  call.host = "localhost";
  EXPECT_EQ(fetch(call)->body, "ok");
  call.host = "no-such-host.invalid";
  EXPECT_EQ(fetch(call).error().code, Code::kUnavailable);
}

TEST(Client, PoolKeepsAtMostItsLimit) {
  int connections = 0;
  RawUpstream upstream(
      [&](TestSocket& peer) {
        ++connections;
        peer.read_until("\r\n\r\n");
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        peer.read_to_end();
      },
      3);
  run_task([&]() -> Task<> {
    Client client(0);  // keeps none
    for (int i = 0; i < 3; ++i) EXPECT_EQ((co_await client.fetch(call_to(upstream.port())))->body, "ok");
  });
  EXPECT_EQ(connections, 3);
}

}  // namespace
}  // namespace baton::net
