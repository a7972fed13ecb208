// GrpcServer against a client that keeps the rules and raw frames that do not.
#include "net/grpc.h"

#include <future>
#include <thread>

#include "net/grpc_test_client.h"
#include "net/h2_test_frames.h"
#include "net/limits.h"

namespace baton::net {
namespace {

using testing::HasSubstr;

constexpr std::string_view kPath = "/test.Echo/Stream";

// Echoes each message; ends with OK when the client does.
class Echo : public GrpcHandler {
 public:
  explicit Echo(GrpcCall& call) : call_(call) {}
  void on_message(std::string_view message) override { call_.write(message); }
  void on_half_close() override { call_.finish(Code::kOk); }
  void on_closed() override {}

 private:
  GrpcCall& call_;
};

std::unique_ptr<GrpcServer> serve(GrpcHandlerFactory factory, GrpcServerOptions options = {}) {
  auto server = std::make_unique<GrpcServer>(options, [factory] { return factory; });
  auto started = server->start();
  BATON_CHECK(started.has_value());
  return server;
}

std::unique_ptr<GrpcServer> serve_echo(GrpcServerOptions options = {}) {
  return serve(
      [](GrpcCall& call) -> std::unique_ptr<GrpcHandler> {
        if (call.path() != kPath) return nullptr;
        return std::make_unique<Echo>(call);
      },
      options);
}

TEST(Grpc, EchoesMessagesOfAllSizes) {
  auto server = serve_echo();
  GrpcTestClient client(server->port());
  auto call = client.open(kPath);
  for (size_t size : {0u, 1u, 5u, 1000u, 16379u, 16384u, 100'000u, 3'000'000u}) {
    std::string message(size, static_cast<char>('a' + size % 26));
    call->send(message);
    auto reply = call->receive();
    ASSERT_TRUE(reply.has_value()) << size << ' ' << call->message();
    EXPECT_TRUE(*reply == message) << size;
  }
  call->half_close();
  EXPECT_EQ(call->wait_end(), Code::kOk);
  EXPECT_EQ(call->field("content-type"), "application/grpc");
}

TEST(Grpc, ManyCallsInterleaved) {
  GrpcServerOptions options;
  options.threads = 2;
  auto server = serve_echo(options);
  GrpcTestClient client(server->port());
  std::vector<std::unique_ptr<GrpcTestClient::Call>> calls;
  client.corked = true;
  for (int i = 0; i < 2000; ++i) {
    calls.push_back(client.open(kPath));
    for (int m = 0; m < 3; ++m) calls.back()->send(cat("call ", i, " message ", m));
  }
  client.push();
  for (int i = 0; i < 2000; ++i) {
    for (int m = 0; m < 3; ++m) ASSERT_EQ(calls[i]->receive(), cat("call ", i, " message ", m));
  }
  EXPECT_EQ(server->calls_in_flight(), 2000);
  for (auto& c : calls) c->half_close();
  client.push();
  for (auto& c : calls) ASSERT_EQ(c->wait_end(), Code::kOk);
  while (server->calls_in_flight() > 0) std::this_thread::yield();  // told just after the client
}

TEST(Grpc, MessagesThatArriveInPieces) {
  auto server = serve_echo();
  GrpcTestClient client(server->port());
  auto call = client.open(kPath);
  std::string wire;
  for (std::string_view m : {"first", "", "third message"}) wire += cat(GrpcPrefix(m.size()).view(), m);
  for (char c : wire) call->send_raw(std::string_view(&c, 1));
  EXPECT_EQ(call->receive(), "first");
  EXPECT_EQ(call->receive(), "");
  EXPECT_EQ(call->receive(), "third message");
}

TEST(Grpc, RefusalsHaveTheirStatus) {
  GrpcServerOptions options;
  options.message_bytes_max = 1000;
  auto server = serve_echo(options);
  GrpcTestClient client(server->port());
  auto unknown = client.open("/test.Echo/Other");
  EXPECT_EQ(unknown->wait_end(), Code::kUnimplemented);
  EXPECT_THAT(unknown->message(), HasSubstr("/test.Echo/Other"));
  auto large = client.open(kPath);
  large->send("fits");
  EXPECT_EQ(large->receive(), "fits");
  large->send(std::string(1001, 'x'));
  EXPECT_EQ(large->wait_end(), Code::kResourceExhausted);
  EXPECT_EQ(large->message(), "grpc: received message larger than max (1001 vs. 1000)");
  auto cut = client.open(kPath);
  cut->send_raw(GrpcPrefix(100).view());
  cut->half_close();
  EXPECT_EQ(cut->wait_end(), Code::kInternal);
  auto flags = client.open(kPath);
  flags->send_raw(std::string_view("\7\0\0\0\0", 5));
  EXPECT_EQ(flags->wait_end(), Code::kInternal);
  auto encoding = client.open(kPath, {{"grpc-encoding", "snappy"}});
  EXPECT_EQ(encoding->wait_end(), Code::kUnimplemented);
  EXPECT_EQ(encoding->field("grpc-accept-encoding"), "identity,gzip");
  auto compressed = client.open(kPath);
  compressed->send("not said to be", true);
  EXPECT_EQ(compressed->wait_end(), Code::kInternal);
  auto json = client.open(kPath, {{"content-type", "application/json"}});
  EXPECT_EQ(json->wait_end(), Code::kUnknown);
  EXPECT_EQ(json->field(":status"), "415");
  auto proto = client.open(kPath, {{"content-type", "application/grpc+proto"}});
  proto->send("still served");
  EXPECT_EQ(proto->receive(), "still served");
  EXPECT_FALSE(client.lost());
}

TEST(Grpc, StatusMessagesArePercentEncoded) {
  auto server = serve([](GrpcCall& call) -> std::unique_ptr<GrpcHandler> {
    call.finish(Code::kNotFound, "100% \xc3\xa4\nline");
    return nullptr;
  });
  GrpcTestClient client(server->port());
  auto call = client.open(kPath);
  EXPECT_EQ(call->wait_end(), Code::kNotFound);
  EXPECT_EQ(call->field("grpc-message"), "100%25 %C3%A4%0Aline");
  EXPECT_EQ(call->message(), "100% \xc3\xa4\nline");
}

// A handler that records what it hears.
struct Heard {
  std::vector<std::string> events;
  std::function<void(std::move_only_function<void()>)> poster;
  std::promise<void> opened, closed;
  GrpcCall* call = nullptr;

  class Recorder : public GrpcHandler {
   public:
    Recorder(Heard& heard, GrpcCall& call) : heard_(heard) {
      heard.call = &call;
      heard.poster = call.poster();
      heard.opened.set_value();
    }
    ~Recorder() override { heard_.events.emplace_back("gone"), heard_.closed.set_value(); }
    void on_message(std::string_view message) override { heard_.events.emplace_back(message); }
    void on_half_close() override { heard_.events.emplace_back("half"); }
    void on_closed() override { heard_.events.emplace_back("closed"); }

   private:
    Heard& heard_;
  };
  GrpcHandlerFactory factory() {
    return [this](GrpcCall& c) { return std::make_unique<Recorder>(*this, c); };
  }
  void wait_closed() { ASSERT_EQ(closed.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready); }
};

TEST(Grpc, AResetIsHeardOnceAndLast) {
  Heard heard;
  auto server = serve(heard.factory());
  GrpcTestClient client(server->port());
  auto call = client.open(kPath);
  call->send("one");
  heard.opened.get_future().wait();
  call->cancel();
  heard.wait_closed();
  heard.poster([&] { heard.events.emplace_back("posted after the end"); });
  server->stop(Millis(0));
  EXPECT_EQ(heard.events, (std::vector<std::string>{"one", "closed", "gone"}));
  heard.poster([] { ADD_FAILURE() << "the thread is gone"; });
}

TEST(Grpc, ALostConnectionClosesItsCalls) {
  Heard heard;
  auto server = serve(heard.factory());
  {
    GrpcTestClient client(server->port());
    auto call = client.open(kPath);
    heard.opened.get_future().wait();
    ::shutdown(client.fd(), SHUT_RDWR);
  }
  heard.wait_closed();
  EXPECT_EQ(heard.events, (std::vector<std::string>{"closed", "gone"}));
}

TEST(Grpc, OtherThreadsReachACall) {
  Heard heard;
  auto server = serve(heard.factory());
  GrpcTestClient client(server->port());
  auto call = client.open(kPath);
  heard.opened.get_future().wait();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&heard, post = heard.poster, t] {
      for (int i = 0; i < 100; ++i) post([&heard, t, i] { heard.call->write(cat(t, ' ', i)); });
    });
  }
  std::vector<int> next(4);
  for (int n = 0; n < 400; ++n) {
    auto reply = call->receive();
    ASSERT_TRUE(reply.has_value());
    int t = (*reply)[0] - '0';
    EXPECT_EQ(*reply, cat(t, ' ', next[t]++));  // in order for each thread
  }
  for (auto& t : threads) t.join();
  heard.poster([&] { heard.call->finish(Code::kOk); });
  EXPECT_EQ(call->wait_end(), Code::kOk);
  heard.wait_closed();
}

TEST(Grpc, FinishBeforeTheClientEndsStopsIt) {
  auto server = serve([](GrpcCall& call) -> std::unique_ptr<GrpcHandler> {
    call.write("only this");
    call.finish(Code::kOk);
    return nullptr;
  });
  GrpcTestClient client(server->port());
  auto call = client.open(kPath);
  EXPECT_EQ(call->receive(), "only this");
  EXPECT_EQ(call->wait_end(), Code::kOk);
  EXPECT_EQ(call->reset_code(), 0u);  // NO_ERROR
  EXPECT_FALSE(client.lost());
}

TEST(Grpc, DrainLetsCallsEndAndTakesNoNewOnes) {
  auto server = serve_echo();
  GrpcTestClient client(server->port());
  auto call = client.open(kPath);
  call->send("before");
  EXPECT_EQ(call->receive(), "before");
  std::thread stopper([&] { server->stop(Millis(10'000)); });
  EXPECT_TRUE(client.pump_until([&] { return client.goaways().size() == 2; }));
  EXPECT_THAT(client.goaways(), testing::Each(0u));
  call->send("during");
  EXPECT_EQ(call->receive(), "during");
  call->half_close();
  EXPECT_EQ(call->wait_end(), Code::kOk);
  EXPECT_TRUE(client.wait_lost());
  stopper.join();
}

TEST(Grpc, GraceEnds) {
  Heard heard;
  auto server = serve(heard.factory());
  GrpcTestClient client(server->port());
  auto call = client.open(kPath);
  heard.opened.get_future().wait();
  server->stop(Millis(1));
  EXPECT_EQ(heard.events, (std::vector<std::string>{"closed", "gone"}));
  EXPECT_TRUE(client.wait_lost());
}

TEST(Grpc, APeerThatDoesNotReadIsClosed) {
  GrpcServerOptions options;
  options.unsent_bytes_max = 8u << 20;
  std::promise<void> closed;
  class Flood : public GrpcHandler {
   public:
    Flood(GrpcCall& call, std::promise<void>& end) : call_(call), closed_(end) {}
    void on_message(std::string_view) override {
      for (int i = 0; i < 20; ++i) call_.write(std::string(1 << 20, 'x'));
    }
    void on_half_close() override {}
    void on_closed() override { closed_.set_value(); }

   private:
    GrpcCall& call_;
    std::promise<void>& closed_;
  };
  auto server = serve([&](GrpcCall& call) { return std::make_unique<Flood>(call, closed); }, options);
  GrpcTestClient client(server->port());
  auto call = client.open(kPath);
  call->send("go");
  EXPECT_EQ(closed.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
}

TEST(Grpc, BackPressureOfAStreamLosesNothing) {
  auto server = serve_echo();
  GrpcTestClient client(server->port(), nullptr, "", 1000);  // a window of 1,000 bytes
  auto call = client.open(kPath);
  std::string message(100'000, 'm');
  for (int i = 0; i < 20; ++i) call->send(message);
  for (int i = 0; i < 20; ++i) ASSERT_EQ(call->receive(), message);
}

// A peer that takes no answers: what is queued for it stays bounded, because its messages are not read any more either.
TEST(Grpc, AnAnswerThatIsNotTakenStopsTheReading) {
  static std::atomic<size_t> most, heard;
  most = heard = 0;
  class Measured : public GrpcHandler {
   public:
    explicit Measured(GrpcCall& call) : call_(call) {}
    void on_message(std::string_view message) override {
      call_.write(message);
      most = std::max<size_t>(most, call_.unsent_bytes());
      heard += message.size();
    }
    void on_half_close() override { call_.finish(Code::kOk); }
    void on_closed() override {}

   private:
    GrpcCall& call_;
  };
  GrpcServerOptions options;
  auto server = serve([](GrpcCall& call) { return std::make_unique<Measured>(call); }, options);
  constexpr size_t kMessage = 50'000, kMessages = 200;
  GrpcTestClient client(server->port(), nullptr, "", 65'535, true);
  auto call = client.open(kPath);
  for (size_t i = 0; i < kMessages; ++i) call->send(std::string(kMessage, static_cast<char>('a' + i % 26)));
  // Each answered PING says that the server has seen what was sent before; then as much again, until nothing more can be sent.
  for (size_t left = SIZE_MAX; call->unsent() < left;) {
    left = call->unsent();
    const int pings = client.pings();
    nghttp2_submit_ping(client.session(), NGHTTP2_FLAG_NONE, nullptr);
    ASSERT_TRUE(client.pump_until([&] { return client.pings() > pings; }));
  }
  EXPECT_GT(call->unsent(), 0u);
  EXPECT_LE(most, kH2AnswerBytesMax + options.window_bytes + kMessage);
  EXPECT_LT(heard, kMessage * kMessages / 4);
  const int32_t wide = 1 << 30;
  nghttp2_session_set_local_window_size(client.session(), NGHTTP2_FLAG_NONE, 0, wide);
  nghttp2_session_set_local_window_size(client.session(), NGHTTP2_FLAG_NONE, call->id(), wide);
  for (size_t i = 0; i < kMessages; ++i) ASSERT_EQ(call->receive(), std::string(kMessage, static_cast<char>('a' + i % 26)));
  call->half_close();
  EXPECT_EQ(call->wait_end(), Code::kOk);
}

// What a hostile peer sends after a good start; the server must close it and serve the next one.
TEST(Grpc, FloodsAreClosed) {
  auto server = serve_echo();
  std::string settings = frame(Frame::kSettings, 0, 0), ping = frame(Frame::kPing, 0, 0, "12345678");
  auto repeated = [](std::string_view what, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += what;
    return out;
  };
  std::string opened = frame(Frame::kHeaders, kEndHeaders, 1, grpc_head(kPath)), resets;
  for (uint32_t id = 1; id < 120'000; id += 2) {
    resets += frame(Frame::kHeaders, kEndHeaders, id, grpc_head(kPath));
    resets += frame(Frame::kReset, 0, id, std::string_view("\0\0\0\10", 4));
  }
  std::string headers = frame(Frame::kHeaders, 0, 1, header_block({{":method", "POST"}}));
  for (int i = 0; i < 40; ++i) headers += frame(Frame::kContinuation, 0, 1, header_block({{"a", "b"}}));
  std::string many;  // one table entry of 4,000 bytes, named again and again
  std::string entry = cat(std::string_view("\x40\1a\x7f\xa1\x1e", 6), std::string(4000, 'x'));
  many += frame(Frame::kHeaders, 0, 1, entry + repeated("\xbe", 12'000));
  const std::pair<std::string_view, std::string> kCases[] = {
      {"pings", repeated(ping, 60'000)},
      {"settings", repeated(settings, 60'000)},
      {"empty data", opened + repeated(frame(Frame::kData, 0, 1), 60'000)},
      {"resets", resets},
      {"continuations", headers},
      {"header bomb", many},
      {"no preface", ""},
  };
  for (const auto& [name, bytes] : kCases) {
    TestSocket socket(server->port());
    std::thread reader([&] { socket.read_to_end(); });  // it reads, so that our answers do not end it first
    socket.send(name == "no preface" ? "GET / HTTP/1.1\r\nhost: x\r\n\r\n" : cat(kTestPreface, settings, bytes));
    reader.join();
    EXPECT_TRUE(socket.ended()) << name;
    EXPECT_EQ(server->calls_in_flight(), 0) << name;
  }
  GrpcTestClient client(server->port());
  auto call = client.open(kPath);
  call->send("still here");
  EXPECT_EQ(call->receive(), "still here");
}

TEST(Grpc, StreamsAreBounded) {
  GrpcServerOptions options;
  options.streams_max = 10;
  auto server = serve_echo(options);
  GrpcTestClient client(server->port());
  auto allowed = [&] {
    return nghttp2_session_get_remote_settings(client.session(), NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  };
  client.pump_until([&] { return allowed() == 10; });
  std::vector<std::unique_ptr<GrpcTestClient::Call>> calls;
  for (int i = 0; i < 12; ++i) calls.push_back(client.open(kPath));  // the client's library holds the last two back
  for (int i = 0; i < 10; ++i) {
    calls[i]->send("x");
    EXPECT_EQ(calls[i]->receive(), "x");
  }
  EXPECT_EQ(server->calls_in_flight(), 10);
  calls[0]->half_close();
  EXPECT_EQ(calls[0]->wait_end(), Code::kOk);
  calls[10]->send("now");
  EXPECT_EQ(calls[10]->receive(), "now");
}

TEST(Grpc, ThousandsConnectAtOnce) {
  GrpcServerOptions options;
  options.connections_max = 1500;
  auto server = serve_echo(options);
  std::vector<std::unique_ptr<TestSocket>> idle;
  for (int i = 0; i < 1000; ++i) {
    idle.push_back(std::make_unique<TestSocket>(server->port()));
    idle.back()->send(cat(kTestPreface, frame(Frame::kSettings, 0, 0)));
  }
  GrpcTestClient client(server->port());
  auto call = client.open(kPath);
  call->send("among many");
  EXPECT_EQ(call->receive(), "among many");
}

TEST(Grpc, ConnectionsAreBounded) {
  GrpcServerOptions options;
  options.connections_max = 1;
  auto server = serve_echo(options);
  auto client = std::make_unique<GrpcTestClient>(server->port());
  auto call = client->open(kPath);
  call->send("first");
  EXPECT_EQ(call->receive(), "first");
  TestSocket refused(server->port());
  EXPECT_EQ(refused.read_to_end(), "");
}

TEST(Grpc, BothAddressFamilies) {
  auto server = serve_echo();
  for (int family : {AF_INET, AF_INET6}) {
    int fd = ::socket(family, SOCK_STREAM, 0);
    if (fd < 0) continue;  // a machine without IPv6
    sockaddr_in six4{};
    sockaddr_in6 six{};
    six4.sin_family = AF_INET, six.sin6_family = AF_INET6;
    six4.sin_port = six.sin6_port = htons(static_cast<uint16_t>(server->port()));
    six4.sin_addr.s_addr = htonl(INADDR_LOOPBACK), six.sin6_addr = in6addr_loopback;
    int rc = family == AF_INET ? ::connect(fd, reinterpret_cast<sockaddr*>(&six4), sizeof six4)
                               : ::connect(fd, reinterpret_cast<sockaddr*>(&six), sizeof six);
    EXPECT_TRUE(rc == 0 || errno == EADDRNOTAVAIL || errno == ENETUNREACH) << family;
    ::close(fd);
  }
}

}  // namespace
}  // namespace baton::net
