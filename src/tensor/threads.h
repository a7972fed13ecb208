#pragma once
// ThreadPool: one team of threads per model that runs a step together, phase by phase. The caller of run() is member 0.
// A member that waits spins for kSpin (a phase is a few to a few hundred microseconds), then sleeps in the kernel, so engines
// that share cores do not burn each other's time; between steps idle members sleep the same way. Work is split statically: see
// share(). Owner: one thread calls run(); barrier() is called by every member inside run().
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace baton::tensor {

class ThreadPool {
 public:
  // threads 0: as many as the CPUs this process may use. pin: member i stays on the i-th such CPU, if there are enough for all
  // members.
  ThreadPool(int threads, bool pin);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }
  void run(const std::function<void(int member)>& job);  // returns when every member has returned
  void barrier();

 private:
  void work(int member, int cpu);

  int size_;
  std::vector<std::thread> workers_;
  const std::function<void(int)>* job_ = nullptr;
  bool stop_ = false;
  // Apart, because members write arrived_ while others poll the generation.
  alignas(64) std::atomic<uint32_t> epoch_{0};       // bumped to start a job
  alignas(64) std::atomic<uint32_t> arrived_{0};     // members at the barrier
  alignas(64) std::atomic<uint32_t> generation_{0};  // bumped to open the barrier
};

// Member's part [begin, end) of n items in units of `unit`: contiguous, sizes differ by at most one unit.
struct Share {
  int64_t begin, end;
};
constexpr Share share(int64_t n, int member, int members, int64_t unit = 1) {
  const int64_t units = (n + unit - 1) / unit;
  const int64_t begin = units * member / members * unit, end = units * (member + 1) / members * unit;
  return {begin < n ? begin : n, end < n ? end : n};
}

}  // namespace baton::tensor
