// TLS between this folder's servers and clients: trust, names, client certificates, replacement, versions, and strangers.
#include "net/tls.h"

#include <filesystem>
#include <fstream>
#include <random>

#include "net/grpc.h"
#include "net/grpc_test_client.h"
#include "net/http.h"

namespace baton::net {
namespace {

using testing::HasSubstr;

Task<> echo(Request& r, ResponseWriter& w) { (void)co_await w.send(Response::text(200, std::move(r.body))); }

class TlsTest : public testing::Test {
 protected:
  TlsTest() : dir_(std::filesystem::temp_directory_path() / cat("baton-tls-", std::random_device{}())) {
    std::filesystem::create_directories(dir_);
  }
  ~TlsTest() override { std::filesystem::remove_all(dir_); }

  std::string file(const std::string& name, std::string_view text) {
    std::ofstream(dir_ / name) << text;
    return dir_ / name;
  }
  Pem certificate(const std::string& prefix, const char* names = "DNS:localhost,IP:127.0.0.1") {
    auto pem = self_signed(names);
    BATON_CHECK(pem.has_value());
    file(prefix + ".crt", pem->cert);
    file(prefix + ".key", pem->key);
    return *pem;
  }
  static std::shared_ptr<TlsServer> server_tls(TlsServerOptions options) {
    auto tls = TlsServer::make(std::move(options));
    BATON_CHECK(tls.has_value());
    return *tls;
  }
  static std::shared_ptr<TlsClient> client_tls(TlsClientOptions options) {
    auto tls = TlsClient::make(std::move(options));
    BATON_CHECK(tls.has_value());
    return *tls;
  }
  static std::unique_ptr<Server> serve(std::shared_ptr<TlsServer> tls, ServerOptions options = {}) {
    options.tls = std::move(tls);
    auto server = std::make_unique<Server>(options, [] {
      return Handler(echo);
    });
    BATON_CHECK(server->start().has_value());
    return server;
  }
  static Result<Response> fetch(int port, std::shared_ptr<TlsClient> tls, std::string body = "hello",
                                const std::string& name = "") {
    Result<Response> result = fail(Code::kUnknown, "not run");
    run_task([&]() -> Task<> {
      Client client;
      Call call;
      call.host = "127.0.0.1", call.port = port, call.method = "POST", call.body = body;
      call.tls = tls, call.server_name = name;
      for (int i = 0; i < 3; ++i) {  // the second and third on the kept connection
        result = co_await client.fetch(call);
        if (!result || result->body != body) co_return;
      }
    });
    return result;
  }

  std::filesystem::path dir_;
};

TEST_F(TlsTest, TrustIsAsked) {
  Pem pem = certificate("tls");
  auto server = serve(server_tls({.cert_dir = dir_}));
  EXPECT_EQ(fetch(server->port(), client_tls({.verify = false}))->body, "hello");
  EXPECT_EQ(fetch(server->port(), client_tls({.ca_pem = pem.cert}))->body, "hello");
  EXPECT_EQ(fetch(server->port(), client_tls({.ca_file = dir_ / "tls.crt"}), "named", "localhost")->body, "named");
  auto stranger = fetch(server->port(), client_tls({}));
  EXPECT_EQ(stranger.error().code, Code::kUnavailable);
  EXPECT_THAT(stranger.error().message, HasSubstr("TLS: certificate not trusted: self-signed certificate"));
  auto name = fetch(server->port(), client_tls({.ca_pem = pem.cert}), "x", "other.example");
  EXPECT_THAT(name.error().message, HasSubstr("hostname mismatch"));
}

TEST_F(TlsTest, SelfSignedInMemoryServesGrpc) {
  GrpcServerOptions options;
  options.tls = server_tls({.alpn = {"h2"}});
  GrpcServer server(options, [] {
    return GrpcHandlerFactory([](GrpcCall& call) -> std::unique_ptr<GrpcHandler> {
      struct Echo : GrpcHandler {
        explicit Echo(GrpcCall& c) : call(c) {}
        void on_message(std::string_view m) override { call.write(m); }
        void on_half_close() override { call.finish(Code::kOk); }
        void on_closed() override {}
        GrpcCall& call;
      };
      return std::make_unique<Echo>(call);
    });
  });
  ASSERT_TRUE(server.start().has_value());
  auto tls = client_tls({.verify = false, .alpn = {"h2"}});
  GrpcTestClient client(server.port(), tls.get());
  auto call = client.open("/x");
  for (size_t size : {0u, 10u, 16'384u, 100'000u, 3'000'000u}) {
    std::string message(size, 'm');
    call->send(message);
    ASSERT_EQ(call->receive(), message);
  }
  call->half_close();
  EXPECT_EQ(call->wait_end(), Code::kOk);
}

TEST_F(TlsTest, AlpnChoosesTheVersion) {
  ServerOptions options;
  options.http2 = true;
  auto server = serve(server_tls({}), options);
  EXPECT_EQ(fetch(server->port(), client_tls({.verify = false}))->body, "hello");
  EXPECT_EQ(fetch(server->port(), client_tls({.verify = false, .alpn = {"http/1.1"}}))->body, "hello");
  auto tls = client_tls({.verify = false, .alpn = {"h2"}});
  GrpcTestClient client(server->port(), tls.get());
  auto call = client.open("/", {{"content-type", "text/plain"}});
  call->send_raw("over h2");
  call->half_close();
  call->wait_end();
  EXPECT_EQ(call->body(), "over h2");
}

TEST_F(TlsTest, LargeBodies) {
  auto server = serve(server_tls({}));
  std::string body(4 << 20, 'x');
  for (size_t i = 0; i < body.size(); i += 4099) body[i] = static_cast<char>('a' + i % 26);
  auto response = fetch(server->port(), client_tls({.verify = false}), body);
  ASSERT_TRUE(response.has_value()) << response.error().message;
  EXPECT_TRUE(response->body == body);
}

TEST_F(TlsTest, ClientCertificates) {
  Pem pem = certificate("client");
  auto server = serve(server_tls({.client_ca_file = dir_ / "client.crt"}));
  EXPECT_EQ(fetch(server->port(), client_tls({.verify = false, .cert_pem = pem.cert, .key_pem = pem.key}))->body, "hello");
  auto by_file = client_tls({.verify = false, .cert_file = dir_ / "client.crt", .key_file = dir_ / "client.key"});
  EXPECT_EQ(fetch(server->port(), by_file)->body, "hello");
  EXPECT_FALSE(fetch(server->port(), client_tls({.verify = false})).has_value());
}

TEST_F(TlsTest, ReplacedWithoutARestart) {
  Pem first = certificate("tls");
  auto tls = server_tls({.cert_dir = dir_, .reload = true});
  auto server = serve(tls);
  EXPECT_TRUE(fetch(server->port(), client_tls({.ca_pem = first.cert})).has_value());
  reload_now(*tls);
  file("tls.crt", "not a certificate");
  EXPECT_TRUE(fetch(server->port(), client_tls({.ca_pem = first.cert})).has_value());  // the old one stays
  reload_now(*tls);
  Pem second = certificate("tls");
  EXPECT_TRUE(fetch(server->port(), client_tls({.ca_pem = second.cert})).has_value());
  EXPECT_FALSE(fetch(server->port(), client_tls({.ca_pem = first.cert})).has_value());
}

TEST_F(TlsTest, BadOptionsAreExplained) {
  auto why = [](TlsServerOptions options) { return TlsServer::make(std::move(options)).error().message; };
  EXPECT_THAT(why({.cert_dir = "/no/such"}), HasSubstr("cannot read /no/such/tls.crt"));
  EXPECT_THAT(why({.min_version = "VersionTLS10"}), HasSubstr("VersionTLS10"));
  EXPECT_THAT(why({.min_version = "new"}), HasSubstr("unknown TLS version new"));
  EXPECT_THAT(why({.cipher_suites = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_NONE"}), HasSubstr("cipher suite TLS_NONE"));
  Pem a = certificate("a"), b = certificate("b");
  EXPECT_THAT(why({.cert_file = dir_ / "a.crt", .key_file = dir_ / "b.key"}), HasSubstr("private key"));
  EXPECT_THAT(why({.cert_file = file("junk", "junk"), .key_file = dir_ / "b.key"}), HasSubstr("certificate"));
  std::string suites = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305, TLS_AES_128_GCM_SHA256";
  EXPECT_TRUE(TlsServer::make({.min_version = "VersionTLS12", .cipher_suites = suites}).has_value());
  EXPECT_THAT(TlsClient::make({.ca_pem = "junk"}).error().message, HasSubstr("no CA certificate"));
}

TEST_F(TlsTest, StrangersAndSlowHandshakesEnd) {
  ServerOptions options;
  options.header_timeout = Millis(50);
  auto server = serve(server_tls({}), options);
  TestSocket plain(server->port());
  plain.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  plain.read_to_end();
  EXPECT_TRUE(plain.ended());
  TestSocket silent(server->port());
  silent.read_to_end();
  EXPECT_TRUE(silent.ended());
  EXPECT_EQ(fetch(server->port(), client_tls({.verify = false}))->body, "hello");
  TestListener mute;  // a server that never answers the handshake
  Result<Response> late = fail(Code::kUnknown, "");
  run_task([&]() -> Task<> {
    Client client;
    Call call;
    call.host = "127.0.0.1", call.port = mute.port(), call.connect_timeout = Millis(50), call.tls = client_tls({});
    late = co_await client.fetch(call);
  });
  EXPECT_EQ(late.error().code, Code::kUnavailable);
}

}  // namespace
}  // namespace baton::net
