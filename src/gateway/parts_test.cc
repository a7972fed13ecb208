// The gateway's pure parts: flags, keys, pools file, access log.
#include <unistd.h>

#include <fstream>

#include "base/prng.h"
#include "base/sha256.h"
#include "gateway/access_log.h"
#include "gateway/config.h"
#include "gateway/keys.h"
#include "gateway/pools.h"
#include "route/config.h"

namespace baton::gateway {
namespace {

using testing::HasSubstr;

TEST(GatewayConfig, TakesThePickersFlags) {
  GatewayConfig config;
  auto parsed =
      gateway_options(config).parse({"--refresh-metrics-interval=100ms", "--metrics-staleness-threshold", "1m30s", "--pool-name",
                                     "p", "--pd-decider", "prefix-based-pd-decider", "--non-cached-tokens", "64", "--v=2"});
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(config.refresh_metrics_interval_ms, 100);
  EXPECT_EQ(config.metrics_staleness_threshold_ms, 90'000);
  EXPECT_EQ(parsed->warnings.size(), 1u) << "an llm-d flag that is not ours";
  EXPECT_TRUE(config.check());
  for (const char* bad : {"", "5x", "ms", "-1s", "1s5", "1e99h"}) {
    EXPECT_FALSE(gateway_options(config).parse({cat("--connect-timeout=", bad)})) << bad;
  }
  EXPECT_TRUE(gateway_options(config).parse({"--connect-timeout=250"}));
  EXPECT_EQ(config.connect_timeout_ms, 250);
  EXPECT_FALSE(gateway_options(config).parse({"--picker", "best"}));
}

TEST(GatewayConfig, FlagsMeanAConfigurationThatLoads) {
  const std::vector<std::vector<std::string>> kCases = {
      {},
      {"--pd-decider", "never"},
      {"--pd-decider", "prefix-based-pd-decider", "--non-cached-tokens", "64", "--prompt-tokens", "128"},
      {"--picker", "weighted-random-picker", "--prefill-candidates", "3", "--no-prefill-may-decode"},
      {"--scorers", "queue-scorer", "--prefill-scorers", "kv-cache-utilization-scorer=0.5,queue-scorer=2"},
      {"--scorers", ""},
  };
  for (const auto& flags : kCases) {
    GatewayConfig config;
    ASSERT_TRUE(gateway_options(config).parse(flags));
    const auto text = config.picker_config();
    ASSERT_TRUE(text) << text.error().message;
    const auto loaded = route::load_config(*text);
    EXPECT_TRUE(loaded.plan) << *text << "\n" << testing::PrintToString(loaded.errors);
    EXPECT_TRUE(loaded.warnings.empty()) << testing::PrintToString(loaded.warnings);
  }
  GatewayConfig config;
  config.scorers = "queue-scorer=x,";
  config.pd_decider = "prefix-based-pd-decider";
  config.tls_cert_file = "only-one";
  const auto bad = config.check();
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message,
              testing::AllOf(HasSubstr("--scorers"), HasSubstr("--non-cached-tokens"), HasSubstr("--tls-key-file")));
}

TEST(ApiKeys, FileOfNamesAndKeys) {
  ApiKeys keys;
  EXPECT_TRUE(keys.empty());
  const std::string hashed = hex(Sha256().update("other").finish());
  ASSERT_TRUE(keys.load(
      cat("# tenants\n\nalice secret-1 objective=high tokens_per_minute=600 burst=100  # hers\n  bob\tsha256:", hashed, "\r\n")));
  EXPECT_FALSE(keys.empty());
  const auto alice = keys.find("Bearer secret-1");
  ASSERT_TRUE(alice);
  EXPECT_EQ(alice->name, "alice");
  EXPECT_EQ(alice->objective, "high");
  ASSERT_TRUE(keys.find("Bearer other"));
  EXPECT_EQ(keys.find("Bearer other")->name, "bob");
  for (const char* bad : {"", "secret-1", "Bearer ", "Bearer secret-", "Bearer secret-11", "bearer secret-1", "Basic secret-1"})
    EXPECT_FALSE(keys.find(bad)) << bad;
  EXPECT_FALSE(keys.find(cat("Bearer ", hashed))) << "the hash is no key";
}

TEST(ApiKeys, BadFilesKeepTheOldKeysAndShowNone) {
  ApiKeys keys;
  ASSERT_TRUE(keys.load("alice secret-1"));
  for (const char* bad : {"bob", "bob secret-2 burst=0", "bob secret-2 colour=red", "bob sha256:12",
                          "bob secret-2\ncarl secret-2", "bob secret-2 tokens_per_minute=x"}) {
    const auto loaded = keys.load(bad);
    ASSERT_FALSE(loaded) << bad;
    EXPECT_THAT(loaded.error().message, testing::AllOf(HasSubstr("line "), testing::Not(HasSubstr("secret")))) << bad;
    EXPECT_TRUE(keys.find("Bearer secret-1")) << bad;
  }
  ASSERT_TRUE(keys.load("bob secret-2"));
  EXPECT_FALSE(keys.find("Bearer secret-1"));
  keys.add("flag", "from-a-flag");
  ASSERT_TRUE(keys.load(""));
  EXPECT_TRUE(keys.find("Bearer from-a-flag")) << "a file does not take away the flag's key";
}

TEST(ApiKeys, BucketLetsInThenMakesPayOff) {
  ApiKeys keys;
  ASSERT_TRUE(keys.load("a k tokens_per_minute=600 burst=100"));  // ten a second
  const auto key = keys.find("Bearer k");
  int64_t now = 1'000'000;
  EXPECT_EQ(key->wait_ms(now), 0);
  key->charge(150, now);  // more than there was: owed
  EXPECT_EQ(key->wait_ms(now), 5'001);
  EXPECT_EQ(key->wait_ms(now + 5'000), 1);
  EXPECT_EQ(key->wait_ms(now + 5'001), 0);
  EXPECT_DOUBLE_EQ(key->level(now + 3'600'000), 100) << "no more than the burst";
  ASSERT_TRUE(keys.load("a k tokens_per_minute=600 burst=100\nb other"));
  EXPECT_EQ(keys.find("Bearer k"), key) << "an unchanged key keeps its bucket";
  ASSERT_TRUE(keys.load("a k"));
  EXPECT_EQ(keys.find("Bearer k")->wait_ms(now), 0);
}

TEST(Pools, FileNamesPools) {
  const auto pools = parse_pools(
      "pools:\n- name: small\n  endpoints: small.yaml\n  models: [a, b]\n  max-concurrent-requests: 7\n- {name: big, propose-role-flips: true, endpoints: "
      "/x/big.yaml, config: big-config.yaml}\n",
      "/etc/baton");
  ASSERT_TRUE(pools) << pools.error().message;
  ASSERT_EQ(pools->size(), 2u);
  EXPECT_EQ((*pools)[0].endpoints_file, "/etc/baton/small.yaml");
  EXPECT_EQ((*pools)[0].models, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ((*pools)[0].concurrent_requests_max, 7);
  EXPECT_FALSE((*pools)[0].propose_role_flips);
  EXPECT_TRUE((*pools)[1].propose_role_flips);
  EXPECT_EQ((*pools)[1].endpoints_file, "/x/big.yaml");
  EXPECT_EQ((*pools)[1].config_file, "/etc/baton/big-config.yaml");
  const auto kube = parse_pools(
      "- {name: a, inference-pool: ns/p, kubeconfig: k}\n- {name: b, endpoint-selector: \"app=x,tier in (a,b)\", "
      "endpoint-target-ports: [8000, 8001], namespace: n}",
      "/etc/baton");
  ASSERT_TRUE(kube) << kube.error().message;
  EXPECT_EQ((*kube)[0].inference_pool, "p");
  EXPECT_EQ((*kube)[0].pool_namespace, "ns");
  EXPECT_EQ((*kube)[0].kubeconfig, "/etc/baton/k");
  EXPECT_EQ((*kube)[1].endpoint_selector, "app=x,tier in (a,b)");
  EXPECT_EQ((*kube)[1].target_ports, (std::vector<int>{8000, 8001}));
  EXPECT_EQ((*kube)[1].pool_namespace, "n");
  const std::pair<const char*, const char*> kBad[] = {
      {"", "list of pools"},
      {"pools: []", "list of pools"},
      {"pools: [5]", "map"},
      {"- {name: a, endpoints: x}\n- {name: a, endpoints: y}", "line 2: pool a is there twice"},
      {"- {name: a}", "needs endpoints"},
      {"- {name: a, endpoints: x, inference-pool: p}", "one of them"},
      {"- {name: a, inference-pool: a/b/c}", "namespace/name"},
      {"- {name: a, endpoint-selector: x=y}", "belong together"},
      {"- {name: a, endpoint-selector: x=y, endpoint-target-ports: [0]}", "number"},
      {"- {endpoints: a}", "needs a name"},
      {"- {name: a, endpoints: x, colour: red}", "colour"},
      {"- {name: a, endpoints: x, max-concurrent-requests: many}", "number"},
      {"- {name: [a], endpoints: x}", "must be a text"},
      {"- {name: a, endpoints: x, propose-role-flips: often}", "true or false"},
      {"- {name: a", "line"},
  };
  for (const auto& [text, why] : kBad) {
    const auto bad = parse_pools(text, "");
    ASSERT_FALSE(bad) << text;
    EXPECT_THAT(bad.error().message, HasSubstr(why)) << text;
  }
}

TEST(PeekModel, FindsTheTopLevelModelOnly) {
  const std::pair<const char*, const char*> kCases[] = {
      {R"({"model":"m"})", "m"},
      {R"( { "a" : { "model" : "no" }, "b":[{"model":"no"},"]"], "c":"\"model\":\"no\"", "d":-1.5e3,"e":null , "model" : "yes" } )",
       "yes"},
      {R"({"x":"model","model":"m","model":"n"})", "m"},
      {R"({"model":5})", ""},
      {R"({"model":"a\u0062"})", ""},
      {R"({"messages":[{"model":"no"}]})", ""},
      {R"({"model")", ""},
      {R"({"model":)", ""},
      {R"({"model":"m)", ""},
      {R"(["model","m"])", ""},
      {"", ""},
      {"{", ""},
      {R"({"a":"\)", ""},
      {R"({"a":{"b":[1,2,{"c":"}"}]},"model":"deep"})", "deep"},
  };
  for (const auto& [body, want] : kCases) EXPECT_EQ(peek_model(body), want) << body;
}

TEST(AccessLog, SurvivesRotation) {
  const std::string path = cat(testing::TempDir(), "access-", ::getpid(), "-", Prng(1).next(), ".log");
  auto lines = [](const std::string& file) {
    std::ifstream in(file);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  AccessLog log;
  EXPECT_FALSE(log.on());
  EXPECT_FALSE(AccessLog().open("/nonexistent/access.log"));
  ASSERT_TRUE(log.open(path));
  log.line("{\"a\":1}");
  log.flush();
  ASSERT_EQ(::rename(path.c_str(), (path + ".1").c_str()), 0);
  log.line("{\"a\":2}");
  log.flush();
  EXPECT_EQ(lines(path + ".1"), "{\"a\":1}\n");
  EXPECT_EQ(lines(path), "{\"a\":2}\n");
  for (int i = 0; i < 9; ++i) log.line(std::string(1 << 20, 'x'));
  EXPECT_GT(log.dropped(), 0u) << "memory is bounded";
  ::unlink(path.c_str()), ::unlink((path + ".1").c_str());
}

}  // namespace
}  // namespace baton::gateway
