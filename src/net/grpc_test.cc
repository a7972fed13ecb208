// GrpcServer against a client that keeps the rules and raw frames that do not.
#include "net/grpc.h"

#include <future>
#include <thread>

#include "net/grpc_test_client.h"

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

}  // namespace
}  // namespace baton::net
