// The picker's parts that need no network: pool and in-flight counts, headers, rewrites, sessions, predictions, metrics.
#include "base/clock.h"
#include "picker/limits.h"
#include "picker/picker_metrics.h"
#include "picker/pool.h"
#include "picker/predictor.h"
#include "picker/prober.h"
#include "picker/request_head.h"
#include "picker/rewrite.h"
#include "picker/sessions.h"

namespace baton::picker {
namespace {

discovery::Member member(std::string host, std::string role, std::vector<std::string> models = {}) {
  discovery::Member out;
  out.host = std::move(host);
  out.port = 1;
  out.role = std::move(role);
  out.models = std::move(models);
  return out;
}

TEST(Pool, KeepsStateAcrossChangesAndReusesSlots) {
  Pool pool;
  ASSERT_EQ(pool.apply({member("a", "decode"), member("b", "prefill")}, "", false).fresh.size(), 2u);
  const auto state = pool.view()->states[0];
  const auto gone = pool.view()->states[1];
  InFlight on_gone(gone, 10);
  const auto change = pool.apply({member("c", "", {"named"}), member("a", "decode")}, "", false);
  ASSERT_EQ(change.fresh.size(), 1u);
  EXPECT_EQ(change.gone, std::vector<int>{gone->slot});
  EXPECT_TRUE(gone->removed);
  EXPECT_EQ(pool.view()->states[1], state) << "a stays the same, wherever it is listed";
  EXPECT_EQ(change.fresh[0]->slot, gone->slot);
  EXPECT_EQ(change.fresh[0]->inflight_requests, 0) << "the new endpoint does not inherit the old one's requests";
  on_gone = InFlight();
  EXPECT_EQ(gone->inflight_requests, 0);
  EXPECT_EQ(gone->inflight_tokens, 0);
  EXPECT_EQ(change.fresh[0]->inflight_requests, 0);
  EXPECT_TRUE(pool.view()->knows_model("named"));
  pool.set_models(*state, {{"x", "{}"}});
  EXPECT_TRUE(pool.view()->knows_model("x"));
  EXPECT_EQ(pool.view()->endpoints[1].models, std::vector<std::string>{"x"});
  EXPECT_FALSE(pool.view()->endpoints[0].role_given);
}

TEST(Pool, TheSameAddressUnderAnotherNameIsAnotherWorker) {
  Pool pool;
  auto m = member("a", "decode");
  m.name = "ns/pod-1-rank-0";
  pool.apply({m}, "", true);
  const auto old = pool.view()->states[0];
  m.name = "ns/pod-2-rank-0";
  EXPECT_EQ(pool.apply({m}, "", true).gone.size(), 1u);
  EXPECT_NE(pool.view()->states[0], old);
  EXPECT_EQ(pool.view()->find("ns/pod-2-rank-0"), 0);
  EXPECT_EQ(pool.view()->find("a:1"), 0);
  EXPECT_EQ(pool.view()->find("ns/pod-1-rank-0"), -1);
}

TEST(InFlight, ReleasesOnceInAnyOrder) {
  auto state = std::make_shared<EndpointState>();
  {
    InFlight a(state, 100);
    InFlight b = std::move(a);
    EXPECT_EQ(state->inflight_requests, 1);
    EXPECT_EQ(state->unseen(), 1);
    b.set_context(50);
    EXPECT_EQ(state->context_tokens, 50);
    b.release_tokens();
    EXPECT_EQ(state->inflight_tokens, 0);
    b.release();
    b.release();
  }
  EXPECT_EQ(state->inflight_requests, 0);
  EXPECT_EQ(state->inflight_tokens, 0);
  EXPECT_EQ(state->context_tokens, 0);
  EXPECT_EQ(state->unseen(), 0) << "what has ended is not waiting there";
}

TEST(InFlight, WhatWasSentSinceTheScrapeIsUnseen) {
  auto state = std::make_shared<EndpointState>();
  InFlight a(state, 1), b(state, 1);
  state->sent_when_scraped = 1;
  EXPECT_EQ(state->unseen(), 1);
  state->sent_when_scraped = 2;
  EXPECT_EQ(state->unseen(), 0);
}

TEST(ReadHead, TakesTodaysNamesAndTheirAliases) {
  route::Plan plan;
  const HeaderField headers[] = {{"x-gateway-inference-objective", "old"},
                                 {"x-llm-d-inference-objective", "new"},
                                 {"x-gateway-inference-fairness-id", "tenant"},
                                 {"x-slo-ttft-ms", "200"},
                                 {"x-slo-tpot-ms", "x"},
                                 {"prefer", "respond-async, if-available"},
                                 {"session-id", "agent"}};
  RequestHead head = read_head(headers, plan);
  EXPECT_EQ(head.objective, "new");
  EXPECT_EQ(head.fairness_id, "tenant");
  EXPECT_EQ(head.ttft_slo_ms, 200);
  EXPECT_EQ(head.tpot_slo_ms, 0);
  EXPECT_TRUE(head.if_available);
  EXPECT_EQ(head.session_id, "") << "not read unless something needs it";
  plan.agent_identity = true;
  EXPECT_EQ(read_head(headers, plan).fairness_id, "tenant");
  EXPECT_EQ(read_head(std::span(headers).last(1), plan).fairness_id, "agent");
  const std::string huge(kHeaderValueBytesMax + 1, 'x');
  const HeaderField too_long[] = {{"x-llm-d-inference-fairness-id", huge}};
  EXPECT_EQ(read_head(too_long, plan).fairness_id, "");
}

TEST(ReadHead, FindsTheSessionInHeadersAndCookies) {
  route::Plan plan;
  plan.needs.session = true;
  plan.session.headers = {"x-session-id"};
  plan.session.cookies = {"sid"};
  const HeaderField cookie[] = {{"cookie", "a=b; sid=s1; c=d"}};
  EXPECT_EQ(read_head(cookie, plan).session_id, "s1");
  const HeaderField both[] = {{"cookie", "sid=s1"}, {"x-session-id", "s2"}};
  EXPECT_EQ(read_head(both, plan).session_id, "s2");
}

TEST(Base64, IsThereAndBack) {
  for (const char* text : {"", "n", "ns", "ns/", "ns/pod-0-rank-1"}) EXPECT_EQ(base64_decode(base64_encode(text)), text);
  EXPECT_EQ(base64_encode("ns/pod-rank-0"), "bnMvcG9kLXJhbmstMA==");
  EXPECT_EQ(base64_decode("!!"), "");
}

TEST(RewriteTable, ExactBeatsAnyAndOldestWins) {
  const discovery::Rewrite young{
      .name = "young", .created_s = 2, .rules = {{.models = {"a"}, .targets = {{.weight = 0, .model = "y"}}}}};
  const discovery::Rewrite old{
      .name = "old", .created_s = 1, .rules = {{.models = {"a"}, .targets = {{.weight = 0, .model = "o"}}}}};
  const discovery::Rewrite any{
      .name = "any", .created_s = 0, .rules = {{.models = {}, .targets = {{.weight = 0, .model = "g"}}}}};
  const RewriteTable table({young, old, any});
  Prng prng(1);
  EXPECT_EQ(table.apply("a", prng)->model, "o");
  EXPECT_EQ(table.apply("a", prng)->rewrite, "old");
  EXPECT_EQ(table.apply("b", prng)->model, "g");
  EXPECT_FALSE(RewriteTable().apply("a", prng));
}

TEST(RewriteTable, DrawsByWeight) {
  const RewriteTable table(
      {{.name = "r",
        .created_s = 0,
        .rules = {{.models = {"a"}, .targets = {{.weight = 9, .model = "x"}, {.weight = 1, .model = "y"}}}}}});
  const RewriteTable alike(
      {{.name = "r",
        .created_s = 0,
        .rules = {{.models = {"a"}, .targets = {{.weight = 0, .model = "x"}, {.weight = 0, .model = "y"}}}}}});
  Prng prng(7);
  int heavy = 0, even = 0;
  for (int i = 0; i < 10'000; ++i) heavy += table.apply("a", prng)->model == "x", even += alike.apply("a", prng)->model == "x";
  EXPECT_NEAR(heavy, 9'000, 200) << "seed 7";
  EXPECT_NEAR(even, 5'000, 200) << "seed 7";
}

TEST(Sessions, ForgetByTimeByNumberAndWithTheEndpoint) {
  Sessions sessions;
  auto a = std::make_shared<EndpointState>(), b = std::make_shared<EndpointState>();
  sessions.bind("s", a, 0);
  EXPECT_EQ(sessions.find("s", 1'000, 1'000), a);
  EXPECT_EQ(sessions.find("s", 1'001, 1'000), nullptr);
  EXPECT_EQ(sessions.size(), 0u);
  sessions.bind("s", a, 0);
  sessions.bind("s", b, 0);
  EXPECT_EQ(sessions.find("s", 0, 1'000), b);
  b->removed = true;
  EXPECT_EQ(sessions.find("s", 0, 1'000), nullptr);
  for (size_t i = 0; i <= kSessionsMax; ++i) sessions.bind(std::to_string(i), a, 0);
  EXPECT_EQ(sessions.size(), kSessionsMax);
  EXPECT_EQ(sessions.find("0", 0, 1'000), nullptr) << "the one not used longest";
  EXPECT_EQ(sessions.find("1", 0, 1'000), a);
}

TEST(Predictor, LearnsWhatAWorkerTakes) {
  Predictor predictor;
  predictor.set_prior({.prefill = {1'000, 10, 0}, .decode = {5'000, 100, 0}, .kv_bytes_per_token = 1});
  EndpointState slow;
  predictor.adopt(slow);
  EXPECT_DOUBLE_EQ(slow.cost().prefill.per_token_us, 10);
  Prng prng(3);
  for (int i = 0; i < 2 * Predictor::kRefitEvery; ++i) {
    const auto tokens = static_cast<int64_t>(prng.below(4'000) + 1);
    predictor.prefilled(slow, 0, tokens, 0, 2'000 + 100.0 * static_cast<double>(tokens));
  }
  EXPECT_NEAR(cost::ttft_us(slow.cost(), {}, 1'000, 0), 102'000, 5'000) << "seed 3";
}

TEST(PickerMetrics, CapsWhatClientsControl) {
  Metrics metrics;
  PickerMetrics picker(metrics, "pool");
  for (size_t i = 0; i < kLabelValuesMax; ++i) (void)picker.safe(PickerMetrics::kTenant, "t" + std::to_string(i));
  EXPECT_EQ(picker.safe(PickerMetrics::kTenant, "t5"), "t5");
  EXPECT_EQ(picker.safe(PickerMetrics::kTenant, "new"), "other");
  EXPECT_EQ(picker.safe(PickerMetrics::kModel, "model"), "model") << "tenants cannot push out models";
  EXPECT_EQ(picker.safe(PickerMetrics::kModel, std::string(kLabelBytesMax + 1, 'm')), "other");
  EXPECT_EQ(&picker.series("m", "m", "new", 0), &picker.series("m", "m", "newer", 0));
  EXPECT_NE(&picker.series("m", "m", "t1", 0), &picker.series("m", "m", "t1", 1));
}

TEST(PickerMetrics, SpeakUnderBothNames) {
  Metrics metrics;
  PickerMetrics picker(metrics, "pool");
  Series& series = picker.series("asked", "target", "tenant", -1);
  series.count_request();
  series.observe(MetricId::kDuration, 0.3);
  series.first_byte(true, 0.1);
  series.count_error("429");
  series.count_decision("prefill-decode", {"pd-profile-handler", "pd"});
  const std::string text = metrics.text();
  for (
      const char* line : {
          R"(llm_d_epp_request_total{fairness_id="tenant",model_name="asked",priority="-1",target_model_name="target"} 1.0)",
          R"(inference_objective_request_total{model_name="asked",priority="-1",target_model_name="target"} 1.0)",
          R"(llm_d_epp_request_duration_seconds_count{fairness_id="tenant",model_name="asked",priority="-1",target_model_name="target"} 1.0)",
          R"(inference_objective_request_duration_seconds_count{model_name="asked",target_model_name="target"} 1.0)",
          R"(llm_d_epp_request_ttft_seconds_count{fairness_id="tenant",model_name="asked",priority="-1",streaming="true",target_model_name="target"} 1.0)",
          R"(llm_d_epp_request_error_total{error_code="429",fairness_id="tenant")",
          R"(llm_d_epp_disagg_decision_total{decision_type="prefill-decode",model_name="asked",plugin_name="pd",plugin_type="pd-profile-handler"} 1.0)",
          R"(llm_d_inference_scheduler_pd_decision_total{decision_type="prefill-decode",model_name="asked"} 1.0)",
      }) {
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  }
}

TEST(ModelCards, AreTakenAsTheyAre) {
  const auto cards = read_model_cards(R"({"data":[{"id":"a", "x": 18446744073709551615},{"no":"id"},{"id":5},7,{"id":"b"}]})");
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[0].json, R"({"id":"a", "x": 18446744073709551615})");
  EXPECT_TRUE(read_model_cards("<html>").empty());
  EXPECT_TRUE(read_model_cards(R"({"data":{}})").empty());
}

}  // namespace
}  // namespace baton::picker
