// `baton top` without a router and a terminal.
#include "stack/top_view.h"

namespace baton::stack {
namespace {

using testing::HasSubstr;

constexpr std::string_view kState =
    R"({"requests":3,"draining":false,"pools":[{"pool":"small","synced":true,"prefix_blocks":12345,
 "waiting":2,"saturation":0.5,"endpoints":[
  {"address":"10.0.0.2:8000","name":"","role":"decode","healthy":true,"age_ms":20,"waiting":0,"running":4,"kv_usage":0.25,"inflight_requests":4,"inflight_tokens":0,"sent":200},
  {"address":"10.0.0.1:8000","name":"ns/prefill-0","role":"prefill","healthy":true,"age_ms":20,"waiting":7,"running":1,"kv_usage":0.95,"inflight_requests":1,"inflight_tokens":2210,"sent":100},
  {"address":"10.0.0.3:8000","name":"","role":"decode","healthy":false,"age_ms":-1,"waiting":0,"running":0,"kv_usage":0,"inflight_requests":0,"inflight_tokens":0,"sent":0}],
 "decisions":[
  {"age_ms":300,"model":"m","target":"m","destination":"10.0.0.2:8000","prefill":"10.0.0.1:8000","why":"remote-prefill","prompt_tokens":1000,"cached_tokens":0,"prefill_cached_tokens":500,"decide_us":14.2,"again":false},
  {"age_ms":900,"model":"m","target":"m","destination":"10.0.0.2:8000","prefill":"","why":"cached-or-short","prompt_tokens":1000,"cached_tokens":1000,"decide_us":9,"again":true}]}]})";
constexpr std::string_view kMetrics =
    "baton_gateway_requests_total{code=\"200\",pool=\"small\"} 100.0\nbaton_gateway_requests_total{code=\"503\",pool=\"small\"} "
    "2.0\n"
    "baton_gateway_retries_total{reason=\"502\"} 5.0\nbaton_gateway_resumed_streams_total{result=\"resumed\"} 1.0\n"
    "baton_gateway_first_byte_seconds_bucket{le=\"0.1\",model_name=\"m\"} 50.0\n"
    "baton_gateway_first_byte_seconds_bucket{le=\"0.2\",model_name=\"m\"} 100.0\n"
    "baton_gateway_first_byte_seconds_bucket{le=\"+Inf\",model_name=\"m\"} 100.0\n";

std::string joined(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) out += line + "\n";
  return out;
}

TEST(Top, ShowsPoolsRolesQueuesAndWhy) {
  auto now = read_top(kState, kMetrics, 12);
  ASSERT_TRUE(now) << now.error().message;
  TopState before = *now;
  before.at_s = 10, before.answered = 82, before.first_byte.clear();
  before.pools[0].endpoints[1].sent = 190;
  const std::string text = joined(draw_top(*now, &before, "http://x", {.width = 140, .ascii = true}));
  for (const char* want : {"2 of 3 workers up",
                           "requests/s 10.0",
                           "in flight 3",
                           "first byte p50 100 ms",
                           "p95 190 ms",
                           "retries 5",
                           "resumed 1",
                           "failed 2",
                           "pool small",
                           "load #####..... 50%",
                           "queued 2",
                           "12,345 blocks",
                           "ns/prefill-0",
                           "##########   95%",
                           "down",
                           "2,210",
                           "remote-prefill          ##########..........   50%",
                           "prompt tokens cached    ###############.....   75%",
                           "ns/prefill-0 > 10.0.0.2:8000",
                           "10.0.0.2:8000 (again)"}) {
    EXPECT_THAT(text, HasSubstr(want)) << text;
  }
  EXPECT_LT(text.find("ns/prefill-0"), text.find("decode   10.0.0.2:8000")) << "prefill first, as requests meet them";
  EXPECT_THAT(text, testing::Not(HasSubstr("\033"))) << "no colours unless asked for";
  EXPECT_THAT(joined(draw_top(*now, nullptr, "http://x", {.color = true})), HasSubstr("\033["));
}

TEST(Top, FitsAnyTerminal) {
  const auto now = read_top(kState, kMetrics, 0);
  for (size_t width : {1u, 7u, 40u, 80u, 132u}) {
    for (const std::string& line : draw_top(*now, nullptr, "http://x", {.width = width})) {
      const auto cells = std::ranges::count_if(line, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
      EXPECT_LE(static_cast<size_t>(cells), width) << line;
    }
  }
  EXPECT_EQ(draw_top(*now, nullptr, "x", {.height = 5}).size(), 4u);
}

TEST(Top, TakesOnePickersStateAndRefusesNonsense) {
  const auto one = read_top(R"({"pool":"p","endpoints":[]})", "", 0);
  ASSERT_TRUE(one);
  EXPECT_THAT(joined(draw_top(*one, nullptr, "x", {.ascii = true})), HasSubstr("no workers: requests get 503"));
  EXPECT_FALSE(read_top("<html>", "", 0));
  EXPECT_FALSE(read_top("[]", "", 0));
  const auto odd = read_top(R"({"pools":[5,{"endpoints":7,"decisions":[8,{"why":"a\u001b[31m"}]}]})",
                            "baton_gateway_x{ 5\nbaton_gateway_\n", 0);
  ASSERT_TRUE(odd);
  EXPECT_THAT(joined(draw_top(*odd, nullptr, "x", {})), testing::Not(HasSubstr("\033"))) << "no control characters from outside";
}

}  // namespace
}  // namespace baton::stack
