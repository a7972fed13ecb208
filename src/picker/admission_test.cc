// Flow control as requests see it: they wait while the pool is full, and every event that can make room wakes them.
#include "picker/test_pool.h"

namespace baton::picker {
namespace {

using testing::HasSubstr;

struct Waiting {
  std::unique_ptr<Flight> flight;
  std::shared_ptr<std::optional<std::expected<const Choice*, Refusal>>> result =
      std::make_shared<std::optional<std::expected<const Choice*, Refusal>>>();
  bool done() const { return result->has_value(); }
  const Refusal& refusal() const { return (*result)->error(); }
};

class FlowControl : public testing::Test {
 protected:
  static std::shared_ptr<route::Plan> plan() {
    auto out = make_plan(kPrefixOnly);
    out->flow_control.enabled = true;
    out->flow_control.ttl_ms = 1'000;
    out->flow_control.no_endpoint_ttl_ms = 5'000;
    return out;
  }
  Waiting ask(std::vector<HeaderField> headers = {}) {
    Waiting w;
    w.flight = pool.begin(kSmall, std::move(headers));
    w.flight->decide({}, [r = w.result](auto result) { *r = std::move(result); });
    return w;
  }
  void full(const std::string& address) { pool.scraped(address, 100); }
  void later(int64_t ms) {
    pool.clock.advance_ms(ms);
    pool.core().admission.expire();
    pool.posts.run();
  }
  TestPool pool{plan()};
};

TEST_F(FlowControl, GoesThroughWhileThereIsRoom) {
  pool.members({{"a", ""}});
  pool.scraped("a:80", 0);
  EXPECT_TRUE(ask().done());
  EXPECT_THAT(
      pool.text(),
      HasSubstr(R"(llm_d_epp_flow_control_requests_total{inference_pool="default",outcome="Dispatched",priority="0"} 1.0)"));
}

TEST_F(FlowControl, FreshNumbersWake) {
  pool.members({{"a", ""}});
  full("a:80");
  Waiting w = ask();
  EXPECT_FALSE(w.done());
  EXPECT_THAT(
      pool.text(),
      HasSubstr(
          R"(llm_d_epp_flow_control_queue_size{fairness_id="default-flow",inference_pool="default",model_name="m",priority="0",target_model_name="m"} 1.0)"));
  pool.scraped("a:80", 0);
  EXPECT_FALSE(w.done()) << "only on its own thread";
  pool.posts.run();
  ASSERT_TRUE(w.done());
  EXPECT_TRUE(w.result->has_value());
  EXPECT_THAT(
      pool.text(),
      HasSubstr(
          R"(llm_d_epp_flow_control_queue_size{fairness_id="default-flow",inference_pool="default",model_name="m",priority="0",target_model_name="m"} 0.0)"));
}

TEST_F(FlowControl, NothingHerdsBetweenScrapes) {
  pool.members({{"a", ""}, {"b", ""}});
  pool.scraped("a:80", 0);
  pool.scraped("b:80", 0);
  std::vector<Waiting> all;
  for (int i = 0; i < 50; ++i) all.push_back(ask());
  const auto placed = std::ranges::count_if(all, &Waiting::done);
  EXPECT_EQ(placed, 10) << "a queue depth of 5 on each of two endpoints, counted before any scrape shows it";
  all.erase(all.begin(), all.begin() + 3);  // three of those end
  pool.posts.run();
  EXPECT_EQ(std::ranges::count_if(all, &Waiting::done), 10);
}

TEST_F(FlowControl, CompletionsWake) {
  pool.members({{"a", ""}});
  pool.scraped("a:80", 0);
  std::vector<Waiting> all;
  for (int i = 0; i < 6; ++i) all.push_back(ask());
  EXPECT_FALSE(all.back().done());
  all.front().flight->finish(200);
  all.front().flight.reset();
  pool.posts.run();
  EXPECT_TRUE(all.back().done());
}

TEST_F(FlowControl, HigherPrioritiesGoFirst) {
  pool.cluster.objectives = {{.name = "high", .priority = 10}};
  pool.members({{"a", ""}});
  full("a:80");
  Waiting low = ask(), high = ask({{"x-llm-d-inference-objective", "high"}});
  pool.scraped("a:80", 4);
  pool.posts.run();
  EXPECT_TRUE(high.done());
  EXPECT_FALSE(low.done());
}

TEST_F(FlowControl, TimeEndsTheWait) {
  pool.members({{"a", ""}});
  full("a:80");
  Waiting w = ask();
  later(500);
  EXPECT_FALSE(w.done());
  pool.scraped("a:80", 100);
  later(501);
  ASSERT_TRUE(w.done());
  EXPECT_EQ(w.refusal().status, 429);
  EXPECT_EQ(w.refusal().drop_reason, "rejected-ttl-expired");
  EXPECT_GT(w.refusal().retry_after_s, 0);
}

TEST_F(FlowControl, AnEmptyPoolIsWaitedForLonger) {
  pool.members({});
  Waiting w = ask(), lost = ask();
  later(4'000);
  EXPECT_FALSE(w.done());
  pool.members({{"a", ""}});
  pool.posts.run();
  EXPECT_TRUE(w.done()) << "scaled from zero";
  pool.members({});
  Waiting forlorn = ask();
  later(5'001);
  ASSERT_TRUE(forlorn.done());
  EXPECT_EQ(forlorn.refusal().status, 503);
  EXPECT_EQ(forlorn.refusal().drop_reason, "rejected-no-endpoints");
}

TEST_F(FlowControl, StopAnswersWhoWaits) {
  pool.members({{"a", ""}});
  full("a:80");
  Waiting w = ask(), gone = ask();
  gone.flight.reset();
  pool.picker->stop();
  pool.posts.run();
  ASSERT_TRUE(w.done());
  EXPECT_EQ(w.refusal().status, 503);
  EXPECT_EQ(w.refusal().drop_reason, "rejected-shutting-down");
  EXPECT_FALSE(gone.done()) << "nobody is there to be told";
}

TEST_F(FlowControl, WhoLeavesLeavesNothing) {
  pool.members({{"a", ""}});
  full("a:80");
  Waiting w = ask();
  w.flight.reset();
  EXPECT_EQ(pool.core().admission.waiting(), 0);
  EXPECT_THAT(pool.text(), HasSubstr(R"(outcome="EvictedContextCancelled",priority="0"} 1.0)"));
  // Dispatched, and gone before it heard of it: its room is free again.
  std::vector<Waiting> all;
  for (int i = 0; i < 8; ++i) all.push_back(ask());
  pool.scraped("a:80", 0);
  all.clear();
  pool.posts.run();
  std::vector<Waiting> more;
  for (int i = 0; i < 5; ++i) more.push_back(ask());
  EXPECT_EQ(std::ranges::count_if(more, &Waiting::done), 5);
}

TEST_F(FlowControl, FullQueuesRefuse) {
  auto small = plan();
  small->flow_control.default_band.requests_max = 2;
  pool.picker->set_plan(small);
  pool.members({{"a", ""}});
  full("a:80");
  Waiting a = ask(), b = ask(), c = ask();
  ASSERT_TRUE(c.done());
  EXPECT_EQ(c.refusal().status, 429);
  EXPECT_EQ(c.refusal().drop_reason, "rejected-saturated");
  EXPECT_FALSE(b.done());
}

TEST_F(FlowControl, SwitchedOffByReloadLetsEveryoneGo) {
  pool.members({{"a", ""}});
  full("a:80");
  Waiting w = ask();
  pool.picker->set_plan(make_plan(kPrefixOnly));
  pool.posts.run();
  EXPECT_TRUE(w.done());
}

TEST_F(FlowControl, EvictsRunningSheddableRequests) {
  auto evicting = plan();
  evicting->flow_control.eviction = true;
  pool.picker->set_plan(evicting);
  pool.cluster.objectives = {{.name = "batch", .priority = -1}};
  pool.members({{"a", ""}});
  pool.scraped("a:80", 0);
  std::optional<Refusal> evicted;
  Waiting batch;
  batch.flight = pool.begin(kSmall, {{"x-llm-d-inference-objective", "batch"}});
  batch.flight->on_evict([&](Refusal refusal) { evicted = std::move(refusal); });
  ASSERT_TRUE(pool.decide(*batch.flight));
  full("a:80");
  Waiting urgent = ask();
  pool.posts.run();
  ASSERT_TRUE(evicted);
  EXPECT_EQ(evicted->status, 429);
  EXPECT_EQ(evicted->message, "request evicted by flow control");
  batch.flight.reset();
  pool.scraped("a:80", 0);
  pool.posts.run();
  EXPECT_TRUE(urgent.done());
}

}  // namespace
}  // namespace baton::picker
