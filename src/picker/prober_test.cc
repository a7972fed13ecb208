// Probes and scraping against real sockets: engines that come, go, lie and hang.
#include "picker/prober.h"

#include <functional>
#include <thread>

#include "base/json.h"
#include "picker/fake_engine.h"
#include "picker/test_pool.h"

namespace baton::picker {
namespace {

void eventually(const std::function<bool()>& done, const char* what) {
  const SteadyClock clock;
  for (const int64_t begin = clock.now_ms(); !done(); std::this_thread::yield())
    ASSERT_LT(clock.now_ms() - begin, 20'000) << what;
}

class Probed : public testing::Test {
 protected:
  void start(const std::vector<const FakeEngine*>& engines, PickerOptions options = {}) {
    options.scrape_interval_ms = 5;
    core = std::make_unique<Core>(options, make_plan(kPrefixOnly), metrics, clock);
    ASSERT_TRUE(core->start());
    set(engines);
  }
  void set(const std::vector<const FakeEngine*>& engines) {
    auto cluster = std::make_shared<discovery::ClusterState>();
    cluster->synced = true;
    for (const FakeEngine* engine : engines) cluster->members.push_back(engine->member("decode"));
    core->set_cluster(cluster);
  }
  EndpointState& state(size_t i) { return *core->pool.view()->states[i]; }
  std::string fault(const std::string& reason) {
    const std::string text = metrics.text(), key = "scrape_faults_total{reason=\"" + reason + "\"} ";
    const size_t at = text.find(key);
    return text.substr(at + key.size(), text.find('\n', at) - at - key.size());
  }
  Metrics metrics;
  SteadyClock clock;
  std::unique_ptr<Core> core;
};

TEST_F(Probed, EndpointsComeUpWithTheirNumbers) {
  FakeEngine engine("model-1");
  engine.waiting = 3;
  engine.extra = "vllm:cache_config_info{block_size=\"32\",num_gpu_blocks=\"77\"} 1\n";
  start({&engine});
  eventually([&] { return state(0).healthy && state(0).scraped_ns >= 0; }, "it does not come up");
  EXPECT_EQ(state(0).waiting, 3);
  EXPECT_EQ(state(0).blocks_total, 77);
  EXPECT_EQ(core->prefix_block_tokens(*core->live()->plan), 32) << "the block size of the engines";
  EXPECT_TRUE(core->pool.view()->knows_model("model-1"));
  EXPECT_GT(engine.filtered, 0) << "only the wanted families were asked for";
  engine.waiting = 9;
  eventually([&] { return state(0).waiting == 9; }, "numbers do not change");
}

TEST_F(Probed, EnginesThatCannotFilterAreAskedForAll) {
  FakeEngine engine;
  engine.knows_filter = false;
  engine.waiting = 4;
  start({&engine});
  eventually([&] { return state(0).waiting == 4; }, "numbers are not read");
  EXPECT_EQ(engine.filtered, 1) << "tried once";
}

TEST_F(Probed, MalformedAndFailingMetricsOnlyAge) {
  FakeEngine engine;
  engine.waiting = 5;
  start({&engine});
  eventually([&] { return state(0).waiting == 5; }, "numbers are not read");
  engine.metrics = FakeEngine::Metrics::kMalformed;
  eventually([&] { return fault("no_numbers") != "0.0"; }, "nobody is blamed");
  EXPECT_EQ(metrics.text().find("datalayer_extract_errors_total{extractor_type=\"core-metrics-extractor\",source_type="
                                "\"metrics-data-source\"} 0.0"),
            std::string::npos);
  EXPECT_TRUE(state(0).healthy);
  EXPECT_EQ(state(0).waiting, 5) << "the last known number stays";
  engine.metrics = FakeEngine::Metrics::kError;
  eventually([&] { return fault("status") != "0.0"; }, "nobody is blamed");
  EXPECT_EQ(metrics.text().find("datalayer_poll_errors_total{source_type=\"metrics-data-source\"} 0.0"), std::string::npos);
  EXPECT_TRUE(state(0).healthy);
  engine.metrics = FakeEngine::Metrics::kGood;
  engine.waiting = 6;
  eventually([&] { return state(0).waiting == 6; }, "it does not recover");
}

TEST_F(Probed, AScrapeThatNeverEndsHoldsUpNobodyElse) {
  FakeEngine stuck, good;
  stuck.metrics = FakeEngine::Metrics::kHang;
  start({&stuck, &good});
  eventually([&] { return state(1).healthy && good.scrapes > 2; }, "the other one is held up");
  eventually([&] { return fault("timeout") != "0.0"; }, "the scrape has no limit");
  EXPECT_TRUE(state(0).healthy) << "it still answers /health";
  core->stop();  // returns though a scrape is under way
}

TEST_F(Probed, FlapsAreFollowed) {
  FakeEngine engine;
  start({&engine});
  for (int i = 0; i < 3; ++i) {
    eventually([&] { return state(0).healthy.load(); }, "it does not come up");
    engine.health = 503;
    eventually([&] { return !state(0).healthy.load(); }, "it does not go down");
    engine.health = 200;
  }
  eventually([&] { return state(0).healthy.load(); }, "it does not come up");
  core->report_down(engine.address());
  eventually([&] { return state(0).healthy.load(); }, "it is not tried again");
  const int port = engine.port();
  engine.stop();
  eventually([&] { return !state(0).healthy.load(); }, "a refused connection goes unnoticed");
  engine.start(port);
  eventually([&] { return state(0).healthy.load(); }, "it does not come back");
  set({});
  set({&engine});
  eventually([&] { return state(0).healthy.load(); }, "a new member is not probed");
}

TEST_F(Probed, NothingIsScrapedThatNobodyReads) {
  FakeEngine engine;
  auto plan = make_plan(kPrefixOnly);
  plan->needs.metrics = false;
  core = std::make_unique<Core>(PickerOptions{.scrape_interval_ms = 5}, plan, metrics, clock);
  ASSERT_TRUE(core->start());
  set({&engine});
  eventually([&] { return state(0).healthy.load(); }, "it does not come up");
  EXPECT_EQ(engine.scrapes, 0);
}

TEST_F(Probed, BadCustomNamesStopTheStart) {
  auto plan = make_plan(kPrefixOnly);
  plan->source.engines.push_back({.name = "vllm", .waiting = "{", .running = "", .kv_usage = "", .lora = "", .cache_info = ""});
  core = std::make_unique<Core>(PickerOptions{}, plan, metrics, clock);
  EXPECT_FALSE(core->start());
}

TEST_F(Probed, ReplicasCountEachOthersRequests) {
  FakeEngine engine;
  start({&engine}, {.replicas = ReplicaOptions{.name = "a", .bind = "tcp://127.0.0.1:*", .token = "t"}});
  eventually([&] { return state(0).healthy.load(); }, "it does not come up");
  const std::string endpoint = core->replica->endpoint();
  Metrics other_metrics;
  Core other(
      {.replicas =
           ReplicaOptions{
               .name = "b", .bind = "tcp://127.0.0.1:*", .peers = {endpoint.substr(endpoint.rfind('/') + 1)}, .token = "t"}},
      make_plan(kPrefixOnly), other_metrics, clock);
  ASSERT_TRUE(other.start());
  EXPECT_EQ(other.hash_seed, core->hash_seed) << "prefixes mean the same on both";
  auto cluster = std::make_shared<discovery::ClusterState>();
  cluster->members.push_back(engine.member("decode"));
  other.set_cluster(cluster);
  const auto seen = other.pool.view()->states[0];
  {
    InFlight ours(core->pool.view()->states[0], 1'000);
    eventually([&] { return seen->peer_requests == 1 && seen->peer_tokens == 1'000; }, "the other replica does not hear of it");
    EXPECT_EQ(seen->load(0).inflight_requests, 1);
    EXPECT_EQ(seen->inflight_requests, 0);
  }
  eventually([&] { return seen->peer_requests == 0; }, "the other replica does not hear of its end");
}

// Requests, scrapes, members and plans change at the same time on several threads; nothing is lost, nothing is counted twice.
TEST_F(Probed, ReloadsUnderLoad) {
  FakeEngine a, b;
  start({&a, &b});
  eventually([&] { return state(0).healthy && state(1).healthy; }, "they do not come up");
  std::atomic<int> answered{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < 3; ++t) {
    clients.emplace_back([&] {
      auto posts = std::make_shared<Posts>();
      for (int i = 0; i < 300; ++i) {
        Head head;
        head.method = "POST";
        head.path = "/v1/completions";
        head.request_id = "r";
        head.post = [posts](std::move_only_function<void()> f) { posts->post(std::move(f)); };
        FlightImpl flight(*core, head);
        ASSERT_FALSE(flight.feed(kSmall));
        bool done = false;
        flight.decide({}, [&](auto) { done = true; });
        while (!done) {
          if (!posts->run_one()) std::this_thread::yield();
        }
        flight.answer_head(200, "application/json");
        flight.answer_bytes("{}", true);
        flight.finish(200);
        ++answered;
      }
    });
  }
  auto controlled = make_plan(kPrefixOnly);
  controlled->flow_control.enabled = true;
  const auto plain = make_plan(kPrefixOnly);
  for (int i = 0; answered < 900; ++i) {
    core->set_plan(i % 2 == 0 ? controlled : plain);
    set(i % 3 == 0 ? std::vector<const FakeEngine*>{&b, &a} : std::vector<const FakeEngine*>{&a, &b});
    core->refresh_metrics();
    ASSERT_TRUE(parse_json(core->debug_json()));
    (void)metrics.text();
  }
  for (std::thread& client : clients) client.join();
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(state(i).inflight_requests, 0);
    EXPECT_EQ(state(i).inflight_tokens, 0);
  }
  EXPECT_EQ(core->admission.waiting(), 0);
}

}  // namespace
}  // namespace baton::picker
