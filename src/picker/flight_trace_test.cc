// A request's spans: llm-d's names, below one another, below whoever asked; and what goes on to the worker.
#include "picker/flight_trace.h"

#include <map>

#include "picker/test_pool.h"

namespace baton::picker {
namespace {

constexpr const char* kParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

std::map<std::string, SpanRecord> by_name(Tracer& tracer) {
  std::map<std::string, SpanRecord> out;
  for (SpanRecord& span : tracer.take(1'000)) out.insert_or_assign(span.name, std::move(span));
  return out;
}

// "name < parent's name" of every span; the remote parent is "remote".
std::map<std::string, std::string> parents(const std::map<std::string, SpanRecord>& spans) {
  std::map<std::string, std::string> out;
  for (const auto& [name, span] : spans) {
    std::string parent = "nobody";
    for (const auto& [other, record] : spans) {
      if (record.context.span_id == span.parent) parent = other;
    }
    if (span.parent == parse_traceparent(kParent)->span_id) parent = "remote";
    EXPECT_EQ(span.context.trace_id, parse_traceparent(kParent)->trace_id) << name;
    EXPECT_LE(span.begin_unix_ns, span.end_unix_ns) << name;
    out[name] = parent;
  }
  return out;
}

std::string text(const SpanRecord& span, std::string_view key) {
  for (const SpanAttribute& attribute : span.attributes) {
    if (attribute.key != key) continue;
    if (const auto* s = std::get_if<std::string>(&attribute.value)) return *s;
    if (const auto* n = std::get_if<int64_t>(&attribute.value)) return std::to_string(*n);
    if (const auto* b = std::get_if<bool>(&attribute.value)) return *b ? "true" : "false";
    if (const auto* l = std::get_if<std::vector<std::string>>(&attribute.value)) return l->empty() ? "" : l->front();
    return "a number";
  }
  return "absent";
}

std::string header(const Choice& choice, std::string_view name) {
  for (const auto& [key, value] : choice.set_headers) {
    if (key == name) return value;
  }
  return "";
}

class FlightTraceTest : public testing::Test {
 protected:
  ManualClock clock;
  Tracer tracer{{}, clock};
};

TEST_F(FlightTraceTest, ADisaggregatedRequestIsOneTree) {
  TestPool pool(kDisagg, {.tracer = &tracer});
  pool.members({{"a", "decode"}, {"b", "prefill"}});
  auto flight = pool.begin(kSmall, {{"traceparent", kParent}});
  const auto choice = pool.decide(*flight);
  ASSERT_TRUE(choice);
  const std::string onward = header(**choice, "traceparent");
  flight->answer_head(200, "application/json");
  flight->answer_bytes(R"({"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}})", true);
  flight->finish(200);
  flight.reset();
  const auto spans = by_name(tracer);
  const std::map<std::string, std::string> expected = {
      {"gateway.request", "remote"},
      {"gateway.request_orchestration", "gateway.request"},
      {"run_scheduler_profile", "gateway.request_orchestration"},
      {"filter_endpoints", "run_scheduler_profile"},
      {"llm_d.epp.scoring", "run_scheduler_profile"},
      {"llm_d.epp.scorer.prefix-cache-scorer", "llm_d.epp.scoring"},
      {"llm_d.epp.scorer.queue-scorer", "llm_d.epp.scoring"},
      {"pick_endpoints", "run_scheduler_profile"},
      {"pick_disagg_profile", "gateway.request_orchestration"},
      {"prepare_disaggregation", "gateway.request_orchestration"},
  };
  EXPECT_EQ(parents(spans), expected);
  const SpanRecord& request = spans.at("gateway.request");
  EXPECT_EQ(request.kind, SpanKind::kServer);
  EXPECT_EQ(onward, traceparent(request.context)) << "the worker's spans hang below ours";
  EXPECT_EQ(text(request, "gen_ai.request.model"), "m");
  EXPECT_EQ(text(request, "gen_ai.request.id"), "id-1");
  EXPECT_EQ(text(request, "http.response.status_code"), "200");
  EXPECT_EQ(text(request, "gen_ai.usage.output_tokens"), "2");
  EXPECT_EQ(text(spans.at("prepare_disaggregation"), "llm_d.epp.pd.disaggregation_used"), "true");
  EXPECT_EQ(text(spans.at("prepare_disaggregation"), "llm_d.epp.pd.prefill_pod_address"), "b");
  EXPECT_EQ(text(spans.at("prepare_disaggregation"), "llm_d.epp.pd.prefill_pod_port"), "80");
  EXPECT_EQ(text(spans.at("pick_disagg_profile"), "llm_d.epp.profile_handler.decision"), "prefill-decode");
  EXPECT_EQ(text(spans.at("filter_endpoints"), "llm_d.epp.filter.filtered_endpoints"), "1");
  EXPECT_EQ(text(spans.at("llm_d.epp.scorer.queue-scorer"), "llm_d.epp.scorer.weight"), "a number");
  EXPECT_EQ(text(spans.at("llm_d.epp.scoring"), "llm_d.epp.scorer.count"), "2");
}

TEST_F(FlightTraceTest, BothProfilesAndTheChosenEndpointAreThere) {
  TestPool pool(kDisagg, {.tracer = &tracer});
  pool.members({{"a", "decode"}, {"b", "prefill"}});
  auto flight = pool.begin(kSmall, {{"traceparent", kParent}});
  ASSERT_TRUE(pool.decide(*flight));
  flight.reset();
  std::vector<std::string> profiles;
  std::string top;
  for (const SpanRecord& span : tracer.take(1'000)) {
    if (span.name == "run_scheduler_profile") profiles.push_back(text(span, "llm_d.epp.scheduling.profile.name"));
    if (span.name == "pick_endpoints" && text(span, "llm_d.epp.picker.top_endpoints") != "absent")
      top = text(span, "llm_d.epp.picker.top_endpoints");
  }
  EXPECT_THAT(profiles, testing::ElementsAre("decode", "prefill"));
  EXPECT_EQ(top, "a:80");
}

TEST_F(FlightTraceTest, ARefusalIsAFailedTrace) {
  TestPool pool(kPrefixOnly, {.tracer = &tracer});
  auto flight = pool.begin(kSmall, {{"traceparent", kParent}});
  EXPECT_FALSE(pool.decide(*flight));
  flight.reset();
  const auto spans = by_name(tracer);
  EXPECT_TRUE(spans.at("gateway.request").failed);
  EXPECT_EQ(text(spans.at("gateway.request"), "http.response.status_code"), "503");
  EXPECT_EQ(spans.at("gateway.request_orchestration").error, "no ready endpoint serves the model");
}

TEST_F(FlightTraceTest, WhoIsNotSampledSaysSoAndNothingElse) {
  TestPool pool(kPrefixOnly, {.tracer = &tracer});
  pool.members({{"a", ""}});
  auto flight = pool.begin(kSmall, {{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}});
  const auto choice = pool.decide(*flight);
  ASSERT_TRUE(choice);
  EXPECT_THAT(header(**choice, "traceparent"), testing::StartsWith("00-0af7651916cd43dd8448eb211c80319c-"));
  EXPECT_THAT(header(**choice, "traceparent"), testing::EndsWith("-00"));
  flight->finish(200);
  flight.reset();
  EXPECT_EQ(tracer.counts().recorded, 0u);
}

TEST_F(FlightTraceTest, WithoutATracerNothingIsTouched) {
  TestPool pool(kPrefixOnly);
  pool.members({{"a", ""}});
  auto flight = pool.begin(kSmall, {{"traceparent", kParent}});
  const auto choice = pool.decide(*flight);
  ASSERT_TRUE(choice);
  EXPECT_EQ(header(**choice, "traceparent"), "");
}

}  // namespace
}  // namespace baton::picker
