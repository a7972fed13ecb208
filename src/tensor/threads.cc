#include "tensor/threads.h"

#include <chrono>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace baton::tensor {
namespace {

constexpr auto kSpin = std::chrono::microseconds(40);

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

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

ThreadPool::ThreadPool(int threads, bool pin) {
  const std::vector<int> cpus = usable_cpus();
  size_ = threads > 0 ? threads : static_cast<int>(cpus.size());
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

void ThreadPool::run(const std::function<void(int)>& job) {
  if (size_ == 1) return job(0);
  job_ = &job;
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  job(0);
  barrier();
}

void ThreadPool::work(int member, int cpu) {
  pin_self(cpu);
  for (uint32_t seen = 0;; ++seen) {
    await_change(epoch_, seen);
    if (stop_) return;
    (*job_)(member);
    barrier();
  }
}

void ThreadPool::barrier() {
  if (size_ == 1) return;
  const uint32_t generation = generation_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(size_)) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
    generation_.notify_all();
  } else {
    await_change(generation_, generation);
  }
}

}  // namespace baton::tensor
