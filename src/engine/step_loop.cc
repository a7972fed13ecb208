#include "engine/step_loop.h"

#include <chrono>

#include "base/log.h"

namespace baton::engine {
namespace {

constexpr int64_t kStatsPeriodNs = 10'000'000'000;

}  // namespace

StepLoop::StepLoop(std::unique_ptr<Core> core, const Clock& clock, bool log_stats, std::function<void()> on_death)
    : core_(std::move(core)), clock_(clock), log_stats_(log_stats), on_death_(std::move(on_death)) {}

void StepLoop::start() {
  stats_ns_ = clock_.now_ns();
  thread_ = std::thread([this] { run(); });
}

void StepLoop::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void StepLoop::post(Work work) {
  {
    std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(work));
  }
  changed_.notify_one();
}

void StepLoop::wake() {
  {
    std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_one();
}

bool StepLoop::drain() {
  std::vector<Work> work;
  {
    std::lock_guard lock(mutex_);
    work.swap(inbox_);
    woken_ = false;
  }
  for (Work& item : work) item(*core_);
  return !work.empty();
}

bool StepLoop::wait() {
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return stopping_ || woken_ || !inbox_.empty(); };
  if (log_stats_ && !core_->idle())
    changed_.wait_for(lock, std::chrono::nanoseconds(kStatsPeriodNs), ready);
  else
    changed_.wait(lock, ready);
  return !stopping_;
}

void StepLoop::log_stats() {
  const int64_t now = clock_.now_ns();
  if (!log_stats_ || now - stats_ns_ < kStatsPeriodNs) return;
  const double seconds = static_cast<double>(now - stats_ns_) * 1e-9;
  const std::string lines[] = {core_->stats_line(seconds), core_->speculation_line(seconds)};
  stats_ns_ = now;
  for (const std::string& line : lines) {
    if (!line.empty()) log_info(line);
  }
}

void StepLoop::run_steps() {
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    const bool drained = drain();
    const bool stepped = core_->step();
    log_stats();
    if (!drained && !stepped && !wait()) break;
  }
}

void StepLoop::run() {
  try {
    run_steps();
    drain();
    core_->refuse(Error{Code::kUnavailable, "the engine is shutting down"});
    return;
  } catch (const std::exception& e) {  // a library call ran out of memory: nothing of this step can be trusted any more
    log_error("step thread died", "error=\"{}\"", e.what());
  }
  alive_ = false;
  core_->refuse(Error{Code::kInternal, kEngineDead});
  if (on_death_) on_death_();
  do {
    drain();
  } while (wait());
}

}  // namespace baton::engine
