#pragma once
// TestPool: a Picker over endpoints that exist only in memory. Nothing is probed (start() is not called): endpoints count as
// ready and tests set their numbers. Time stands still unless moved.
#include <gmock/gmock.h>

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "picker/core.h"
#include "picker/flight.h"
#include "route/config.h"

namespace baton::picker {

inline constexpr std::string_view kPrefixOnly = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefix-cache-scorer
- type: queue-scorer
- type: active-request-scorer
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-scorer
    weight: 3
  - pluginRef: queue-scorer
  - pluginRef: active-request-scorer
  - pluginRef: max-score-picker
)";
inline constexpr std::string_view kDisagg = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefix-cache-scorer
- type: queue-scorer
- type: prefill-filter
- type: decode-filter
- type: max-score-picker
- type: always-disagg-pd-decider
- type: disagg-profile-handler
  parameters:
    deciders:
      prefill: always-disagg-pd-decider
schedulingProfiles:
- name: prefill
  plugins:
  - pluginRef: prefill-filter
  - pluginRef: max-score-picker
  - pluginRef: prefix-cache-scorer
    weight: 2
  - pluginRef: queue-scorer
- name: decode
  plugins:
  - pluginRef: decode-filter
  - pluginRef: max-score-picker
  - pluginRef: prefix-cache-scorer
    weight: 2
  - pluginRef: queue-scorer
)";
inline constexpr std::string_view kSmall = R"({"model":"m","prompt":"hello there, how are you today?"})";

// What a door is to a Flight: its own thread's queue of posted functions.
class Posts {
 public:
  void post(std::move_only_function<void()> f) {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(f));
  }
  bool run_one() {
    std::move_only_function<void()> f;
    {
      std::lock_guard lock(mutex_);
      if (queue_.empty()) return false;
      f = std::move(queue_.front());
      queue_.pop_front();
    }
    f();
    return true;
  }
  void run() {
    while (run_one()) {
    }
  }

 private:
  std::mutex mutex_;
  std::deque<std::move_only_function<void()>> queue_;
};

inline std::shared_ptr<route::Plan> make_plan(std::string_view text) {
  const auto loaded = route::load_config(text, {.allow_experimental = true});
  for (const auto& error : loaded.errors) ADD_FAILURE() << error;
  return std::make_shared<route::Plan>(*loaded.plan);
}

class TestPool {
 public:
  using Members = std::vector<std::pair<std::string, std::string>>;  // host, role
  explicit TestPool(std::string_view config, PickerOptions options = {}) : TestPool(make_plan(config), std::move(options)) {}
  explicit TestPool(std::shared_ptr<route::Plan> plan, PickerOptions options = {}) {
    options.replies_need_health = false;
    options.seed = 42;
    clock.advance_ms(1'000);
    picker = std::make_unique<Handle>(std::move(options), std::move(plan), metrics, clock);
  }
  void members(const Members& list) {
    cluster.members.clear();
    for (const auto& [host, role] : list) {
      discovery::Member m;
      m.host = host;
      m.port = 80;
      m.role = role;
      cluster.members.push_back(std::move(m));
    }
    cluster.synced = true;
    ++cluster.generation;
    picker->set_cluster(std::make_shared<const discovery::ClusterState>(cluster));
  }
  std::shared_ptr<EndpointState> state(const std::string& address) {
    const auto view = core().pool.view();
    const int i = view->find(address);
    return i < 0 ? nullptr : view->states[static_cast<size_t>(i)];
  }
  void scraped(const std::string& address, int waiting) {
    const auto s = state(address);
    s->waiting = waiting;
    s->sent_when_scraped = s->sent.load();
    s->scraped_ns = clock.now_ns();
    core().admission.poke();
  }
  std::unique_ptr<Flight> begin(std::string_view body, std::vector<HeaderField> headers = {},
                                std::string_view path = "/v1/completions") {
    heads_.push_back(std::move(headers));
    ids_.push_back("id-" + std::to_string(ids_.size() + 1));
    Head head;
    head.method = "POST";
    head.path = path;
    head.headers = heads_.back();
    head.request_id = ids_.back();
    head.post = [this](std::move_only_function<void()> f) { posts.post(std::move(f)); };
    auto flight = picker->begin(head);
    EXPECT_FALSE(flight->feed(body));
    return flight;
  }
  // The decision, which must come at once.
  std::expected<const Choice*, Refusal> decide(Flight& flight, Subset subset = {}) {
    std::optional<std::expected<const Choice*, Refusal>> out;
    flight.decide(std::move(subset), [&](auto result) { out = std::move(result); });
    if (!out) {
      ADD_FAILURE() << "the request waits";
      return std::unexpected(Refusal{});
    }
    return *out;
  }
  std::string destination(std::string_view body) {
    auto flight = begin(body);
    const auto choice = decide(*flight);
    flight->finish(200);
    return choice ? (*choice)->destination : choice.error().message;
  }
  int inflight() {
    int sum = 0;
    for (const auto& s : core().pool.view()->states) sum += s->inflight_requests;
    return sum;
  }
  std::string text() {
    picker->refresh_metrics();
    return metrics.text();
  }
  Core& core() { return picker->core; }

  // As Picker::make() gives, with its inside open to tests.
  struct Handle {
    Handle(PickerOptions options, std::shared_ptr<const route::Plan> plan, Metrics& m, const Clock& c)
        : core(std::move(options), std::move(plan), m, c), door(picker_of(core)) {}
    Core core;
    std::unique_ptr<Picker> door;
    std::unique_ptr<Flight> begin(const Head& head) { return door->begin(head); }
    std::shared_ptr<BodyReader> begin_body(std::string_view path) { return door->begin_body(path); }
    std::expected<std::string, Refusal> any_endpoint(const Subset& subset) { return door->any_endpoint(subset); }
    bool can_serve() { return door->can_serve(); }
    bool ready() { return door->ready(); }
    void stop() { core.stop(); }
    void set_cluster(std::shared_ptr<const discovery::ClusterState> s) { core.set_cluster(std::move(s)); }
    void set_plan(std::shared_ptr<const route::Plan> p) { core.set_plan(std::move(p)); }
    void refresh_metrics() { core.refresh_metrics(); }
    std::string debug_json() { return core.debug_json(); }
  };

  Metrics metrics;
  ManualClock clock;
  discovery::ClusterState cluster;
  Posts posts;
  std::unique_ptr<Handle> picker;

 private:
  std::deque<std::vector<HeaderField>> heads_;
  std::deque<std::string> ids_;
};

}  // namespace baton::picker
