// A request's life: body to decision to end, on a pool that exists only in memory (no probes: endpoints count as ready).
#include "picker/picker.h"

#include "base/json.h"
#include "picker/body_reader.h"
#include "picker/test_pool.h"

namespace baton::picker {
namespace {

using testing::HasSubstr;

TEST(Picker, PicksAndGivesEverythingBack) {
  TestPool pool(kDisagg);
  pool.members({{"d1", "decode"}, {"d2", "decode"}, {"p1", "prefill"}});
  auto flight = pool.begin(R"({"model":"m","stream":true,"prompt":"hello there, how are you?"})");
  const auto choice = pool.decide(*flight);
  ASSERT_TRUE(choice) << choice.error().message;
  ASSERT_EQ((*choice)->targets.size(), 1u);
  EXPECT_THAT((*choice)->destination, testing::AnyOf("d1:80", "d2:80"));
  EXPECT_EQ((*choice)->prefill, "p1:80");
  EXPECT_EQ((*choice)->set_headers, (std::vector<std::pair<std::string, std::string>>{{"x-prefiller-host-port", "p1:80"}}));
  EXPECT_EQ(flight->model(), "m");
  EXPECT_TRUE(flight->stream());
  const auto decode = pool.state((*choice)->destination), prefill = pool.state("p1:80");
  EXPECT_EQ(decode->inflight_requests, 1);
  EXPECT_EQ(prefill->inflight_requests, 1);
  EXPECT_GT(prefill->inflight_tokens, 0);
  flight->answer_head(200, "text/event-stream");
  flight->answer_bytes("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n", false);
  EXPECT_EQ(prefill->inflight_requests, 0) << "the first byte ends the prefill worker's part";
  EXPECT_EQ(decode->inflight_requests, 1);
  flight->finish(200);
  flight.reset();
  EXPECT_EQ(decode->inflight_requests, 0);
  EXPECT_EQ(decode->inflight_tokens, 0);
  EXPECT_EQ(decode->context_tokens, 0);
}

TEST(Picker, AStreamThatGoesOnElsewhereIsCountedThere) {
  TestPool pool(kDisagg);
  pool.members({{"d1", "decode"}, {"d2", "decode"}, {"p1", "prefill"}});
  auto flight = pool.begin(R"({"model":"m","stream":true,"prompt":"hello there, how are you?"})");
  const auto choice = pool.decide(*flight);
  ASSERT_TRUE(choice);
  const std::string lost = (*choice)->destination;
  const std::string_view event = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
  flight->answer_head(200, "text/event-stream");
  for (int i = 0; i < 3; ++i) {
    pool.clock.advance_ms(10);
    flight->answer_bytes(event, false);
  }
  EXPECT_EQ(flight->output_tokens(), 3);
  const auto again = flight->repick(false);
  ASSERT_TRUE(again);
  ASSERT_NE((*again)->destination, lost);
  const auto prefill = pool.state("p1:80"), decode = pool.state((*again)->destination);
  EXPECT_EQ(prefill->inflight_requests, 1) << "the prompt is computed anew";
  EXPECT_GT(prefill->inflight_tokens, 0);
  pool.clock.advance_ms(500);
  flight->answer_bytes(event, false);
  EXPECT_EQ(prefill->inflight_requests, 0);
  EXPECT_EQ(decode->inflight_tokens, 0);
  EXPECT_EQ(flight->output_tokens(), 4);
  flight->finish(200);
  EXPECT_THAT(pool.text(), HasSubstr("llm_d_epp_request_ttft_seconds_count{fairness_id=\"default-flow\",model_name=\"m\","
                                     "priority=\"0\",streaming=\"true\",target_model_name=\"m\"} 1.0"));
}

TEST(Picker, ASplitPromptSaysWhatDecodeComputes) {
  std::string config(kDisagg);
  for (size_t at = 0; (at = config.find("always-disagg-pd-decider", at)) != std::string::npos; at += 18)
    config.replace(at, 24, "baton-cost-decider");
  const size_t at = config.find("- type: baton-cost-decider") + 26;
  config.insert(at, "\n  parameters: {splitTailTokens: 24, harmWeight: 0}");
  TestPool pool(config);
  pool.members({{"d1", "decode"}, {"p1", "prefill"}});
  pool.state("d1:80")->inflight_tokens = 100'000;  // its own prompts wait
  auto flight = pool.begin(R"({"model":"m","prompt":")" + std::string(8'000, 'x') + R"("})", {{"x-baton-decode-tail-tokens", "9999"}});
  const auto choice = pool.decide(*flight);
  ASSERT_TRUE(choice) << choice.error().message;
  EXPECT_EQ((*choice)->why, "split");
  EXPECT_THAT((*choice)->set_headers, testing::Contains(std::pair<std::string, std::string>("x-baton-decode-tail-tokens", "24")));
  EXPECT_EQ(pool.state("p1:80")->inflight_tokens, 2'000 - 24);
  pool.state("d1:80")->inflight_tokens = 0;
  pool.state("p1:80")->inflight_tokens = 100'000;
  auto local = pool.begin(R"({"model":"m","prompt":")" + std::string(8'000, 'y') + R"("})", {{"x-baton-decode-tail-tokens", "9999"}});
  const auto again = pool.decide(*local);
  ASSERT_TRUE(again);
  EXPECT_EQ((*again)->prefill, "");
  EXPECT_THAT((*again)->remove_headers, testing::Contains("x-baton-decode-tail-tokens"));
}

TEST(Picker, MediaGoWhereTheyWereEncoded) {
  TestPool pool(R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: mm-embeddings-cache-scorer
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: mm-embeddings-cache-scorer
  - pluginRef: max-score-picker
)");
  pool.members({{"a", ""}, {"b", ""}, {"c", ""}, {"d", ""}});
  const auto ask = [&](const std::string& image) {
    auto flight = pool.begin(R"({"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x/)" + image +
                                 R"("}}]}]})",
                             {}, "/v1/chat/completions");
    const auto choice = pool.decide(*flight);
    flight->finish(200);
    return choice ? (*choice)->destination : choice.error().message;
  };
  std::map<std::string, std::string> first;
  for (const char* image : {"1", "2", "3", "4", "5"}) first[image] = ask(image);
  for (int i = 0; i < 20; ++i) {
    for (const auto& [image, where] : first) EXPECT_EQ(ask(image), where) << image;
  }
  EXPECT_THAT(pool.text(), HasSubstr("llm_d_epp_encoder_cache_queries_total{modality=\"image\",plugin_name=\"mm-embeddings-cache-"
                                     "producer\",plugin_type=\"mm-embeddings-cache-producer\"} 105.0"));
  EXPECT_THAT(pool.text(), HasSubstr("llm_d_epp_encoder_cache_hits_total{modality=\"image\",plugin_name=\"mm-embeddings-cache-"
                                     "producer\",plugin_type=\"mm-embeddings-cache-producer\",pod="));
  pool.members({{"a", ""}, {"b", ""}});
  EXPECT_THAT(ask("1"), testing::AnyOf("a:80", "b:80"));
}

TEST(Picker, RepeatsAPrefixWhereItIs) {
  TestPool pool(kPrefixOnly);
  pool.members({{"a", ""}, {"b", ""}, {"c", ""}, {"d", ""}});
  const std::string body = R"({"model":"m","prompt":")" + std::string(4'096, 'x') + R"("})";
  const std::string first = pool.destination(body);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(pool.destination(body), first);
}

// Proxies that show the beginning of a body, or nothing of it.
TEST(Picker, DecidesByTheBeginningOfABody) {
  TestPool pool(kPrefixOnly);
  pool.members({{"a", ""}, {"b", ""}, {"c", ""}, {"d", ""}});
  const std::string body = R"({"model":"m","prompt":")" + std::string(4'096, 'x') + R"("})";
  const std::string first = pool.destination(body);
  for (int i = 0; i < 20; ++i) {
    auto flight = pool.begin(body.substr(0, 3'000), {{"content-length", "4121"}});
    flight->rest_unseen();
    const auto choice = pool.decide(*flight);
    ASSERT_TRUE(choice) << choice.error().message;
    EXPECT_EQ((*choice)->destination, first);
    EXPECT_GE(flight->prompt_tokens(), 1'024);
    EXPECT_FALSE(flight->body_changed());
  }
  auto cut = pool.begin(R"({"model":"half a na)");
  cut->rest_unseen();
  EXPECT_TRUE(pool.decide(*cut));
  auto unseen = pool.begin("", {{"content-length", "400000"}});
  unseen->rest_unseen();
  EXPECT_TRUE(pool.decide(*unseen));
  EXPECT_EQ(unseen->prompt_tokens(), 100'000);
}

TEST(Picker, ABodyReadEarlyIsTheSameBody) {
  TestPool pool(kPrefixOnly);
  pool.members({{"a", ""}, {"b", ""}, {"c", ""}, {"d", ""}});
  const std::string body = R"({"model":"m","stream":true,"prompt":")" + std::string(4'096, 'x') + R"("})";
  const std::string first = pool.destination(body);
  for (int i = 0; i < 20; ++i) {
    const auto reader = pool.picker->begin_body("/v1/completions");
    ASSERT_TRUE(reader->feed(body.substr(0, 1'000)));
    ASSERT_TRUE(reader->feed(body.substr(1'000)));
    auto flight = pool.begin("");
    ASSERT_FALSE(flight->feed_whole(body, reader.get()));
    const auto choice = pool.decide(*flight);
    ASSERT_TRUE(choice) << choice.error().message;
    EXPECT_EQ((*choice)->destination, first);
    EXPECT_EQ(flight->body(), body);
    EXPECT_EQ(flight->model(), "m");
    EXPECT_TRUE(flight->stream());
  }
  const auto other = pool.picker->begin_body("/v1/chat/completions");  // read as something else: read again
  ASSERT_TRUE(other->feed(body));
  auto flight = pool.begin("");
  ASSERT_FALSE(flight->feed_whole(body, other.get()));
  EXPECT_EQ((*pool.decide(*flight))->destination, first);
  const auto broken = pool.picker->begin_body("/v1/completions");
  (void)broken->feed("{\"model\":}");
  auto bad = pool.begin("");
  EXPECT_EQ(bad->feed_whole("{\"model\":}", broken.get())->status, 400);
}

TEST(Picker, BadBodiesAreRefused) {
  TestPool pool(kPrefixOnly, {.body_bytes_max = 1'000});
  pool.members({{"a", ""}});
  auto flight = pool.begin("{\"model\":");
  EXPECT_EQ(pool.decide(*flight).error().status, 400);
  auto huge = pool.begin("");
  EXPECT_EQ(huge->feed(std::string(1'001, ' '))->status, 413);
}

TEST(Picker, NoPodsIs503) {
  TestPool pool(kPrefixOnly);
  pool.members({});
  auto flight = pool.begin(kSmall);
  const auto choice = pool.decide(*flight);
  ASSERT_FALSE(choice);
  EXPECT_EQ(choice.error().status, 503);
  EXPECT_EQ(choice.error().drop_reason, "rejected-no-endpoints");
  EXPECT_GT(choice.error().retry_after_s, 0);
  EXPECT_EQ(pool.picker->any_endpoint({}).error().status, 500);
  EXPECT_FALSE(pool.picker->can_serve());
}

// As the sidecar: what it splits is sent with a prefiller, what it only passes on is not.
TEST(Picker, SplitsEveryApiThatTheSidecarSplits) {
  const std::pair<const char*, const char*> asked[] = {
      {"/v1/completions", R"({"model":"m","prompt":"hello there, how are you?"})"},
      {"/v1/chat/completions", R"({"model":"m","messages":[{"role":"user","content":"hello there"}]})"},
      {"/v1/responses", R"({"model":"m","input":"hello there"})"},
      {"/v1/messages", R"({"model":"m","max_tokens":3,"messages":[{"role":"user","content":"hello there"}]})"},
      {"/inference/v1/generate", R"({"model":"m","token_ids":[1,2,3],"sampling_params":{}})"},
      {"/v1/messages/count_tokens", R"({"model":"m","messages":[{"role":"user","content":"hello there"}]})"},
      {"/v1/embeddings", R"({"model":"m","input":"hello there"})"},
  };
  for (size_t i = 0; i < std::size(asked); ++i) {
    TestPool pool(kDisagg);
    pool.members({{"d1", "decode"}, {"p1", "prefill"}});
    auto flight = pool.begin(asked[i].second, {}, asked[i].first);
    const auto choice = pool.decide(*flight);
    ASSERT_TRUE(choice) << asked[i].first;
    EXPECT_EQ((*choice)->prefill, i < 5 ? "p1:80" : "") << asked[i].first;
  }
}

TEST(Picker, OneRoleMissingStillServes) {
  TestPool pool(kDisagg);
  pool.members({{"d1", "decode"}});
  auto flight = pool.begin(kSmall);
  const auto choice = pool.decide(*flight);
  ASSERT_TRUE(choice);
  EXPECT_EQ((*choice)->prefill, "");
  EXPECT_TRUE((*choice)->set_headers.empty());
}

TEST(Picker, SubsetsNarrow) {
  TestPool pool(kPrefixOnly);
  pool.members({{"10.0.0.1", ""}, {"10.0.0.2", ""}});
  for (int i = 0; i < 10; ++i) {
    auto flight = pool.begin(kSmall);
    const auto choice = pool.decide(*flight, {.given = true, .endpoints = {"10.0.0.2:9999"}});
    ASSERT_TRUE(choice);
    EXPECT_EQ((*choice)->destination, "10.0.0.2:80");
    EXPECT_EQ(*pool.picker->any_endpoint({.given = true, .endpoints = {"10.0.0.2:9999"}}), "10.0.0.2:80");
  }
  auto flight = pool.begin(kSmall);
  EXPECT_EQ(pool.decide(*flight, {.given = true, .endpoints = {}}).error().status, 503);
  EXPECT_EQ(pool.picker->any_endpoint({.given = true, .endpoints = {}}).error().status, 503);
}

TEST(Picker, ClientsDoNotChooseWorkers) {
  TestPool pool(kPrefixOnly);
  pool.members({{"a", ""}});
  auto flight = pool.begin(R"({"model":"m","prompt":"x","kv_transfer_params":{"do_remote_prefill":true}})",
                           {{"x-prefiller-host-port", "evil:1"}});
  const auto choice = pool.decide(*flight);
  ASSERT_TRUE(choice);
  EXPECT_EQ((*choice)->remove_headers, std::vector<std::string>{"x-prefiller-host-port"});
  EXPECT_TRUE(flight->body_changed());
  EXPECT_EQ(flight->body(), R"({"model":"m","prompt":"x"})");
}

TEST(Picker, RewritesModelsThereAndBack) {
  TestPool pool(kPrefixOnly);
  pool.cluster.rewrites = {
      {.name = "r", .created_s = 1, .rules = {{.models = {"asked"}, .targets = {{.weight = 1, .model = "served"}}}}}};
  pool.members({{"a", ""}});
  auto flight = pool.begin(R"({"model":"asked","prompt":"x","n":18446744073709551615})");
  ASSERT_TRUE(pool.decide(*flight));
  EXPECT_EQ(flight->body(), R"({"model":"served","prompt":"x","n":18446744073709551615})");
  EXPECT_EQ(flight->model(), "asked");
  flight->answer_head(200, "application/json");
  EXPECT_TRUE(flight->wants_answer());
  std::string answer;
  answer += flight->answer_bytes(R"({"model":"ser)", false);
  answer += flight->answer_bytes(R"(ved","usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}})", true);
  EXPECT_THAT(answer, HasSubstr(R"("model":"asked")"));
  flight->finish(200);
  EXPECT_THAT(
      pool.text(),
      HasSubstr(
          R"(llm_d_epp_request_total{fairness_id="default-flow",model_name="asked",priority="0",target_model_name="served"} 1.0)"));
  EXPECT_THAT(
      pool.text(),
      HasSubstr(
          R"(llm_d_epp_model_rewrite_decisions_total{model_name="asked",model_rewrite_name="r",target_model="served"} 1.0)"));
}

TEST(Picker, SheddableRequestsAreShedWhenFull) {
  TestPool pool(kPrefixOnly);
  pool.cluster.objectives = {{.name = "batch", .priority = -1}, {.name = "chat", .priority = 5}};
  pool.members({{"a", ""}});
  pool.scraped("a:80", 100);
  auto batch = pool.begin(kSmall, {{"x-gateway-inference-objective", "batch"}});
  const auto refused = pool.decide(*batch);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, 429);
  EXPECT_EQ(refused.error().message, "system saturated, sheddable request dropped");
  EXPECT_EQ(refused.error().drop_reason, "rejected-saturated");
  EXPECT_GT(refused.error().retry_after_s, 0);
  auto chat = pool.begin(kSmall, {{"x-llm-d-inference-objective", "chat"}});
  EXPECT_TRUE(pool.decide(*chat));
}

TEST(Picker, AllStaleFailsOpen) {
  TestPool pool(kPrefixOnly);
  pool.cluster.objectives = {{.name = "batch", .priority = -1}};
  pool.members({{"a", ""}, {"b", ""}});
  pool.scraped("a:80", 100);
  pool.scraped("b:80", 100);
  pool.clock.advance_ms(60'000);
  auto batch = pool.begin(kSmall, {{"x-llm-d-inference-objective", "batch"}});
  EXPECT_TRUE(pool.decide(*batch)) << "numbers a minute old say nothing";
  EXPECT_THAT(pool.text(), HasSubstr(R"(llm_d_epp_flow_control_stale_endpoints{detector="utilization-detector"} 2.0)"));
}

TEST(Picker, RepickLeavesOutWhatFailed) {
  TestPool pool(kDisagg);
  pool.members({{"d1", "decode"}, {"d2", "decode"}, {"p1", "prefill"}, {"p2", "prefill"}});
  auto flight = pool.begin(kSmall);
  const auto first = pool.decide(*flight);
  ASSERT_TRUE(first);
  const std::string d = (*first)->destination, p = (*first)->prefill;
  const auto second = flight->repick(true);
  ASSERT_TRUE(second);
  EXPECT_NE((*second)->prefill, p) << "the prefill worker failed";
  const std::string d2 = (*second)->destination;
  const auto third = flight->repick(false);
  ASSERT_TRUE(third);
  EXPECT_NE((*third)->destination, d2);
  const auto fourth = flight->repick(false);
  ASSERT_TRUE(fourth) << "once more, without hand-over: it may have been the prefill side";
  EXPECT_EQ((*fourth)->prefill, "");
  EXPECT_EQ(pool.inflight(), 1);
  flight.reset();
  EXPECT_EQ(pool.inflight(), 0);
}

TEST(Picker, RepickDoesNotGoToWhoLeft) {
  TestPool pool(kPrefixOnly);
  pool.members({{"a", ""}, {"b", ""}, {"c", ""}});
  auto flight = pool.begin(kSmall);
  const auto first = pool.decide(*flight);
  ASSERT_TRUE(first);
  const std::string kept = (*first)->destination == "a:80" ? "b" : "a";
  pool.members({{kept, ""}});
  const auto again = flight->repick(false);
  ASSERT_TRUE(again);
  EXPECT_EQ((*again)->destination, kept + ":80");
}

TEST(Picker, SessionsStayWhereTheyAre) {
  auto plan = make_plan(kPrefixOnly);
  plan->needs.session = true;
  plan->session.encoded_endpoint = true;
  TestPool pool(plan);
  pool.members({{"a", ""}, {"b", ""}});
  auto flight = pool.begin(kSmall);
  const auto choice = pool.decide(*flight);
  ASSERT_TRUE(choice);
  flight->answer_head(200, "application/json");
  ASSERT_EQ(flight->answer_headers().size(), 1u);
  EXPECT_EQ(flight->answer_headers()[0].first, "x-session-token");
  EXPECT_EQ(base64_decode(flight->answer_headers()[0].second), (*choice)->destination);
}

TEST(Picker, ConditionalDecodeWantsACachedPrefix) {
  TestPool pool(kPrefixOnly);
  pool.members({{"a", ""}});
  const std::string body = R"({"model":"m","prompt":")" + std::string(4'096, 'x') + R"("})";
  auto cold = pool.begin(body, {{"prefer", "if-available"}});
  const auto refused = pool.decide(*cold);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, 412);
  EXPECT_EQ(refused.error().message, "no decode worker has the requested KV cache");
  (void)pool.destination(body);
  auto warm = pool.begin(body, {{"prefer", "if-available"}});
  EXPECT_TRUE(pool.decide(*warm));
}

TEST(Picker, RefusesOnceStopped) {
  TestPool pool(kPrefixOnly);
  pool.members({{"a", ""}});
  EXPECT_TRUE(pool.picker->ready());
  pool.picker->stop();
  auto flight = pool.begin(kSmall);
  EXPECT_EQ(pool.decide(*flight).error().drop_reason, "rejected-shutting-down");
  EXPECT_FALSE(pool.picker->ready());
}

TEST(Picker, GaugesVanishWithTheEndpoint) {
  TestPool pool(kPrefixOnly);
  pool.members({{"a", ""}, {"b", ""}});
  pool.destination(kSmall);
  EXPECT_THAT(pool.text(), HasSubstr(R"(inference_pool_per_pod_queue_size{model_server_pod="b:80",name="default"} 0.0)"));
  EXPECT_THAT(pool.text(), HasSubstr(R"(inference_pool_ready_pods{name="default"} 2.0)"));
  pool.members({{"a", ""}});
  EXPECT_THAT(pool.text(), testing::Not(HasSubstr(R"("b:80")")));
  EXPECT_THAT(pool.text(), HasSubstr(R"("a:80")"));
}

TEST(Picker, TellsWhatItDidAndWhy) {
  TestPool pool(kDisagg);
  pool.members({{"d1", "decode"}, {"p1", "prefill"}});
  auto flight = pool.begin(kSmall);
  ASSERT_TRUE(pool.decide(*flight));
  const auto debug = parse_json(pool.picker->debug_json());
  ASSERT_TRUE(debug) << debug.error().message;
  const Json& decision = debug->find("decisions")->items.at(0);
  EXPECT_EQ(decision.find("destination")->text, "d1:80");
  EXPECT_EQ(decision.find("prefill")->text, "p1:80");
  EXPECT_EQ(decision.find("why")->text, "remote-prefill");
  EXPECT_EQ(decision.find("request_id")->text, "id-1");
  EXPECT_EQ(debug->find("endpoints")->items.size(), 2u);
}

TEST(Picker, FlappingEndpointsDoNotUnbalanceCounts) {
  TestPool pool(kPrefixOnly);
  pool.members({{"a", ""}});
  std::vector<std::unique_ptr<Flight>> flights;
  for (int i = 0; i < 20; ++i) {
    flights.push_back(pool.begin(kSmall));
    ASSERT_TRUE(pool.decide(*flights.back()));
    if (i % 2 == 0) pool.members({});
    pool.members({{"a", ""}});
  }
  EXPECT_LE(pool.state("a:80")->inflight_requests, 2);
  flights.clear();
  EXPECT_EQ(pool.state("a:80")->inflight_requests, 0);
  EXPECT_EQ(pool.state("a:80")->inflight_tokens, 0);
}

}  // namespace
}  // namespace baton::picker
