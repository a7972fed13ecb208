// What a text case cannot say: flags, health, cancellation, timeouts, metrics, cut streams, and the pure parts by property.
#include "sidecar/sidecar.h"

#include <future>
#include <thread>

#include "base/prng.h"
#include "net/mailbox.h"
#include "sidecar/legs.h"
#include "sidecar/limits.h"
#include "sidecar/rewrite.h"
#include "sidecar/rig.h"

namespace baton::sidecar {
namespace {

using testing::HasSubstr;

Result<> flags(std::vector<std::string> args, SidecarConfig& config) {
  BATON_OK(sidecar_options(config).parse(args));
  return config.check();
}
std::string refusal(std::vector<std::string> args) {
  SidecarConfig config;
  auto result = flags(std::move(args), config);
  return result ? "" : result.error().message;
}

TEST(SidecarFlags, BothGenerationsStartIt) {
  SidecarConfig config;
  // llm-d-modelservice's command line, then v0.3.0's.
  EXPECT_TRUE(flags({"--port=8000", "--vllm-port=8200", "--connector=nixlv2", "--zap-encoder=json", "--zap-log-level=debug",
                     "--secure-proxy=false", "--inference-pool=ns/pool", "--max-idle-conns-per-host=7"},
                    config));
  EXPECT_EQ(config.model_server_port, 8200);
  EXPECT_EQ(config.idle_connections_max, 7);
  EXPECT_TRUE(flags({"-port=8001", "-vllm-port=8100", "-connector=nixlv2", "-prefiller-use-tls=false", "-v=5",
                     "-secure-proxy=false", "-inference-pool-name=x", "-prefill-retry-backoff=1m1.5s"},
                    config));
  EXPECT_EQ(config.port, 8001);
  EXPECT_EQ(config.prefill_retry_backoff_ms, 61'500);
}

TEST(SidecarFlags, EveryErrorIsNamed) {
  EXPECT_THAT(refusal({"--kv-connector=unheard-of"}), HasSubstr("wants one of nixlv2"));
  EXPECT_THAT(refusal({"--ec-connector=unheard-of"}), HasSubstr("ec-nixl"));
  EXPECT_THAT(refusal({"--enable-tls=prefiller,gateway"}), HasSubstr("not 'gateway'"));
  EXPECT_THAT(refusal({"--enable-ssrf-protection"}), HasSubstr("--inference-pool"));
  EXPECT_THAT(refusal({"--enable-ssrf-protection", "--inference-pool=a/b/c"}), HasSubstr("a/b/c"));
  EXPECT_THAT(refusal({"--enable-ssrf-protection", "--inference-pool=/b"}), HasSubstr("namespace/name"));
  EXPECT_THAT(refusal({"--pool-group=apps"}), HasSubstr("inference.networking.x-k8s.io"));
  EXPECT_THAT(refusal({"--allowed-prefillers=10.0.0.0/99"}), HasSubstr("10.0.0.0/99"));
  EXPECT_THAT(refusal({"--port=65535", "--data-parallel-size=2"}), HasSubstr("65536"));
  EXPECT_THAT(refusal({"--moriio-parallel-dispatch"}), HasSubstr("--moriio-write-mode"));
  EXPECT_THAT(refusal({"--enable-p2p-pull", "--connector=sglang"}), HasSubstr("nixlv2 only"));
  EXPECT_THAT(refusal({"--no-such-flag"}), HasSubstr("no-such-flag"));
  EXPECT_THAT(refusal({"--prefill-retry-backoff=soon"}), HasSubstr("duration"));
  EXPECT_THAT(refusal({"--prefill-max-retries=1", "--prefill-retry-backoff=0ms"}), HasSubstr("above 0"));
  EXPECT_THAT(refusal({"--port=8200"}), HasSubstr("both 8200"));
  std::string all = refusal({"--port=8200", "--moriio-parallel-dispatch"});
  EXPECT_THAT(all, testing::AllOf(HasSubstr("8200"), HasSubstr("moriio")));
  EXPECT_EQ(refusal({"--ec-connector=", "--data-parallel-size=1", "--enable-tls="}), "");
}

TEST(SidecarFlags, BothGenerationsSayTls) {
  SidecarConfig now, before;
  EXPECT_TRUE(flags({"--enable-tls=prefiller,decoder", "--enable-tls=encoder", "--tls-insecure-skip-verify=prefiller"}, now));
  EXPECT_TRUE(now.prefiller_tls.use && now.decoder_tls.use && now.encoder_tls.use);
  EXPECT_TRUE(!now.prefiller_tls.verify && now.decoder_tls.verify);
  EXPECT_TRUE(flags({"-prefiller-use-tls", "-decoder-use-tls=true", "-decoder-tls-insecure-skip-verify=true"}, before));
  EXPECT_TRUE(before.prefiller_tls.use && before.decoder_tls.use && !before.encoder_tls.use);
  EXPECT_TRUE(before.prefiller_tls.verify && !before.decoder_tls.verify);
}

TEST(SidecarFlags, LogLevelsInAllWords) {
  auto level = [](std::string flag) {
    SidecarConfig config;
    EXPECT_TRUE(flags({std::move(flag)}, config));
    return config.log_level;
  };
  EXPECT_EQ(level("--zap-log-level=debug"), "debug");
  EXPECT_EQ(level("--zap-log-level=0"), "info");
  EXPECT_EQ(level("--zap-log-level=5"), "debug");
  EXPECT_EQ(level("--zap-log-level=panic"), "error");
  EXPECT_EQ(level("-v=5"), "debug");
  EXPECT_EQ(level("-v=2"), "info");
  EXPECT_THAT(refusal({"--zap-log-level=loud"}), HasSubstr("loud"));
}

TEST(SidecarLegs, HostPorts) {
  auto text = [](std::string_view s) {
    auto h = parse_host_port(s);
    return h ? h->text() : "no";
  };
  EXPECT_EQ(text("10.0.0.1:8000"), "10.0.0.1:8000");
  EXPECT_EQ(text(" http://pod.svc:80/ "), "pod.svc:80");
  EXPECT_EQ(text("[fe80::1]:9"), "[fe80::1]:9");
  for (std::string_view bad :
       {"", "host", "host:", ":80", "host:0", "host:65536", "host:8x", "::1:80", "a/b:80", "u@h:80", "[]:80", "h h:1"}) {
    EXPECT_EQ(text(bad), "no") << bad;
  }
  net::Headers headers{
      {"x-prefiller-host-port", "a:1, b:2"}, {"X-Prefiller-Host-Port", "c:3"}, {"x-prefiller-url", "http://d:4"}};
  auto hosts = prefillers(headers);
  ASSERT_TRUE(hosts && hosts->size() == 3);
  EXPECT_EQ((*hosts)[2].text(), "c:3");
  EXPECT_FALSE(prefillers({{"x-prefiller-host-port", " , "}}).has_value());
  EXPECT_TRUE(prefillers({{"x-prefiller-host-port", "nonsense"}})->empty());
  EXPECT_EQ(prefillers({{"x-prefiller-host-port",
                         [] {
                           std::string many;
                           for (int i = 0; i < 100; ++i) many += "h:1,";
                           return many;
                         }()}})
                ->size(),
            kHostsMax);
}

TEST(SidecarLegs, InterceptedPaths) {
  EXPECT_EQ(intercepted("POST", "/v1/chat/completions"), Api::kChat);
  EXPECT_EQ(intercepted("POST", "/v1/%63ompletions"), Api::kCompletions);
  EXPECT_EQ(intercepted("POST", "/v1/%zzompletions%"), std::nullopt);
  EXPECT_EQ(intercepted("GET", "/v1/completions"), std::nullopt);
  EXPECT_EQ(intercepted("POST", "/v1/completions/render"), std::nullopt);
}

TEST(SidecarLegs, HiddenKvParamsAreFound) {
  EXPECT_EQ(*without_worker_fields(R"({"a":1, "kv_transfer_params":{}})"), R"({"a":1})");
  EXPECT_EQ(*without_worker_fields(R"({"\u006bv_transfer_params":{},"a":1})"), R"({"a":1})");
  EXPECT_EQ(*without_worker_fields(R"({"messages":"\u00e9 kv_transfer_params"})"), R"({"messages":"\u00e9 kv_transfer_params"})");
  EXPECT_EQ(*without_worker_fields(R"({"bootstrap_host":"h","bootstrap_room":1,"a":1,"ec_transfer_params":{}})"), R"({"a":1})");
  EXPECT_EQ(*without_worker_fields("not json"), "not json");  // the engine's to refuse
  EXPECT_FALSE(without_worker_fields(R"({"kv_transfer_params":NaN})").has_value());
}

TEST(SidecarRewrite, StreamsInPieces) {
  static constexpr std::string_view kLines[] = {"data: {\"usage\":{\"prompt_tokens\":3}}\n",
                                                "data: {\"usage\":null}\r\n",
                                                "\n",
                                                "\r\n",
                                                ": \"usage\"\n",
                                                "data: [DONE]\n",
                                                "data:{\"x\":\"\\\"usage\\\"\"}\n",
                                                "data: {\"usage\":{},\"kv_transfer_params\":{\"a\":1}}\r\n",
                                                "event: usage\n",
                                                "data: {\"usage\": broken\n"};
  for (uint64_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(seed);
    std::string text;
    for (int i = 0; i < 12; ++i) text += kLines[prng.below(std::size(kLines))];
    if (prng.chance(0.5)) text += "data: {\"usa";
    StreamRewriter whole({.cached_tokens = 7}), pieces({.cached_tokens = 7});
    std::string expected = whole.feed(text) + whole.finish(), got;
    for (size_t at = 0; at < text.size();) {
      size_t n = 1 + prng.below(20);
      got += pieces.feed(text.substr(at, n));
      at += n;
    }
    got += pieces.finish();
    EXPECT_EQ(got, expected);
    EXPECT_EQ(std::ranges::count(got, '\n'), std::ranges::count(text, '\n'));
    EXPECT_EQ(got.find("\"a\":1"), std::string::npos);
  }
}

TEST(SidecarRewrite, LongLinesPassUnheld) {
  StreamRewriter lines({.cached_tokens = 7});
  std::string piece(kHeldLineBytesMax / 2, 'x'), got;
  for (int i = 0; i < 5; ++i) got += lines.feed(piece);
  EXPECT_GE(got.size(), piece.size() * 4);
  got += lines.feed("end\ndata: {\"usage\":{}}\n");
  EXPECT_THAT(got, testing::EndsWith("xend\ndata: {\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":7}}}\n"));
}

const std::string kAsked =
    R"({"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,)"
    R"("remote_host":null,"remote_port":null},"stream":false,"max_tokens":1,"max_completion_tokens":1,"min_tokens":1})";

FakeWorker::Turn turn(std::string body, Message answers) {
  return {.expects = {.first_line = "POST /v1/completions", .headers = {}, .body = std::move(body)},
          .answers = std::move(answers)};
}

// An upstream that takes a request and never answers; knows when the request came and when it was given up.
struct Silent {
  Silent() { BATON_CHECK(server.start().has_value()); }
  std::promise<void> entered, left;
  net::Server server{{}, [this]() -> net::Handler {
                       return [this](net::Request&, net::ResponseWriter& writer) -> net::Task<> {
                         net::Mailbox<int> gone;
                         auto hook = writer.cancel().on_cancel([&] { gone.close(); });
                         entered.set_value();
                         co_await gone.pop();
                         left.set_value();
                       };
                     }};
};

bool soon(std::promise<void>& event) {
  return event.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready;
}

TEST(Sidecar, HealthIsTheEngines) {
  Rig rig;
  auto health = [&] {
    net::Call c;
    c.host = "127.0.0.1", c.port = rig.sidecar->port(), c.target = "/health";
    return rig.fetch(c)->status;
  };
  rig.start();
  while (health() != 200) std::this_thread::yield();
  rig.decode.server().stop(net::Millis(0));
  net::Call c = rig.call("{}");
  c.headers = {};
  EXPECT_EQ(rig.fetch(c)->status, 503);
  EXPECT_EQ(health(), 503);  // at once: the request above saw it
}

TEST(Sidecar, ClientLeavingCancelsThePrefillLeg) {
  Rig rig;
  Silent prefill;
  rig.prefill_port = prefill.server.port();
  rig.start();
  net::IoThread thread;
  thread.spawn([&]() -> net::Task<> {
    net::Client client;
    (void)co_await client.fetch(rig.call("{}"));
  });
  ASSERT_TRUE(soon(prefill.entered));
  thread.stop();  // the client goes away
  EXPECT_TRUE(soon(prefill.left));
  rig.sidecar->stop();
  EXPECT_EQ(rig.decode.complaints(), "");  // and nobody was asked to decode
}

TEST(Sidecar, ClientLeavingCancelsTheDecodeLeg) {
  Rig rig;
  rig.prefill.expect(turn(kAsked, {.first_line = "200", .headers = {}, .body = R"({"kv_transfer_params":{}})"}));
  std::atomic<int> entered{0};
  std::promise<void> left;
  net::Server server({}, [&]() -> net::Handler {
    return [&](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
      if (request.path == "/health") co_return (void) co_await writer.send({.status = 200, .headers = {}, .body = {}});
      ++entered;
      net::Mailbox<int> gone;
      auto hook = writer.cancel().on_cancel([&] { gone.close(); });
      co_await gone.pop();
      left.set_value();
    };
  });
  ASSERT_TRUE(server.start().has_value());
  rig.config.model_server_port = server.port();
  rig.start();
  net::IoThread thread;
  thread.spawn([&]() -> net::Task<> {
    net::Client client;
    (void)co_await client.fetch(rig.call("{}"));
  });
  while (entered == 0) std::this_thread::yield();
  thread.stop();
  EXPECT_TRUE(soon(left));
}

TEST(Sidecar, SilentPrefillerTimesOutAndTheEngineReadsThePrompt) {
  Rig rig({"--prefill-timeout=30ms"});
  Silent prefill;
  rig.prefill_port = prefill.server.port();
  rig.decode.expect(turn("{}", {.first_line = "200", .headers = {}, .body = "decoded"}));
  rig.start();
  auto response = rig.fetch(rig.call("{}"));
  EXPECT_EQ(response->body, "decoded");
  EXPECT_TRUE(soon(prefill.left));
}

TEST(Sidecar, AStreamCutByTheEngineIsCutForTheClient) {
  Rig rig;
  net::Server engine({}, []() -> net::Handler {
    return [](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
      if (request.path == "/health") co_return (void) co_await writer.send({.status = 200, .headers = {}, .body = {}});
      (void)co_await writer.begin(200, {{"content-type", "text/event-stream"}});
      (void)co_await writer.write("data: 1\n\n");
      co_await net::sleep_for(net::Millis(1));
    };
  });
  ASSERT_TRUE(engine.start().has_value());
  rig.config.model_server_port = engine.port();
  rig.prefill.expect(turn(kAsked, {.first_line = "200", .headers = {}, .body = R"({"kv_transfer_params":{}})"}));
  rig.start();
  net::run_task([&]() -> net::Task<> {
    net::Client client;
    auto stream = co_await client.open(rig.call("{}"));
    EXPECT_TRUE(stream.has_value());
    EXPECT_EQ(*co_await (*stream)->read(), "data: 1\n\n");
    EXPECT_EQ((co_await (*stream)->read()).error().code, Code::kDataLoss);
  });
}

// A stream that comes faster than anybody reads is read less often; what the client gets is the same.
TEST(Sidecar, AFastStreamArrivesWhole) {
  Rig rig;
  std::string sent;
  for (int i = 0; i < 500; ++i) sent += cat("data: {\"choices\":[{\"text\":\"", i, "\"}]}\n\n");
  net::Server engine({}, [&]() -> net::Handler {
    return [&](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
      if (request.path == "/health") co_return (void) co_await writer.send({.status = 200, .headers = {}, .body = {}});
      (void)co_await writer.begin(200, {{"content-type", "text/event-stream"}});
      for (std::string_view rest = sent; !rest.empty();) {
        size_t end = rest.find("\n\n") + 2;
        (void)co_await writer.write(rest.substr(0, end));
        rest.remove_prefix(end);
        co_await net::sleep_for(net::Millis(0));
      }
      (void)co_await writer.finish();
    };
  });
  ASSERT_TRUE(engine.start().has_value());
  rig.config.model_server_port = engine.port();
  rig.prefill.expect(turn(kAsked, {.first_line = "200", .headers = {}, .body = R"({"kv_transfer_params":{}})"}));
  rig.start();
  EXPECT_EQ(rig.fetch(rig.call("{}"))->body, sent);
}

TEST(Sidecar, MetricsCountLegsAndFallbacks) {
  Rig rig;
  rig.prefill.expect(turn(kAsked, {.first_line = "200", .headers = {}, .body = R"({"kv_transfer_params":{}})"}));
  rig.decode.expect(turn(R"({"kv_transfer_params":{}})", {.first_line = "200", .headers = {}, .body = "a"}));
  rig.prefill.expect(turn(kAsked, {.first_line = "500", .headers = {}, .body = "oops"}));
  rig.decode.expect(turn("{}", {.first_line = "200", .headers = {}, .body = "b"}));
  for (bool started = false; !started;) {  // 0 would be off, so take a port that was free a moment ago
    rig.config.metrics_port = FakeWorker("free").port();
    rig.sidecar.emplace(rig.config);
    started = rig.sidecar->start().has_value();
  }
  EXPECT_EQ(rig.fetch(rig.call("{}"))->body, "a");
  EXPECT_EQ(rig.fetch(rig.call("{}"))->body, "b");
  net::Call c;
  c.host = "127.0.0.1", c.port = rig.sidecar->metrics_port(), c.target = "/metrics";
  // The last leg is counted when its answer has gone out, which the client may see first.
  std::string text;
  while (text.find("pd_request_duration_seconds_count{leg=\"decode\"} 2") == std::string::npos) text = rig.fetch(c)->body;
  for (std::string_view line :
       {"pd_prefill_status_total{code=\"200\"} 1", "pd_prefill_status_total{code=\"500\"} 1",
        "pd_fallback_total{policy=\"local\"} 1", "pd_request_duration_seconds_count{leg=\"prefill\"} 2"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_EQ(rig.prefill.complaints() + rig.decode.complaints(), "");
}

}  // namespace
}  // namespace baton::sidecar
