// The sidecar over TLS on every leg, with data-parallel ranks, and with an allow-list from a (scripted) API server.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/prng.h"
#include "net/tls_context.h"
#include "sidecar/allow_list.h"
#include "sidecar/limits.h"
#include "sidecar/resolver.h"
#include "sidecar/rig.h"

namespace baton::sidecar {
namespace {

using testing::HasSubstr;

FakeWorker::Turn turn(std::string body, std::string answer) {
  return {.expects = {.first_line = "POST /v1/completions", .headers = {}, .body = std::move(body)},
          .answers = {.first_line = "200", .headers = {}, .body = std::move(answer)}};
}

const std::string kAsked =
    R"({"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,)"
    R"("remote_host":null,"remote_port":null},"stream":false,"max_tokens":1,"max_completion_tokens":1,"min_tokens":1})";

class TlsLegs : public testing::Test {
 protected:
  TlsLegs() : dir_(std::filesystem::temp_directory_path() / cat("baton-sidecar-", random_hex(8))) {
    std::filesystem::create_directories(dir_);
    write_certificate();
    auto tls = net::TlsServer::make({.cert_dir = dir_});
    BATON_CHECK(tls.has_value());
    tls_ = *tls;
  }
  ~TlsLegs() override { std::filesystem::remove_all(dir_); }
  void write_certificate() {
    auto pem = net::self_signed("DNS:localhost,IP:127.0.0.1");
    BATON_CHECK(pem.has_value());
    std::ofstream(dir_ / "tls.crt") << pem->cert;
    std::ofstream(dir_ / "tls.key") << pem->key;
  }
  std::shared_ptr<net::TlsClient> trusting() {
    auto client = net::TlsClient::make({.ca_file = dir_ / "tls.crt"});
    BATON_CHECK(client.has_value());
    return *client;
  }

  std::filesystem::path dir_;
  std::shared_ptr<net::TlsServer> tls_;
};

TEST_F(TlsLegs, EveryLegVerified) {
  Rig rig({"--enable-tls=prefiller,decoder", cat("--tls-ca-file=", (dir_ / "tls.crt").string())}, tls_);
  rig.config.secure_proxy = true, rig.config.cert_path = dir_;
  rig.prefill.expect(turn(kAsked, R"({"kv_transfer_params":{"a":1}})"));
  rig.decode.expect(turn(R"({"kv_transfer_params":{"a":1}})", "over TLS"));
  rig.start();
  net::Call call = rig.call("{}");
  call.tls = trusting();
  auto response = rig.fetch(call);
  ASSERT_TRUE(response.has_value()) << response.error().message;
  EXPECT_EQ(response->body, "over TLS");
  while (!rig.sidecar->engine_ready()) std::this_thread::yield();  // its poller speaks TLS too
  EXPECT_FALSE(rig.fetch(rig.call("{}")).has_value());             // in plaintext: nothing
  EXPECT_EQ(rig.prefill.complaints() + rig.decode.complaints(), "");
}

TEST_F(TlsLegs, AStrangersCertificateIsNoPrefiller) {
  Rig rig({"--enable-tls=prefiller,decoder", "--tls-insecure-skip-verify=decoder"}, tls_);
  rig.decode.expect(turn("{}", "alone"));
  rig.start();
  EXPECT_EQ(rig.fetch(rig.call("{}"))->body, "alone");  // the system does not trust it; the engine is not verified
  EXPECT_EQ(rig.decode.complaints(), "");
}

TEST_F(TlsLegs, SelfSignedWithoutACertificate) {
  Rig rig;
  rig.config.secure_proxy = true;
  rig.decode.expect(turn("{}", "ok"));
  rig.start();
  net::Call call = rig.call("{}");
  call.headers = {};
  call.tls = *net::TlsClient::make({.verify = false});
  EXPECT_EQ(rig.fetch(call)->body, "ok");
}

TEST(DataParallel, EveryRankHasItsPortAndEngine) {
  // Neighbouring ports may be taken by others on this machine: try until a pair is free.
  for (int attempt = 0;; ++attempt) {
    ASSERT_LT(attempt, 100);
    Rig rig({"--data-parallel-size=2", "--pod-ip=10.0.0.7"});
    net::ServerOptions options;
    options.port = rig.decode.port() + 1;
    std::atomic<int> calls{0};
    net::Server second(options, [&]() -> net::Handler {
      return [&](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
        calls += request.path != "/health";
        (void)co_await writer.send(net::Response::text(200, "rank 1"));
      };
    });
    if (!second.start()) continue;
    rig.sidecar.emplace(rig.config);
    if (!rig.sidecar->start()) continue;
    rig.decode.expect(turn("{}", "rank 0"));
    net::Call call = rig.call("{}");
    call.headers = {};
    EXPECT_EQ(rig.fetch(call)->body, "rank 0");
    call.headers = {{"x-data-parallel-host-port", cat("10.0.0.7:", rig.sidecar->port() + 1)}};
    EXPECT_EQ(rig.fetch(call)->body, "rank 1");
    for (std::string other :
         {cat("10.0.0.8:", rig.sidecar->port()), cat("10.0.0.7:", rig.sidecar->port() + 2), std::string("x")}) {
      call.headers = {{"x-data-parallel-host-port", other}};
      auto refused = rig.fetch(call);
      EXPECT_EQ(refused->status, 400);
      EXPECT_EQ(refused->body, "");
    }
    call.headers = {};
    call.port = rig.sidecar->port() + 1;
    EXPECT_EQ(rig.fetch(call)->body, "rank 1");
    EXPECT_EQ(calls, 2);
    EXPECT_EQ(rig.decode.complaints(), "");
    break;
  }
}

// An API server with one pool and one pod, whose watches stay open and silent.
struct ApiServer {
  ApiServer() { BATON_CHECK(server.start().has_value()); }
  discovery::KubeAccess access() const {
    discovery::KubeAccess access;
    access.tls = false, access.host = "127.0.0.1", access.port = server.port(), access.token = "t";
    return access;
  }
  static net::Task<> answer(net::Request& request, net::ResponseWriter& writer) {
    if (request.query.find("watch=") != std::string::npos) {
      net::Mailbox<int> gone;
      auto hook = writer.cancel().on_cancel([&] { gone.close(); });
      (void)co_await writer.begin(200, {{"content-type", "application/json"}});
      co_await gone.pop();
      co_return;
    }
    bool pods = request.path.ends_with("/namespaces/prod/pods");
    bool pools = request.path.starts_with("/apis/inference.networking.k8s.io/v1/namespaces/prod/inferencepools");
    if (!pods && !pools) {
      (void)co_await writer.send(net::Response::json(404, R"({"kind":"Status","code":404})"));
      co_return;
    }
    std::string item =
        pods ? R"({"metadata":{"name":"prefill-0","resourceVersion":"1","labels":{"a":"b"}},"status":{"phase":"Running",)"
               R"("podIP":"10.1.1.1","podIPs":[{"ip":"10.1.1.1"}],"conditions":[{"type":"Ready","status":"True"}]}})"
             : R"({"metadata":{"name":"pool","resourceVersion":"1"},"spec":{"selector":{"matchLabels":{"a":"b"}},)"
               R"("targetPorts":[{"number":8000}],"endpointPickerRef":{"name":"epp"}}})";
    (void)co_await writer.send(
        net::Response::json(200, cat(R"({"kind":"List","metadata":{"resourceVersion":"5"},"items":[)", item, "]}")));
  }
  net::Server server{{}, [] { return net::Handler(answer); }};
};

TEST(AllowList, MembersOfAnInferencePool) {
  ApiServer api;
  SidecarConfig config;
  config.ssrf_protection = true, config.inference_pool = "prod/pool";
  AllowList list(config, api.access());
  EXPECT_EQ(list.look_up({"10.1.1.1", 8000}), AllowList::Answer::kNotKnownYet);
  ASSERT_TRUE(list.start(kPoolSyncWait).has_value());
  EXPECT_EQ(list.look_up({"10.1.1.1", 8000}), AllowList::Answer::kYes);
  EXPECT_EQ(list.look_up({"prefill-0", 8000}), AllowList::Answer::kYes);
  EXPECT_EQ(list.look_up({"10.1.1.1", 9090}), AllowList::Answer::kNo);  // where llm-d's list says yes
  EXPECT_EQ(list.look_up({"10.1.1.2", 8000}), AllowList::Answer::kNo);
  list.stop();
}

TEST(AllowList, APoolThatCannotBeReadYetMeansLocalPrefill) {
  net::Server silent({}, [] {
    return net::Handler([](net::Request&, net::ResponseWriter& writer) -> net::Task<> {
      (void)co_await writer.send(net::Response::json(500, "{}"));
    });
  });
  ASSERT_TRUE(silent.start().has_value());
  discovery::KubeAccess access;
  access.tls = false, access.host = "127.0.0.1", access.port = silent.port(), access.token = "t";
  SidecarConfig config;
  config.ssrf_protection = true, config.inference_pool_name = "pool", config.inference_pool_namespace = "prod";
  AllowList list(config, access);
  ASSERT_TRUE(list.start(std::chrono::milliseconds(1)).has_value());
  EXPECT_EQ(list.look_up({"10.1.1.1", 8000}), AllowList::Answer::kNotKnownYet);
  list.stop();
}

TEST(Resolver, NamesInTheBackgroundAddressesAsTheyAre) {
  SidecarConfig config;
  SidecarMetrics metrics;
  config.pod_ip = "localhost", config.moriio.remote_hosts = {"10.0.0.1", "localhost", "no such name"};
  EXPECT_FALSE(Resolver(config, metrics).needed());
  config.moriio.write_mode = true;
  Resolver resolver(config, metrics);
  EXPECT_TRUE(resolver.needed());
  EXPECT_EQ(resolver.address("localhost"), "localhost");
  net::run_task([&]() -> net::Task<> { EXPECT_TRUE((co_await resolver.look_up_all()).has_value()); });
  EXPECT_NE(resolver.address("localhost"), "localhost");
  EXPECT_EQ(resolver.addresses({"10.0.0.1", "no such name"}), (std::vector<std::string>{"10.0.0.1", "no such name"}));
  EXPECT_THAT(metrics.text(), HasSubstr("moriio_dns_reresolve_total 2"));
  EXPECT_THAT(metrics.text(), HasSubstr("moriio_dns_lookup_failures_total 1"));
}

}  // namespace
}  // namespace baton::sidecar
