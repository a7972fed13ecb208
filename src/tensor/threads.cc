#include "tensor/threads.h"

#include <chrono>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace baton::tensor {
namespace {

constexpr auto kSpin = std::chrono::microseconds(40);

// Waits until a differs from `old`: spins briefly, then blocks.
void await_change(const std::atomic<uint32_t>& a, uint32_t old) {
  for (int i = 0; i < 64; ++i) {
    if (a.load(std::memory_order_acquire) != old) return;
    pause();
  }
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  while (std::chrono::steady_clock::now() < deadline) {
    for (int i = 0; i < 16; ++i) {
      if (a.load(std::memory_order_acquire) != old) return;
      pause();
    }
  }
  while (a.load(std::memory_order_acquire) == old) a.wait(old, std::memory_order_acquire);
}

constexpr uint32_t kOpen = 1, kInside = 2;

std::vector<int> usable_cpus() {
  std::vector<int> cpus;
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int i = 0; i < CPU_SETSIZE; ++i)
      if (CPU_ISSET(i, &set)) cpus.push_back(i);
#endif
  if (cpus.empty()) cpus.resize(std::max(1u, std::thread::hardware_concurrency()), -1);
  return cpus;
}

void pin_self([[maybe_unused]] int cpu) {
#if defined(__linux__)
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);  // a hint: a refusal costs speed only
#endif
}

}  // namespace

int usable_cpu_count() { return static_cast<int>(usable_cpus().size()); }

ThreadPool::ThreadPool(int threads, bool pin) {
  const std::vector<int> cpus = usable_cpus();
  size_ = threads > 0 ? threads : static_cast<int>(cpus.size());
  own_ = std::make_unique<Own[]>(static_cast<size_t>(size_));
  pin = pin && size_ <= static_cast<int>(cpus.size());
  // Member 0 is the caller's own thread, which does other work too and stays where the scheduler puts it.
  for (int i = 1; i < size_; ++i)
    workers_.emplace_back([this, i, cpu = pin ? cpus[static_cast<size_t>(i)] : -1] { work(i, cpu); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::run(const std::function<void(Member&)>& job) {
  Member self(*this, 0);
  if (size_ == 1) return job(self);
  job_ = &job;
  for (int i = 0; i < size_; ++i) own_[i].taken.store(0, std::memory_order_relaxed);
  finished_.store(0, std::memory_order_relaxed);
  gate_.store(kOpen, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  job(self);
  gate_.fetch_sub(kOpen, std::memory_order_acq_rel);
  for (uint32_t inside; (inside = gate_.load(std::memory_order_acquire)) != 0;) await_change(gate_, inside);
}

// Into the job, unless it has ended.
bool ThreadPool::enter() {
  uint32_t gate = gate_.load(std::memory_order_acquire);
  while (gate & kOpen)
    if (gate_.compare_exchange_weak(gate, gate + kInside, std::memory_order_acq_rel)) return true;
  return false;
}

void ThreadPool::work(int index, int cpu) {
  pin_self(cpu);
  for (uint32_t seen = 0;;) {
    await_change(epoch_, seen);
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_) return;
    if (!enter()) continue;
    Member self(*this, index);
    (*job_)(self);
    if (gate_.fetch_sub(kInside, std::memory_order_acq_rel) == kInside) gate_.notify_all();
  }
}

// A part that nobody has taken: one of the member's own, or else another's; -1: there is none. A count of an earlier phase stands
// for none taken: a phase's parts are taken only when the one before has ended, and then no part of that is left.
int64_t ThreadPool::take(uint32_t phase, int64_t parts, int member) {
  for (int i = 0; i < size_; ++i) {
    const int owner = member + i < size_ ? member + i : member + i - size_;
    const Share theirs = share(parts, owner, size_);
    std::atomic<uint64_t>& taken = own_[owner].taken;
    uint64_t seen = taken.load(std::memory_order_acquire);
    while (seen >> 32 <= phase) {
      const int64_t part = theirs.begin + (seen >> 32 == phase ? static_cast<uint32_t>(seen) : 0);
      if (part >= theirs.end) break;
      const uint64_t next = (uint64_t{phase} << 32) + static_cast<uint64_t>(part - theirs.begin) + 1;
      if (taken.compare_exchange_weak(seen, next, std::memory_order_acq_rel)) return part;
    }
  }
  return -1;
}

void ThreadPool::done(uint32_t phase, int64_t parts) {
  if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 < parts) return;
  done_.store(0, std::memory_order_relaxed);
  finished_.store(phase + 1, std::memory_order_release);
  finished_.notify_all();
}

void ThreadPool::await_end(uint32_t phase) {
  for (uint32_t finished; (finished = finished_.load(std::memory_order_acquire)) <= phase;) await_change(finished_, finished);
}

}  // namespace baton::tensor
