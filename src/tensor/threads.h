#pragma once
// ThreadPool: the threads of one model, which run a step together as a sequence of phases. Every member runs the same job; in it,
// each split() is a phase: a member takes its own parts first and then what the others have not come for, and the phase ends when
// all are done. It therefore never waits for a member that holds no part: on a machine with more runnable threads than CPUs the
// members that run do the work of those that do not, and a worker that wakes late skips what is done. That a part has an owner
// lets a member ask memory for what it will read in later phases. The caller of run() is member 0. Waiting spins for kSpin
// (phases take a few to a few hundred microseconds), then sleeps in the kernel; idle workers sleep the same way. Owner: one
// thread calls run(). Results must not depend on who does which part; nothing else may be assumed about it.
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace baton::tensor {

// Part [begin, end) of n items in units of `unit`: contiguous, sizes differ by at most one unit.
struct Share {
  int64_t begin, end;
};
constexpr Share share(int64_t n, int64_t part, int64_t parts, int64_t unit = 1) {
  const int64_t units = (n + unit - 1) / unit;
  const int64_t begin = units * part / parts * unit, end = units * (part + 1) / parts * unit;
  return {begin < n ? begin : n, end < n ? end : n};
}

// Says to the core that this thread spins.
inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

int usable_cpu_count();  // of this process: 1 or more

class ThreadPool {
 public:
  class Member {
   public:
    int index() const { return index_; }
    // Runs f(Share) over parts of n items, on all members that come. Every member calls split() with the same arguments in the
    // same order.
    template <class F>
    void split(int64_t n, F&& f, int64_t unit = 1) {
      if (n <= 0) return;
      if (pool_.size_ == 1) return f(Share{0, n});
      const int64_t parts = pool_.parts(n, unit);
      const uint32_t phase = phase_++;
      for (int64_t part; (part = pool_.take(phase, parts, index_)) >= 0;) {
        f(share(n, part, parts, unit));
        pool_.done(phase, parts);
      }
      pool_.await_end(phase);
    }

   private:
    friend class ThreadPool;
    Member(ThreadPool& pool, int index) : pool_(pool), index_(index) {}
    ThreadPool& pool_;
    int index_;
    uint32_t phase_ = 0;  // the phase that its next split() is
  };

  // threads 0: as many as the CPUs this process may use. pin: worker i stays on the i-th such CPU, if there are enough for all
  // members.
  ThreadPool(int threads, bool pin);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }
  // f(Share) over the parts of split(n, ..., unit) that are the member's own.
  template <class F>
  void own(int member, int64_t n, F&& f, int64_t unit = 1) const {
    const int64_t all = parts(n, unit);
    const Share mine = share(all, member, size_);
    for (int64_t part = mine.begin; part < mine.end; ++part) f(share(n, part, all, unit));
  }
  void run(const std::function<void(Member&)>& job);  // returns when the job is done and no worker is in it

 private:
  // More than one, so that a member whose CPU is slower or shared takes fewer; few, because taking one costs a shared cache line.
  static constexpr int64_t kPartsPerMember = 2;

  // Parts of a member, taken in their order.
  struct alignas(64) Own {
    std::atomic<uint64_t> taken{0};  // phase << 32 | how many of it
  };

  int64_t parts(int64_t n, int64_t unit) const {
    const int64_t units = (n + unit - 1) / unit, most = size_ == 1 ? 1 : size_ * kPartsPerMember;
    return units < most ? units : most;
  }
  void work(int index, int cpu);
  bool enter();
  int64_t take(uint32_t phase, int64_t parts, int member);
  void done(uint32_t phase, int64_t parts);
  void await_end(uint32_t phase);

  int size_;
  std::vector<std::thread> workers_;
  const std::function<void(Member&)>* job_ = nullptr;  // valid while the gate is open or anyone is inside
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<uint32_t> epoch_{0};     // bumped to start a job
  alignas(64) std::atomic<uint32_t> gate_{0};      // bit 0: open; the rest: 2 * workers inside
  std::unique_ptr<Own[]> own_;                     // [member]
  alignas(64) std::atomic<uint32_t> done_{0};      // parts done of the running phase
  alignas(64) std::atomic<uint32_t> finished_{0};  // phases done of the job
};

}  // namespace baton::tensor
