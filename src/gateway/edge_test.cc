// The gateway's edge: keys, rates, pools, limits, hostile and unlucky clients, and how a picker's words reach them.
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "base/prng.h"
#include "gateway/gateway_fixture.h"
#include "net/tls.h"

namespace baton::gateway {
namespace {

using testing::HasSubstr;

class TempFile {
 public:
  explicit TempFile(const std::string& text) : path_(cat(testing::TempDir(), "gateway-", ::getpid(), "-", count_++)) {
    write(text);
  }
  ~TempFile() { ::unlink(path_.c_str()); }
  void write(const std::string& text) { std::ofstream(path_) << text; }
  std::string read() const {
    std::ifstream in(path_);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  const std::string& path() const { return path_; }

 private:
  static inline int count_ = 0;
  std::string path_;
};

TEST_F(GatewayTest, KeysNameTheTenantAndAreReloaded) {
  FakeWorker decode(always(200, "{}"));
  TempFile keys("alice secret-a\nbob secret-b\n"), log("");
  config.api_keys_file = keys.path();
  config.access_log = log.path();
  start({decode.member("decode")});
  EXPECT_EQ(post().status, 401);
  EXPECT_EQ(post("{}", {{"Authorization", "Bearer secret-a"}, {"x-llm-d-inference-fairness-id", "somebody-else"}}).status, 200);
  EXPECT_EQ(call(gateway->port(), "GET", "/debug/plugins/state").status, 401) << "it tells about others' requests";
  EXPECT_THAT(call(gateway->port(), "GET", "/metrics").body,
              testing::AllOf(HasSubstr("fairness_id=\"alice\""), testing::Not(HasSubstr("somebody-else"))));
  keys.write("carl secret-c\n");
  gateway->look_at_files();
  EXPECT_EQ(post("{}", {{"Authorization", "Bearer secret-a"}}).status, 401);
  EXPECT_EQ(post("{}", {{"Authorization", "Bearer secret-c"}}).status, 200);
  keys.write("broken");
  gateway->look_at_files();
  EXPECT_EQ(post("{}", {{"Authorization", "Bearer secret-c"}}).status, 200) << "a bad file keeps the old keys";
  gateway->look_at_files();
  const std::string lines = log.read();
  EXPECT_EQ(parse_json(lines.substr(0, lines.find('\n')))->find("status")->as_int(), 401) << "refusals too";
  const size_t begin = lines.find('\n') + 1;
  const auto first = parse_json(lines.substr(begin, lines.find('\n', begin) - begin));
  ASSERT_TRUE(first) << lines;
  EXPECT_EQ(first->find("key")->text, "alice");
  EXPECT_EQ(first->find("decode")->text, decode.address());
  EXPECT_EQ(first->find("status")->as_int(), 200);
  EXPECT_THAT(lines, testing::Not(HasSubstr("secret")));
}

TEST_F(GatewayTest, TokenRateOfAKey) {
  FakeWorker decode(always(200, "{}"));
  TempFile keys("slow k1 tokens_per_minute=60 burst=10\nfast k2\n");
  config.api_keys_file = keys.path();
  start({decode.member("decode")});
  const std::string prompt = R"({"model":"m","prompt":")" + std::string(4'000, 'x') + "\"}";  // a thousand tokens
  EXPECT_EQ(post(prompt, {{"Authorization", "Bearer k1"}}).status, 200) << "one prompt may be larger than the bucket";
  const auto refused = post("{}", {{"Authorization", "Bearer k1"}});
  EXPECT_EQ(refused.status, 429);
  const auto wait = refused.headers.get("retry-after");
  ASSERT_TRUE(wait);
  EXPECT_GT(std::stoi(std::string(*wait)), 600) << "until it is paid off";
  EXPECT_EQ(post(prompt, {{"Authorization", "Bearer k2"}}).status, 200);
  EXPECT_EQ(metric(R"(baton_gateway_rejected_total{reason="rate"})"), "1.0");
}

TEST_F(GatewayTest, SeveralPoolsInOneProcess) {
  FakeWorker a(always(200, "a"), "model-a"), b(always(200, "b"), "model-b");
  auto endpoints = [](const FakeWorker& w) {
    return cat("endpoints: [{address: 127.0.0.1, port: ", w.port(), ", role: decode}]");
  };
  TempFile of_a(endpoints(a)), of_b(endpoints(b));
  TempFile pools(cat("- {name: first, endpoints: ", of_a.path(),
                     ", max-concurrent-requests: 8}\n- {name: second, endpoints: ", of_b.path(), ", models: [alias], propose-role-flips: true}\n"));
  config.host = "127.0.0.1", config.http_port = 0, config.pools_file = pools.path();
  gateway = std::make_unique<Gateway>(config);
  const auto started = gateway->start();
  ASSERT_TRUE(started) << started.error().message;
  wait_ready(2);
  eventually([&] { return call(gateway->port(), "GET", "/v1/models").body.find("model-b") != std::string::npos; }, "models");
  EXPECT_EQ(call(gateway->port(), "GET", "/v1/models").body,
            R"({"object":"list","data":[{"id":"model-a","object":"model","x":1},{"id":"model-b","object":"model","x":1}]})");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(post(R"({"model":"model-b","prompt":"x"})").body, "b");
    EXPECT_EQ(post(R"({"prompt":"x","model":"model-a"})").body, "a");
  }
  EXPECT_EQ(post(R"({"prompt":"x"})").body, "a") << "no model: the first pool";
  EXPECT_EQ(post(R"({"model":"nope","prompt":"x"})").status, 404);
  EXPECT_EQ(metric(R"(baton_gateway_requests_total{code="200",pool="second"})"), "3.0");
  EXPECT_EQ(metric("inference_pool_ready_pods{name=\"second\"}"), "1.0");
  EXPECT_EQ(metric("llm_d_epp_role_flip_proposed{inference_pool=\"second\"}"), "0.0");
  EXPECT_EQ(metric("llm_d_epp_role_flip_proposed{inference_pool=\"first\"}"), "absent") << "only of the pool that asked for it";
  EXPECT_EQ(metric("baton_gateway_endpoint_up{endpoint=\"" + b.address() + "\",pool=\"second\"}"), "1");
  const auto state = parse_json(call(gateway->port(), "GET", "/debug/plugins/state").body);
  ASSERT_TRUE(state);
  EXPECT_EQ(state->find("pools")->items.size(), 2u);
}

TEST_F(GatewayTest, ConfigurationFileIsFollowed) {
  FakeWorker decode(always(200, "{}")), prefill(always(200, "{}"));
  config.pd_decider = "never";
  TempFile file(*config.picker_config());
  config.config_file = file.path();
  start({decode.member("decode"), prefill.member("prefill")});
  EXPECT_EQ(post().headers.get("x-baton-worker"), "decode=" + decode.address());
  config.pd_decider = "always-disagg-pd-decider";
  file.write(*config.picker_config());
  gateway->look_at_files();
  EXPECT_EQ(post().headers.get("x-baton-worker"), "decode=" + decode.address() + ",prefill=" + prefill.address());
  file.write("plugins: [{type: made-up}]");
  gateway->look_at_files();
  EXPECT_EQ(post().headers.get("x-baton-worker"), "decode=" + decode.address() + ",prefill=" + prefill.address());
}

TEST_F(GatewayTest, ClientThatNeverFinishesItsBody) {
  FakeWorker decode(always(200, "{}"));
  config.body_timeout_ms = 50;
  start({decode.member("decode")});
  net::TestSocket client(gateway->port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"model\":");
  EXPECT_THAT(client.read_to_end(), HasSubstr("408 Request Timeout"));
  EXPECT_EQ(decode.posts, 0);
}

TEST_F(GatewayTest, BodyOfAHundredMegabytes) {
  FakeWorker decode(always(200, "{}"));
  start({decode.member("decode")});
  net::TestSocket refused(gateway->port());
  refused.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n{\"model\":");
  EXPECT_THAT(refused.read_to_end(), HasSubstr("413 ")) << "by its length, before it is sent";
  EXPECT_EQ(decode.posts, 0);
  EXPECT_EQ(post().status, 200);
}

TEST_F(GatewayTest, TlsWithACertificateMadeAtStart) {
  FakeWorker decode(always(200, "secret"));
  start({decode.member("decode")});
  const int plain = gateway->port();
  config.tls = true;
  Gateway& secure = start({decode.member("decode")});
  net::run_task([&]() -> net::Task<> {
    net::TlsClientOptions options;
    options.verify = false;
    auto tls = net::TlsClient::make(options);
    EXPECT_TRUE(tls);
    if (!tls) co_return;
    net::Client client;
    net::Call request;
    request.host = "127.0.0.1", request.port = secure.port(), request.method = "POST", request.target = "/v1/completions";
    request.body = "{}";
    request.tls = *tls;
    const auto response = co_await client.fetch(std::move(request));
    EXPECT_TRUE(response) << response.error().message;
    if (response) EXPECT_EQ(response->body, "secret");
  });
  EXPECT_LT(call(secure.port(), "GET", "/health").status, 0) << "plain text is no TLS";
  EXPECT_NE(plain, secure.port());
  config.tls_cert_dir = "/nonexistent";
  EXPECT_FALSE(Gateway(config).start());
}

TEST_F(GatewayTest, HeadOverItsLimit) {
  config.header_bytes_max = 2'048;
  start({}, 0);
  net::TestSocket client(gateway->port());
  client.send(cat("GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ", std::string(3'000, 'x'), "\r\n\r\n"));
  EXPECT_THAT(client.read_to_end(), HasSubstr("431 "));
}

// As many as this process may have descriptors for, at most ten thousand; the gateway has the other end of each.
TEST_F(GatewayTest, TenThousandConnects) {
  FakeWorker decode(always(200, "{}"));
  start({decode.member("decode")});
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto most = std::min<size_t>(10'000, (limit.rlim_cur - 1'000) / 2);
  std::vector<std::unique_ptr<net::TestSocket>> idle;
  for (size_t i = 0; i < most; ++i) idle.push_back(std::make_unique<net::TestSocket>(gateway->port()));
  EXPECT_EQ(post().status, 200) << "behind " << most << " connections";
  for (auto& client : idle) client->send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  size_t answered = 0;
  for (auto& client : idle) answered += client->read_until("\r\n\r\n").find("200 OK") != std::string::npos;
  EXPECT_EQ(answered, most);
}

TEST_F(GatewayTest, ConnectionsOverTheLimitAreToldSo) {
  config.concurrent_requests_max = 1;  // and 4,096 idle ones
  start({}, 0);
  std::vector<std::unique_ptr<net::TestSocket>> idle;
  for (int i = 0; i < 4'097; ++i) idle.push_back(std::make_unique<net::TestSocket>(gateway->port()));
  for (auto& client : {idle.front().get(), idle.back().get()}) {  // accepted in order: with the last, all are
    client->send("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_THAT(client->read_until("\r\n\r\n"), HasSubstr("503"));
  }
  net::TestSocket one_more(gateway->port());
  EXPECT_THAT(one_more.read_to_end(), testing::AllOf(HasSubstr("503 Service Unavailable"), HasSubstr("retry-after")));
}

TEST_F(GatewayTest, AllNumbersStale) {
  FakeWorker a(always(200, "a")), b(always(200, "b"));
  config.metrics_staleness_threshold_ms = 1;
  config.refresh_metrics_interval_ms = 1'000;
  start({a.member("decode"), b.member("decode")});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(post().status, 200) << "old numbers are no reason to refuse";
}

TEST_F(GatewayTest, SecondListenerShowsAndForwardsNothing) {
  FakeWorker decode(always(200, "{}"));
  net::Server probe({}, [] { return net::Handler(); });  // finds a port that is free
  ASSERT_TRUE(probe.start());
  config.metrics_port = probe.port();
  probe.stop(net::Millis(0));
  start({decode.member("decode")});
  EXPECT_EQ(call(gateway->metrics_port(), "GET", "/health").status, 200);
  EXPECT_THAT(call(gateway->metrics_port(), "GET", "/metrics").body, HasSubstr("baton_gateway_endpoint_up"));
  EXPECT_THAT(call(gateway->metrics_port(), "GET", "/debug/plugins/state").body, HasSubstr(decode.address()));
  EXPECT_EQ(call(gateway->metrics_port(), "POST", "/v1/completions", "{}").status, 404);
  EXPECT_EQ(decode.posts, 0);
}

}  // namespace
}  // namespace baton::gateway
