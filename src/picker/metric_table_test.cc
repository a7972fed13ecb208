// The table of metrics is what users' dashboards expect (tests/cases/metrics/router.txt), docs/metrics.md says the same, and real
// requests move what a request can move, under both names, with exactly the labels of the table.
#include "picker/metric_table.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>

#include "picker/test_pool.h"

namespace baton::picker {
namespace {

std::string shown(std::string_view name, MetricType type) { return cat(name, type == MetricType::kCounter ? "_total" : ""); }

std::string listed(std::string_view name, MetricType type, std::string_view labels) {
  std::string out = cat(shown(name, type), " ", metric_type_name(type));
  for (const std::string_view label : label_names(labels)) out += cat(" ", label.substr(0, label.find('=')));
  return out;
}

TEST(MetricTable, IsWhatDashboardsExpect) {
  std::ifstream in(BATON_SOURCE_DIR "/tests/cases/metrics/router.txt");
  std::set<std::string> wanted, given;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line[0] != '#') EXPECT_TRUE(wanted.insert(line).second) << "twice: " << line;
  }
  for (const MetricRow& row : metric_rows()) {
    given.insert(listed(row.name, row.type, row.labels));
    if (!row.twin.empty()) given.insert(listed(row.twin, row.type, row.twin_labels));
    EXPECT_EQ(row.bounds.empty(), row.type != MetricType::kHistogram) << row.name;
    EXPECT_TRUE(std::ranges::is_sorted(row.bounds)) << row.name;
  }
  ASSERT_GT(wanted.size(), 100u);
  for (const std::string& line : wanted) EXPECT_TRUE(given.contains(line)) << "not in the table: " << line;
  for (const std::string& line : given) EXPECT_TRUE(wanted.contains(line)) << "not in the list: " << line;
}

TEST(MetricTable, DocsAreUpToDate) {
  const std::string path = BATON_SOURCE_DIR "/docs/metrics.md";
  if (std::getenv("BATON_WRITE_DOCS") != nullptr) std::ofstream(path) << metric_docs();
  std::ifstream in(path);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  EXPECT_TRUE(text == metric_docs()) << path << " is out of date: run with BATON_WRITE_DOCS=1";
}

// What /metrics said: by name, the label sets of the series whose value (histograms: count) is not 0, and whether there is any.
struct Seen {
  std::map<std::string, std::set<std::set<std::string>>> moved, there;
  void read(const std::string& text) {
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) {
      if (line.empty() || line[0] == '#') continue;
      const size_t brace = line.find('{'), close = line.rfind("} "), blank = line.rfind(' ');
      const std::string name = line.substr(0, std::min(brace, blank));
      std::set<std::string> labels;
      if (brace < blank) {
        for (size_t at = brace + 1; at < close;) {
          const size_t equals = line.find("=\"", at), end = line.find('"', equals + 2);
          labels.insert(line.substr(at, equals - at));
          at = end + 2;
        }
      }
      there[name].insert(labels);
      if (std::stod(line.substr(blank + 1)) != 0) moved[name].insert(labels);
    }
  }
};

// What a request through a Flight cannot move: the doors' own, what only a scrape, a socket or an API server moves. Their tests:
// prober_test, kv_event_source_test, src/epp/router_test, src/gateway, src/net/otlp_test.
bool elsewhere(MetricId id) {
  switch (id) {
    case MetricId::kPollErrors:
    case MetricId::kExtractErrors:
    case MetricId::kScrapeFaults:
    case MetricId::kKvMessages:
    case MetricId::kKvSocketErrors:
    case MetricId::kKvLost:
      return true;
    default:
      return id >= MetricId::kStreamsInflight || (id >= MetricId::kDiscoverySynced && id <= MetricId::kDiscoveryDenied);
  }
}

void expect_moved(const Seen& seen, std::string_view name, const MetricRow& row, std::string_view labels) {
  std::string sample = shown(name, row.type);
  if (row.type == MetricType::kHistogram) sample += "_count";
  const auto& from = row.type == MetricType::kGauge ? seen.there : seen.moved;  // a gauge may well be 0
  const auto at = from.find(sample);
  if (at == from.end()) {
    ADD_FAILURE() << "never observed: " << sample;
    return;
  }
  std::set<std::string> wanted;
  for (const std::string_view label : label_names(labels)) wanted.emplace(label.substr(0, label.find('=')));
  for (const auto& got : at->second) EXPECT_EQ(got, wanted) << "labels of " << sample;
}

constexpr std::string_view kStreamed =
    "data: {\"model\":\"served\",\"choices\":[{\"text\":\"a\"}]}\n\n"
    "data: {\"model\":\"served\",\"choices\":[{\"text\":\"b\"}]}\n\n";
constexpr std::string_view kStreamEnd =
    "data: {\"model\":\"served\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9,"
    "\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n";

void stream(TestPool& pool, Flight& flight) {
  pool.clock.advance_ms(50);
  flight.answer_head(200, "text/event-stream");
  for (int i = 0; i < 3; ++i) {
    pool.clock.advance_ms(50);
    flight.answer_bytes(kStreamed, false);
  }
  pool.clock.advance_ms(50);
  flight.answer_bytes(kStreamEnd, true);
  flight.finish(200);
}

// P/D, with a rewrite and a stream; one request that nobody serves.
void disaggregated(Seen& seen) {
  TestPool pool(kDisagg, {.propose_role_flips = true});
  pool.cluster.rewrites = {
      {.name = "r", .created_s = 1, .rules = {{.models = {"m"}, .targets = {{.weight = 1, .model = "served"}}}}}};
  pool.members({{"a", "decode"}, {"b", "prefill"}});
  pool.scraped("a:80", 1), pool.scraped("b:80", 0);
  const std::string body = cat(R"({"model":"m","stream":true,"prompt":")", std::string(2'000, 'x'), "\"}");
  for (int i = 0; i < 2; ++i) {
    auto flight = pool.begin(body);
    ASSERT_TRUE(pool.decide(*flight));
    seen.read(pool.text());  // while it runs
    stream(pool, *flight);
  }
  auto plain = pool.begin(kSmall);
  ASSERT_TRUE(pool.decide(*plain));
  plain->answer_head(200, "application/json");
  pool.clock.advance_ms(10);
  plain->answer_bytes(R"({"model":"served","usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}})", true);
  plain->finish(200);
  pool.members({});
  EXPECT_EQ(pool.destination(kSmall), "no ready endpoint serves the model");
  seen.read(pool.text());
}

constexpr std::string_view kPredicting = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: predicted-latency-producer
- type: latency-scorer
- type: latency-slo-admitter
- type: decode-filter
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: decode-filter
  - pluginRef: latency-scorer
  - pluginRef: max-score-picker
)";

void predicted(Seen& seen) {
  TestPool pool(kPredicting);
  pool.members({{"a", ""}});
  pool.scraped("a:80", 0);
  auto flight = pool.begin(kSmall, {{"x-llm-d-slo-ttft-ms", "1"}, {"x-llm-d-slo-tpot-ms", "1"}});
  ASSERT_TRUE(pool.decide(*flight));
  stream(pool, *flight);
  const std::string text = pool.text();
  for (const char* type : {"ttft", "tpot"}) {
    EXPECT_THAT(text, testing::HasSubstr(cat(
                          R"(llm_d_epp_request_slo_violation_total{model_name="m",plugin_name="predicted-latency-producer",)",
                          R"(plugin_type="predicted-latency-producer",target_model_name="m",type=")", type, "\"} 1.0")));
  }
  for (const char* plugin : {R"(extension_point="Filter",plugin_name="decode-filter")",
                             R"(extension_point="Scorer",plugin_name="latency-scorer")",
                             R"(extension_point="Picker",plugin_name="max-score-picker")",
                             R"(extension_point="Admission",plugin_name="latency-slo-admitter")",
                             R"(extension_point="ProfileHandler",plugin_name="single-profile-handler")",
                             R"(extension_point="DataProducer",plugin_name="predicted-latency-producer")"}) {
    const std::string key = cat("llm_d_epp_plugin_duration_seconds_count{", plugin);
    const size_t at = text.find(key);
    ASSERT_NE(at, std::string::npos) << key;
    EXPECT_EQ(text.substr(text.find("} ", at) + 2, 3), "1.0") << key;
  }
  seen.read(text);
}

// One waits, one is told to end for it; programs have their shares.
void flow_controlled(Seen& seen) {
  auto plan = make_plan(kPrefixOnly);
  plan->flow_control.enabled = plan->flow_control.eviction = true;
  plan->flow_control.requests_max = 100, plan->flow_control.bytes_max = 1'000'000;
  plan->flow_control.default_band.fairness = route::Fairness::kProgramAware;
  TestPool pool{plan};
  pool.cluster.objectives = {{.name = "batch", .priority = -1}};
  pool.members({{"a", ""}});
  pool.scraped("a:80", 0);
  auto batch = pool.begin(kSmall, {{"x-llm-d-inference-objective", "batch"}});
  bool evicted = false;
  batch->on_evict([&](Refusal) { evicted = true; });
  ASSERT_TRUE(pool.decide(*batch));
  pool.scraped("a:80", 100);
  auto urgent = pool.begin(kSmall, {{"x-llm-d-inference-fairness-id", "program"}});
  bool placed = false;
  urgent->decide({}, [&](auto choice) { placed = choice.has_value(); });
  pool.posts.run();
  ASSERT_TRUE(evicted);
  seen.read(pool.text());
  EXPECT_THAT(pool.text(), testing::HasSubstr(R"(flow_control_revocations_issued_total{inference_pool="default",priority="-1"} 1.0)"));
  pool.clock.advance_ms(20);
  batch.reset();
  pool.scraped("a:80", 0);
  pool.posts.run();
  ASSERT_TRUE(placed);
  urgent->finish(200);
  const std::string text = pool.text();
  EXPECT_THAT(text, testing::HasSubstr(R"(flow_control_revocations_total{inference_pool="default",outcome="confirmed"} 1.0)"));
  EXPECT_THAT(text, testing::HasSubstr(R"(llm_d_epp_program_aware_avg_wait_time_milliseconds{program_id="program"} 20.0)"));
  seen.read(text);
}

constexpr std::string_view kPrecise = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: precise-prefix-cache-producer
  parameters:
    indexerConfig:
      kvBlockIndexConfig:
        enableMetrics: true
- type: prefix-cache-scorer
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-scorer
  - pluginRef: max-score-picker
)";

void by_kv_events(Seen& seen) {
  TestPool pool(kPrecise);
  pool.members({{"a", ""}, {"b", ""}});
  route::BlockStored block;
  block.hashes = {1};
  std::string tokens;
  for (uint32_t t = 0; t < 16; ++t) block.tokens.push_back(t), tokens += cat(t == 0 ? "" : ",", t);
  route::KvEventIndex& index = pool.core().live()->kv->index;
  const int slot = pool.state("b:80")->slot;
  index.apply(slot, "m", {.events = {block, block}});
  EXPECT_EQ(pool.destination(cat(R"({"model":"m","prompt":[)", tokens, ",99]}")), "b:80");
  index.apply(slot, "m", {.events = {route::BlockRemoved{.hashes = {1}}}});
  index.apply(slot, "m", {.events = {route::BlockRemoved{.hashes = {1}}}});
  const std::string text = pool.text();
  for (const char* line : {"llm_d_epp_kv_cache_index_admissions_total 2.0", "kvcache_index_evictions_total 2.0",
                           "llm_d_epp_kv_cache_index_lookup_hits_total 1.0",
                           "kvcache_kvevents_dedup_removed_hashes_suppressed_total 1.0",
                           "llm_d_epp_kv_cache_events_dedup_removed_hashes_forwarded_total 1.0"})
    EXPECT_THAT(text, testing::HasSubstr(line));
  seen.read(text);
}

constexpr std::string_view kMedia = R"(
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
)";

void with_media(Seen& seen) {
  TestPool pool(kMedia);
  pool.members({{"a", ""}});
  for (int i = 0; i < 2; ++i) {
    auto flight = pool.begin(
        R"({"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x/1"}}]}]})", {},
        "/v1/chat/completions");
    ASSERT_TRUE(pool.decide(*flight));
    flight->finish(200);
  }
  seen.read(pool.text());
}

TEST(MetricTable, RequestsMoveWhatTheyCan) {
  Seen seen;
  disaggregated(seen);
  predicted(seen);
  flow_controlled(seen);
  by_kv_events(seen);
  with_media(seen);
  for (const MetricRow& row : metric_rows()) {
    if (elsewhere(row.id)) continue;
    expect_moved(seen, row.name, row, row.labels);
    if (!row.twin.empty()) expect_moved(seen, row.twin, row, row.twin_labels);
  }
}

// A plugin of a later configuration is timed too, and what the earlier one counted stays.
TEST(PluginTimes, OutliveAConfiguration) {
  TestPool pool(kPrefixOnly);
  pool.members({{"a", ""}});
  pool.destination(kSmall);
  pool.picker->set_plan(make_plan(kPredicting));
  pool.destination(kSmall);
  const std::string text = pool.text();
  const auto count = [&](std::string_view plugin) {
    const size_t at = text.find(cat("inference_extension_plugin_duration_seconds_count{", plugin));
    return at == std::string::npos ? std::string() : text.substr(text.find("} ", at) + 2, 3);
  };
  EXPECT_EQ(count(R"(extension_point="Scorer",plugin_name="queue-scorer")"), "1.0");
  EXPECT_EQ(count(R"(extension_point="Picker",plugin_name="max-score-picker")"), "2.0");
}

}  // namespace
}  // namespace baton::picker
