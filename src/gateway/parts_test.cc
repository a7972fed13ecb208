// The gateway's pure parts: flags, bodies, scraped text, pool.
#include "gateway/config.h"
#include "gateway/metrics_scan.h"
#include "gateway/pool.h"
#include "gateway/prober.h"
#include "gateway/request_view.h"

namespace baton::gateway {
namespace {

TEST(GatewayConfig, TakesThePickersFlags) {
  GatewayConfig config;
  auto parsed =
      gateway_options(config).parse({"--refresh-metrics-interval=100ms", "--metrics-staleness-threshold", "1m30s", "--pool-name",
                                     "p", "--pd-decider", "prefix-based-pd-decider", "--non-cached-tokens", "64", "--v=2"});
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(config.refresh_metrics_interval_ms, 100);
  EXPECT_EQ(config.metrics_staleness_threshold_ms, 90'000);
  EXPECT_EQ(parsed->warnings.size(), 1u) << "an llm-d flag that is not ours";
  auto route = config.finish();
  ASSERT_TRUE(route);
  EXPECT_EQ(route->decider, route::DeciderKind::kPrefixBased);
  EXPECT_EQ(route->non_cached_tokens, 64);
  EXPECT_EQ(route->stale_after_ms, 90'000);
  for (const char* bad : {"", "5x", "ms", "-1s", "1s5", "1e99h"}) {
    EXPECT_FALSE(gateway_options(config).parse({cat("--connect-timeout=", bad)})) << bad;
  }
  EXPECT_TRUE(gateway_options(config).parse({"--connect-timeout=250"}));
  EXPECT_EQ(config.connect_timeout_ms, 250);
  EXPECT_FALSE(gateway_options(config).parse({"--picker", "best"}));
}

TEST(ReadRequest, SeesModelAndSize) {
  auto view = read_request(R"({"model":"m","stream":true,"prompt":"01234567"})", Api::kCompletions, 1, 16);
  ASSERT_TRUE(view);
  EXPECT_EQ(view->model, "m");
  EXPECT_TRUE(view->stream);
  EXPECT_EQ(view->prompt_tokens, 2);
  EXPECT_EQ(read_request(R"({"prompt":[1,2,3]})", Api::kCompletions, 1, 16)->prompt_tokens, 3);
  EXPECT_EQ(read_request(R"({"prompt":[[1,2,3],[4]]})", Api::kCompletions, 1, 16)->prompt_tokens, 4);
  EXPECT_EQ(read_request("{}", Api::kChat, 1, 16)->prompt_tokens, 1);
  EXPECT_EQ(read_request(R"({"prompt":5,"messages":"x","stream":"yes","model":null})", Api::kChat, 1, 16)->model, "");
}

TEST(ReadRequest, ChainFollowsWhatTheModelSees) {
  auto chain = [](std::string_view body) { return read_request(body, Api::kChat, 1, 4)->chain; };
  const std::string text(100, 'x');
  const auto plain = chain(R"({"model":"m","messages":[{"role":"user","content":")" + text + R"("}]})");
  const auto spaced =
      chain(R"({ "temperature":1, "messages" : [ {"content" : ")" + text + R"(","role":"user"} ], "model":"m" })");
  const auto parts = chain(R"({"model":"m","messages":[{"role":"user","content":[{"type":"text","text":")" + text + R"("}]}]})");
  EXPECT_EQ(plain, spaced);
  EXPECT_EQ(plain, parts);
  const auto longer = chain(R"({"model":"m","messages":[{"role":"user","content":")" + text +
                            R"("},{"role":"assistant","content":"more of it"}]})");
  ASSERT_GT(longer.size(), plain.size());
  EXPECT_TRUE(std::equal(plain.begin(), plain.end(), longer.begin())) << "a conversation that grows keeps its prefix";
  EXPECT_NE(plain[0], chain(R"({"model":"m","cache_salt":"s","messages":[{"role":"user","content":")" + text + R"("}]})")[0]);
  EXPECT_NE(plain[0], chain(R"({"model":"m","tools":[{"a":1}],"messages":[{"role":"user","content":")" + text + R"("}]})")[0]);
}

TEST(ReadRequest, CutsKvTransferParamsWhereverTheyStand) {
  const std::pair<const char*, const char*> kCases[] = {
      {R"({"kv_transfer_params":null})", "{}"},
      {R"({ "kv_transfer_params" : {"a":[1,{"b":"}"}]} , "x":1 })", R"({ "x":1 })"},
      {R"({"x":1, "kv_transfer_params":2})", R"({"x":1})"},
      {R"({"x":1,"kv_transfer_params":2,"y":"kv_transfer_params"})", R"({"x":1,"y":"kv_transfer_params"})"},
      {R"({"kv_transfer_params":1,"kv_transfer\u005fparams":2,"y":3})", R"({"y":3})"},
  };
  for (const auto& [body, want] : kCases) {
    auto view = read_request(body, Api::kCompletions, 1, 16);
    ASSERT_TRUE(view && view->cut) << body;
    EXPECT_EQ(view->cleaned, want);
  }
  EXPECT_FALSE(read_request(R"({"x":{"kv_transfer_params":1}})", Api::kChat, 1, 16)->cut) << "only the top level means anything";
}

TEST(ScanMetrics, ReadsWhatVllmWrites) {
  const auto got = scan_metrics(R"(# HELP vllm:num_requests_waiting Number of requests waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a } \" b"} 3.0
vllm:num_requests_waiting{engine="1",model_name="x"} 4
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99
vllm:num_requests_running{engine="0"} 1e+01
vllm:kv_cache_usage_perc{engine="0"} 0.25 1700000000000
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:cache_config_info{block_size="16",num_gpu_blocks="100",gpu_block_size="7"} 1.0
vllm:prompt_tokens_total 5)");
  EXPECT_EQ(got.waiting, 7);
  EXPECT_EQ(got.running, 10);
  EXPECT_FLOAT_EQ(*got.kv_usage, 0.5f);
  EXPECT_EQ(got.block_size, 16);
  EXPECT_FALSE(scan_metrics("").waiting);
  for (const char* bad :
       {"vllm:num_requests_waiting", "vllm:num_requests_waiting{", "vllm:num_requests_waiting NaN",
        "vllm:num_requests_waiting +Inf", "vllm:num_requests_waiting 5x", "vllm:num_requests_waiting{a=\"b} 5"}) {
    EXPECT_FALSE(scan_metrics(bad).waiting) << bad;
  }
  EXPECT_EQ(scan_metrics("vllm:num_requests_waiting -5\r\nvllm:kv_cache_usage_perc 7").waiting, 0);
  EXPECT_EQ(scan_metrics("vllm:num_requests_waiting 1e300").waiting, 1'000'000'000);
}

TEST(ModelCards, AreTakenAsTheyAre) {
  const auto cards = read_model_cards(R"({"data":[{"id":"a", "x": 18446744073709551615},{"no":"id"},{"id":5},7,{"id":"b"}]})");
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[0].json, R"({"id":"a", "x": 18446744073709551615})");
  EXPECT_TRUE(read_model_cards("<html>").empty());
  EXPECT_TRUE(read_model_cards(R"({"data":{}})").empty());
}

TEST(Pool, KeepsStateAcrossChangesAndReusesSlots) {
  Pool pool;
  const discovery::Member a{"a", 1, "decode", {}, "", {}}, b{"b", 1, "prefill", {}, "", {}}, c{"c", 1, "", {"named"}, "", {}};
  ASSERT_EQ(pool.apply({a, b}).size(), 2u);
  const auto state = pool.view()->states[0];
  const auto gone = pool.view()->states[1];
  pool.record(std::vector<uint64_t>{1, 2}, gone->slot);
  InFlight on_gone(gone, 10);
  const auto fresh = pool.apply({c, a});
  ASSERT_EQ(fresh.size(), 1u);
  EXPECT_TRUE(gone->removed);
  EXPECT_EQ(pool.view()->states[1], state) << "a stays the same, wherever it is listed";
  EXPECT_EQ(fresh[0]->slot, gone->slot);
  EXPECT_EQ(pool.match(std::vector<uint64_t>{1, 2})[gone->slot], 0) << "the new endpoint does not inherit the old one's prefixes";
  on_gone = InFlight();
  EXPECT_EQ(gone->inflight_requests, 0);
  EXPECT_EQ(gone->inflight_tokens, 0);
  EXPECT_TRUE(pool.view()->knows_model("named"));
  pool.set_models(*state, {{"x", "{}"}});
  EXPECT_TRUE(pool.view()->knows_model("x"));
  EXPECT_EQ(pool.view()->endpoints[1].models, std::vector<std::string>{"x"});
  EXPECT_EQ(pool.view()->endpoints[0].models, std::vector<std::string>{"named"});
}

TEST(InFlight, ReleasesOnceInAnyOrder) {
  auto state = std::make_shared<EndpointState>();
  {
    InFlight a(state, 100);
    InFlight b = std::move(a);
    EXPECT_EQ(state->inflight_requests, 1);
    b.release_tokens();
    EXPECT_EQ(state->inflight_tokens, 0);
    b.release();
    b.release();
  }
  EXPECT_EQ(state->inflight_requests, 0);
  EXPECT_EQ(state->inflight_tokens, 0);
}

}  // namespace
}  // namespace baton::gateway
