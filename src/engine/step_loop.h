#pragma once
// StepLoop: the engine's one step thread. Work for it is posted as closures over Core; it drains them before every step, runs
// steps while there is something to do, and otherwise sleeps until a post or wake(). Guarantees: post() never blocks on a step;
// closures run in post order on the step thread; stop() runs what was posted before it, fails what is still live and joins. Any
// thread may call the public members.
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/core.h"

namespace baton::engine {

class StepLoop {
 public:
  using Work = std::move_only_function<void(Core&)>;

  // on_death: called once, on the step thread, if it cannot go on; later submissions are refused.
  StepLoop(std::unique_ptr<Core> core, const Clock& clock, bool log_stats, std::function<void()> on_death = {});
  ~StepLoop() { stop(); }
  void start();
  void stop();
  void post(Work work);
  void wake();
  uint64_t reserve_ids(int32_t n) { return next_id_.fetch_add(static_cast<uint64_t>(n)); }
  // false: the step thread died, or its core gave up; a clean stop() leaves it true
  bool alive() const { return alive_.load(); }
  void give_up() { alive_ = false; }

 private:
  void run();
  void run_steps();
  bool drain();  // true: something ran
  bool wait();   // false: stopping
  void log_stats();

  std::unique_ptr<Core> core_;
  const Clock& clock_;
  const bool log_stats_;
  const std::function<void()> on_death_;
  int64_t stats_ns_ = 0;
  std::atomic<uint64_t> next_id_{1};
  std::atomic<bool> alive_{true};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Work> inbox_;
  bool woken_ = false, stopping_ = false;
  std::thread thread_;
};

}  // namespace baton::engine
