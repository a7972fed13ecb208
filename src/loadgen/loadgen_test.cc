// The load generator: its arithmetic on scripted times, its requests against a scripted server.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/json.h"
#include "loadgen/arrivals.h"
#include "loadgen/bench.h"
#include "loadgen/fake_server.h"
#include "loadgen/runner.h"

namespace baton::loadgen {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kMs = 1'000'000;

// ---- flags
// ----------------------------------------------------------------------------------------------------------------------

TEST(BenchConfig, TakesVllmsFlags) {
  BenchConfig c;
  auto parsed = bench_options(c).parse({"--base-url", "http://[::1]:9000/gw/", "--backend", "openai-chat", "--request-rate",
                                        "inf", "--goodput", "ttft:500", "tpot:30", "--metric-percentiles", "50,99.9", "--header",
                                        "X-A=b=c", "--ignore-eos", "--lora-modules", "x", "--num-prompts=7"});
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_GE(parsed->warnings.size(), 1u);
  EXPECT_TRUE(std::isinf(c.request_rate));
  auto plan = check_config(c);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->target.host, "::1");
  EXPECT_EQ(plan->target.port, 9000);
  EXPECT_EQ(plan->target.base_path + plan->target.endpoint, "/gw/v1/chat/completions");
  EXPECT_THAT(plan->target.headers, ElementsAre(std::pair<std::string, std::string>("X-A", "b=c")));
  EXPECT_THAT(plan->percentiles, ElementsAre(50, 99.9));
  EXPECT_EQ(plan->goodput_ms.at("tpot"), 30);
}

TEST(BenchConfig, RefusesNonsense) {
  auto refused = [](auto change) {
    BenchConfig c;
    change(c);
    return !check_config(c).has_value();
  };
  EXPECT_TRUE(refused([](auto& c) { c.base_url = "https://x"; }));
  EXPECT_TRUE(refused([](auto& c) { c.base_url = "http://:80"; }));
  EXPECT_TRUE(refused([](auto& c) { c.base_url = "http://x:99999"; }));
  EXPECT_TRUE(refused([](auto& c) { c.metric_percentiles = "101"; }));
  EXPECT_TRUE(refused([](auto& c) { c.percentile_metrics = "ttft,made_up"; }));
  EXPECT_TRUE(refused([](auto& c) { c.goodput = {"itl:5"}; }));
  EXPECT_TRUE(refused([](auto& c) { c.goodput = {"ttft"}; }));
  EXPECT_TRUE(refused([](auto& c) { c.headers = {"=x"}; }));
  EXPECT_TRUE(refused([](auto& c) { c.extra_body = "[1]"; }));
  EXPECT_TRUE(refused([](auto& c) { c.dataset_name = "custom"; }));
  EXPECT_FALSE(refused([](auto& c) { c.base_url = "localhost"; }));
}

// ---- arrivals
// -------------------------------------------------------------------------------------------------------------------

TEST(Arrivals, HaveTheRateAndTheBurstinessAskedFor) {
  for (double burstiness : {0.25, 1.0, 4.0}) {
    const size_t n = 20'000;
    const auto times = arrival_times(n, 50, burstiness, 7);
    EXPECT_NEAR(times.back(), static_cast<double>(n) / 50, 1e-6);
    EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
    double square = 0;
    for (size_t i = 0; i < n; ++i) {
      const double gap = times[i] - (i > 0 ? times[i - 1] : 0);
      square += (gap * 50 - 1) * (gap * 50 - 1);
    }
    EXPECT_NEAR(square / n, 1 / burstiness, 0.1 / burstiness) << "a gamma gap's variance over its squared mean is 1/shape";
  }
  EXPECT_EQ(arrival_times(100, 5, 1, 3), arrival_times(100, 5, 1, 3));
  EXPECT_NE(arrival_times(100, 5, 1, 3), arrival_times(100, 5, 1, 4));
  EXPECT_EQ(arrival_times(3, INFINITY, 1, 3), std::vector<double>(3, 0.0));
}

// ---- prompts
// --------------------------------------------------------------------------------------------------------------------

TEST(Workload, RandomPromptsAreSeededAndVary) {
  BenchConfig c;
  c.num_prompts = 200, c.random_input_len = 100, c.random_output_len = 10, c.random_range_ratio = 0.5, c.random_prefix_len = 5,
  c.seed = 3;
  const auto a = random_prompts(c), b = random_prompts(c);
  std::set<std::string> texts;
  int least = 1000, most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].text, b[i].text);
    EXPECT_EQ(std::count(a[i].text.begin(), a[i].text.end(), ' ') + 1, a[i].tokens);
    EXPECT_EQ(a[i].text.substr(0, 10), a[0].text.substr(0, 10));
    EXPECT_TRUE(a[i].output_len >= 5 && a[i].output_len <= 15);
    least = std::min(least, a[i].tokens), most = std::max(most, a[i].tokens);
    texts.insert(a[i].text);
  }
  EXPECT_EQ(texts.size(), a.size());
  EXPECT_GE(least, 55);
  EXPECT_LE(most, 155);
  EXPECT_GT(most - least, 60);
}

TEST(Workload, ReadsDatasets) {
  BenchConfig c;
  c.num_prompts = 5;
  auto prompts =
      parse_dataset("{\"prompt\":\"a\\n\"}\r\n\n{\"prompt\":\"b\",\"output_len\":7}\n{\"prompt\":\"c\",\"output_tokens\":8}", c);
  ASSERT_TRUE(prompts) << prompts.error().message;
  ASSERT_EQ(prompts->size(), 5u);
  EXPECT_EQ((*prompts)[0].text, "a\n");
  EXPECT_EQ((*prompts)[0].output_len, 256);
  EXPECT_EQ((*prompts)[1].output_len, 7);
  EXPECT_EQ((*prompts)[2].output_len, 8);
  EXPECT_EQ((*prompts)[4].text, "b") << "repeated";
  for (const char* bad : {"", "\n", "{}", "{\"prompt\":5}", "nonsense", "{\"prompt\":\"a\",\"output_len\":0}"}) {
    EXPECT_FALSE(parse_dataset(bad, c)) << bad;
  }
  EXPECT_THAT(parse_dataset("{\"prompt\":\"a\"}\n{", c).error().message, HasSubstr("line 2"));
}

TEST(Workload, BodiesAreWhatVllmBenchSends) {
  BenchConfig c;
  c.temperature = 0;
  c.extra_body = R"({"min_tokens":3, "top_p" : 0.5})";
  const Prompt prompt{"h\"i", 1, 9};
  EXPECT_EQ(
      request_body(c, false, "m", prompt, true),
      R"({"model":"m","prompt":"h\"i","max_tokens":9,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true,"temperature":0.0,"min_tokens":3,"top_p":0.5})");
  EXPECT_THAT(request_body(c, true, "m", prompt, false),
              HasSubstr(R"("messages":[{"role":"user","content":[{"type":"text","text":"h\"i"}]}],"max_completion_tokens":9)"));
}

// ---- reading answers
// ------------------------------------------------------------------------------------------------------------

TEST(AnswerReader, TimesFirstTokenAndGaps) {
  Outcome out;
  out.sent_ns = 100 * kMs;
  AnswerReader reader(out);
  ASSERT_TRUE(reader.feed("data: {\"choices\":[{\"text\":\"a\"}]}\n", 110 * kMs));
  ASSERT_TRUE(reader.feed("\n", 150 * kMs));  // an event is there when it is whole
  ASSERT_TRUE(reader.feed("data: {\"choices\":[{\"text\":\"b\"}]}\n\ndata: {\"choices\":[{\"text\":\"c\"}]}\n\n", 170 * kMs));
  ASSERT_TRUE(reader.feed(
      ": ping\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n", 190 * kMs));
  ASSERT_TRUE(reader.finish());
  EXPECT_DOUBLE_EQ(out.ttft_s(), 0.05);
  EXPECT_DOUBLE_EQ(out.latency_s(), 0.07);
  EXPECT_THAT(out.itl_s, ElementsAre(0.02, 0.0));
  EXPECT_EQ(out.text, "abc");
  EXPECT_EQ(out.prompt_tokens, 5);
  EXPECT_EQ(out.output_tokens, 4) << "usage wins over the three events";
}

TEST(AnswerReader, ReadsChatAndCountsEventsWithoutUsage) {
  Outcome out;
  AnswerReader reader(out);
  ASSERT_TRUE(reader.feed("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n", 1));
  ASSERT_TRUE(reader.feed("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":null}\n\ndata: [DONE]\n\n", 2));
  ASSERT_TRUE(reader.finish());
  EXPECT_EQ(out.first_ns, 1);
  EXPECT_EQ(out.output_tokens, 2);
  EXPECT_EQ(out.text, "x");
}

Result<> result(std::string_view bytes) {
  Outcome out;
  AnswerReader reader(out);
  BATON_OK(reader.feed(bytes, 1));
  return reader.finish();
}

TEST(AnswerReader, FailsOnBrokenAnswers) {
  EXPECT_THAT(result("").error().message, HasSubstr("no token"));
  EXPECT_THAT(result("data: [DONE]\n\n").error().message, HasSubstr("no token"));
  EXPECT_EQ(result("data: {\"choices\":[{\"text\":\"a\"}]}\n\n").error().code, Code::kDataLoss);
  EXPECT_THAT(result("data: nonsense\n\n").error().message, HasSubstr("not JSON"));
  EXPECT_EQ(result("data: {\"error\":{\"message\":\"worker lost\",\"code\":502}}\n\ndata: [DONE]\n\n").error().message,
            "worker lost");
  EXPECT_FALSE(result("{\"choices\":[]}"));
}

// ---- statistics
// -----------------------------------------------------------------------------------------------------------------

TEST(Summary, IsNumpys) {
  const std::vector<double> p = {0, 25, 99, 100};
  const Summary s = summarize({4, 1, 3, 2}, p);
  EXPECT_DOUBLE_EQ(s.mean, 2.5);
  EXPECT_DOUBLE_EQ(s.median, 2.5);
  EXPECT_DOUBLE_EQ(s.std, std::sqrt(1.25));
  EXPECT_THAT(s.percentiles, ElementsAre(1, 1.75, testing::DoubleEq(3.97), 4));
  EXPECT_DOUBLE_EQ(summarize({5}, p).percentiles[2], 5);
  EXPECT_DOUBLE_EQ(summarize({}, p).mean, 0);
}

Outcome outcome(int64_t intended_ms, int64_t sent_ms, int64_t first_ms, std::vector<double> itl_s, int prompt, int output) {
  Outcome o;
  o.ok = true;
  o.intended_ns = intended_ms * kMs, o.sent_ns = sent_ms * kMs, o.first_ns = first_ms * kMs, o.last_ns = o.first_ns;
  for (double gap : itl_s) o.last_ns += static_cast<int64_t>(gap * 1e9);
  o.itl_s = std::move(itl_s);
  o.prompt_tokens = prompt, o.output_tokens = output;
  return o;
}

TEST(Report, HasVllmsNumbersKeysAndLook) {
  BenchConfig c;
  c.max_concurrency = 2, c.request_rate = 10, c.num_prompts = 3, c.save_detailed = true;
  c.goodput = {"ttft:150", "e2el:350"};
  c.metadata = {"tp=1"};
  const auto plan = *check_config(c);
  Outcome failed;
  failed.error = "HTTP 503";
  auto first = outcome(0, 0, 100, {0.1, 0.1}, 10, 3), second = outcome(50, 150, 350, {0.2}, 20, 2);
  first.ttft_stages = "queue=2.0,prefill=40";
  second.ttft_stages = "queue=4.0, bogus, =5, prefill=x";
  second.worker = "decode=a:1,prefill=b:2";
  const BenchReport r = make_report({first, second, failed}, 2.0, plan);
  EXPECT_EQ(r.completed, 2);
  EXPECT_EQ(r.failed, 1);
  EXPECT_DOUBLE_EQ(r.request_throughput, 1.0);
  EXPECT_DOUBLE_EQ(*r.request_goodput, 0.5) << "the second misses both";
  EXPECT_DOUBLE_EQ(r.output_throughput, 2.5);
  EXPECT_DOUBLE_EQ(r.total_token_throughput, 17.5);
  EXPECT_DOUBLE_EQ(r.metrics.at("ttft").mean, 0.15);
  EXPECT_DOUBLE_EQ(r.metrics.at("tpot").mean, (0.1 + 0.2) / 2);
  EXPECT_NEAR(r.metrics.at("itl").mean, 0.4 / 3, 1e-12);
  EXPECT_DOUBLE_EQ(r.metrics.at("client_queue_time").mean, 0.05);
  EXPECT_DOUBLE_EQ(r.metrics.at("e2el_including_client_queue").mean, (0.3 + 0.5) / 2);
  EXPECT_EQ(r.max_concurrent_requests, 2);
  EXPECT_DOUBLE_EQ(r.max_output_tokens_per_s, 5);
  EXPECT_THAT(r.ttft_stages_ms, ElementsAre(testing::Pair("queue", 3.0), testing::Pair("prefill", 40.0)));
  EXPECT_EQ(r.prefilled_remotely, 1);

  const auto json = parse_json(report_json(r, c, plan));
  ASSERT_TRUE(json) << json.error().message;
  for (const char* key : {"date",
                          "backend",
                          "model_id",
                          "num_prompts",
                          "tp",
                          "request_rate",
                          "burstiness",
                          "max_concurrency",
                          "duration",
                          "completed",
                          "failed",
                          "total_input_tokens",
                          "total_output_tokens",
                          "request_throughput",
                          "request_goodput",
                          "output_throughput",
                          "total_token_throughput",
                          "input_lens",
                          "output_lens",
                          "ttfts",
                          "itls",
                          "latencies",
                          "start_times",
                          "queue_times",
                          "generated_texts",
                          "errors",
                          "max_output_tokens_per_s",
                          "max_concurrent_requests",
                          "mean_ttft_ms",
                          "median_ttft_ms",
                          "std_ttft_ms",
                          "p99_ttft_ms",
                          "mean_tpot_ms",
                          "p99_itl_ms",
                          "median_e2el_ms"}) {
    EXPECT_NE(json->find(key), nullptr) << key;
  }
  EXPECT_EQ(json->find("itls")->items.size(), 3u);
  EXPECT_EQ(json->find("errors")->items[2].text, "HTTP 503");
  c.save_detailed = false;
  EXPECT_EQ(parse_json(report_json(r, c, plan))->find("ttfts"), nullptr);

  const std::string text = report_text(r, c, plan);
  EXPECT_THAT(text,
              testing::StartsWith(
                  "============ Serving Benchmark Result ============\nSuccessful requests:                     2         \n"));
  EXPECT_THAT(
      text,
      HasSubstr("---------------Time to First Token----------------\nMean TTFT (ms):                          150.00    \n"));
  EXPECT_THAT(text, HasSubstr("-----Time per Output Token (excl. 1st token)------\n"));
  EXPECT_THAT(text, HasSubstr("Client-side Queueing"));
  EXPECT_THAT(text, testing::EndsWith("==================================================\n"));
}

TEST(Report, SurvivesNothing) {
  BenchConfig c;
  const auto plan = *check_config(c);
  const BenchReport r = make_report({}, 0, plan);
  EXPECT_TRUE(parse_json(report_json(r, c, plan)));
  EXPECT_THAT(report_text(r, c, plan), HasSubstr("Failed requests:                         0"));
  BenchReport named;
  named.model = "org/name", named.date = "20260101-000000";
  c.max_concurrency = 4;
  EXPECT_EQ(result_filename(named, c), "openai-infqps-concurrency4-name-20260101-000000.json");
}

// ---- against a server
// -----------------------------------------------------------------------------------------------------------

BenchConfig against(const FakeServer& server) {
  BenchConfig c;
  c.port = server.port();
  c.num_prompts = 40, c.random_input_len = 30, c.random_output_len = 5;
  return c;
}

TEST(RunBench, ClosedLoopKeepsToItsConcurrency) {
  FakeServer server;
  BenchConfig c = against(server);
  c.max_concurrency = 4;
  c.num_warmups = 2;
  int calls = 0;
  const auto report = run_bench(c, [&](const Progress& p) { EXPECT_EQ(p.done, ++calls); });
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(calls, 40);
  EXPECT_EQ(report->completed, 40);
  EXPECT_EQ(report->model, "fake");
  EXPECT_EQ(server.requests, 42);
  EXPECT_EQ(server.running_max, 4);
  EXPECT_LE(report->max_concurrent_requests, 4);
  EXPECT_EQ(report->output_tokens, 200);
  EXPECT_EQ(report->input_tokens, 40 * 30);
  EXPECT_THAT(server.input_lens, ElementsAre(std::pair(30, 42)))
      << "every prompt is cut to its exact length by the server's own tokens";
  EXPECT_GE(server.ids.size(), 42u) << "every request has its own id";
  EXPECT_EQ(report->prefilled_remotely, 40);
  for (const Outcome& o : report->outcomes) {
    EXPECT_EQ(o.itl_s.size(), 4u);
    EXPECT_GE(o.latency_s(), o.ttft_s());
    EXPECT_GE(o.ttft_s(), 0.001);
    EXPECT_EQ(o.text, "w w w w w ");
  }
}

TEST(RunBench, OpenLoopSendsOnScheduleAndReportsItsOwnLag) {
  FakeServer server;
  BenchConfig c = against(server);
  c.request_rate = 400, c.max_concurrency = 1, c.random_output_len = 10;  // needs 10 ms each: the queue grows in the client
  const auto report = run_bench(c);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->completed, 40);
  EXPECT_EQ(server.running_max, 1);
  const auto due = arrival_times(40, 400, 1, 0);
  double queue_last = 0;
  for (size_t i = 0; i < report->outcomes.size(); ++i) {
    const Outcome& o = report->outcomes[i];
    EXPECT_GE(o.queue_s(), 0) << "nothing is sent before it is due";
    EXPECT_NEAR(static_cast<double>(o.intended_ns - report->outcomes[0].intended_ns) * 1e-9, due[i] - due[0], 1e-6);
    queue_last = o.queue_s();
  }
  EXPECT_GT(queue_last, 0.15) << "the wait for a free place is seen, not hidden";
  EXPECT_GT(report->metrics.at("e2el_including_client_queue").mean, report->metrics.at("e2el").mean);
}

TEST(RunBench, ChatAndServersWithoutATokenizer) {
  FakeServer server;
  server.can_tokenize = false;
  BenchConfig c = against(server);
  c.backend = "openai-chat", c.max_concurrency = 8;
  const auto report = run_bench(c);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->completed, 40);
  EXPECT_EQ(report->output_tokens, 200);
}

TEST(RunBench, CountsFailuresAndGoesOn) {
  FakeServer server;
  server.fail_every = 4;
  BenchConfig c = against(server);
  c.max_concurrency = 3;
  const auto report = run_bench(c);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->completed, 30);
  EXPECT_EQ(report->failed, 10);
  int errors = 0;
  for (const Outcome& o : report->outcomes) errors += o.error == "HTTP 503: {\"error\":\"overloaded\"}";
  EXPECT_EQ(errors, 10);
}

TEST(RunBench, SaysWhatIsWrong) {
  BenchConfig c;
  {
    FakeServer server;
    c.port = server.port();
  }
  const auto gone = run_bench(c);
  ASSERT_FALSE(gone);
  EXPECT_THAT(gone.error().message, HasSubstr("no server at http://127.0.0.1"));
}

TEST(Bench, WritesTheResultFile) {
  FakeServer server;
  BenchConfig c = against(server);
  const auto dir = std::filesystem::temp_directory_path() / ("baton-bench-" + random_hex(16));
  c.result_dir = dir, c.result_filename = "r.json", c.save_result = true, c.append_result = true, c.disable_tqdm = true,
  c.num_prompts = 3;
  ASSERT_TRUE(bench(c));
  ASSERT_TRUE(bench(c));
  std::ifstream in(dir / "r.json");
  int lines = 0;
  for (std::string line; std::getline(in, line); ++lines) EXPECT_EQ(parse_json(line)->find("completed")->as_int(), 3);
  EXPECT_EQ(lines, 2);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace baton::loadgen
