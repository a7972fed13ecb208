#pragma once
// Admission: who may be placed now and who waits: route::FlowQueue made to live. Event driven: something is dispatched when a
// request arrives, when one ends, when fresh numbers come, when an endpoint appears, and on one timer for the earliest deadline;
// nothing ticks. What was dispatched since an endpoint's numbers were read counts as waiting there, so nothing herds between
// scrapes; when all numbers are stale only our own in-flight requests count (fail open), and a gauge tells.
// Threads: any; one short lock, never held while a request is placed. Owner: Core. Source: facts sheet "epp" 4.9, 1.6, 9.5, 9.6.
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "picker/picker_metrics.h"
#include "picker/pool.h"
#include "route/decide.h"
#include "route/flow_queue.h"
#include "route/plan.h"

namespace baton::picker {

enum class Outcome : uint8_t {
  kDispatched,
  kRejectedCapacity,
  kRejectedNoEndpoints,
  kEvictedTtl,
  kEvictedNoEndpoints,
  kEvictedCancelled,
  kShutdown
};
std::string_view outcome_name(Outcome outcome);  // as llm-d's metrics spell it

// One request's place. resume and evict run on the request's thread, by post; both are dropped when the request forgets them.
struct Waiter {
  std::function<void(std::move_only_function<void()>)> post;
  std::move_only_function<void(Outcome)> resume;
  std::move_only_function<void()> evict;
  Series* series = nullptr;
  int64_t priority = 0, bytes = 0, entered_us = 0;
  // Admission's, under its lock:
  route::FlowQueue::Ticket ticket = 0;
  bool pending = false;  // dispatched, and not yet in any endpoint's in-flight count
  bool running = false;
  int64_t revoked_us = 0;  // told to end; 0 = not, or that was counted
  std::string flow;
};

class Admission {
 public:
  // view: the pool now. arm: calls expire() at about that time (Clock's ns), earlier arms included.
  struct Hooks {
    std::function<std::shared_ptr<const View>()> view;
    std::function<void(int64_t at_us)> arm;
  };
  Admission(const Clock& clock, PickerMetrics& metrics, Hooks hooks);
  void set_plan(std::shared_ptr<const route::Plan> plan);

  // An outcome at once, or nullopt: resume will be called.
  std::optional<Outcome> enter(const std::shared_ptr<Waiter>& waiter, const route::FlowRequest& request);
  void placed(Waiter& waiter);  // it is in the in-flight counts now, or will never be
  void leave(Waiter& waiter);   // gone, whatever its state; an actual end counts as room
  void served(const Waiter& waiter, int64_t input_tokens, int64_t output_tokens);
  void poke();  // room may have come; nearly free while nobody waits
  void expire();
  void stop();

  double saturation() const;  // of the pool, credit included
  int64_t waiting() const { return waiting_.load(std::memory_order_relaxed); }
  void refresh_gauges();
  std::vector<route::FlowQueue::BandView> bands() const;
  int64_t stale_endpoints() const { return stale_.load(std::memory_order_relaxed); }

 private:
  struct Wake {
    std::shared_ptr<Waiter> waiter;
    Outcome outcome;
  };
  struct Room {
    double saturation = 1;
    double per_request = 0;  // what one more pending request adds
    bool empty = true;
    route::StageSaturation stages{};
  };
  Room room() const;
  void dispatch_locked(std::vector<Wake>& wake, int64_t now_us);
  void evict_locked(std::vector<std::shared_ptr<Waiter>>& out, int64_t now_us);
  void end_revocations(int64_t now_us);
  void program_gauges(int64_t now_us);
  void arm_locked(bool empty);
  void wake_all(std::vector<Wake>& wake, const Waiter* inline_one, std::optional<Outcome>& inline_outcome);
  void round(const Waiter* inline_one, std::optional<Outcome>& inline_outcome);
  void count(Outcome outcome, const Waiter& waiter, int64_t now_us);

  const Clock& clock_;
  PickerMetrics& metrics_;
  Hooks hooks_;
  mutable std::mutex mutex_;
  std::shared_ptr<const route::Plan> plan_;
  route::FlowQueue queue_;
  std::unordered_map<route::FlowQueue::Ticket, std::shared_ptr<Waiter>>
      waiters_;  // waiting, and running ones that may be evicted
  std::unordered_map<std::string, TwinCounter> outcomes_;
  std::vector<std::shared_ptr<Waiter>> revoked_;  // and neither ended nor given up on
  std::set<std::string> programs_;                // with gauges of their own
  int64_t pending_ = 0, armed_us_ = INT64_MAX;
  bool stopped_ = false;
  std::atomic<int64_t> waiting_{0};
  mutable std::atomic<int64_t> stale_{0};
};

}  // namespace baton::picker
