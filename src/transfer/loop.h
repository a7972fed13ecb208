#pragma once
// Loop: one epoll set, its timers and its inbox, run by one thread. Why not asio: this folder needs readv/writev straight into
// pool blocks, descriptor passing and very little else, and stays cheap to compile. Threads: post() and stop() from any; all else
// only from the loop's own thread (or before run()). Guarantees: a watcher or timer that was removed is never called again;
// callbacks may remove anything, themselves included.
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace baton::transfer {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Fd& operator=(Fd&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~Fd();
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

class Loop {
 public:
  using Callback = std::function<void()>;
  using Ready = std::function<void(uint32_t epoll_events)>;
  using TimerId = std::pair<int64_t, uint64_t>;  // {due ms, number}

  explicit Loop(const Clock& clock);
  Result<> open();
  void run();                  // until stop()
  void turn(int wait_max_ms);  // one round: inbox, sockets, timers; run() is nothing else
  void stop();
  void post(Callback fn);
  void drain_inbox();  // runs what was posted so far; for handlers that must see a post made before their message was sent

  int64_t now_ms() const { return clock_.now_ms(); }
  const Clock& clock() const { return clock_; }
  uint64_t watch(int fd, uint32_t events, Ready ready);
  void rewatch(uint64_t watch, uint32_t events);
  void unwatch(uint64_t watch);
  TimerId at(int64_t due_ms, Callback fn);
  TimerId after(int64_t ms, Callback fn) { return at(now_ms() + ms, std::move(fn)); }
  void cancel(TimerId timer) { timers_.erase(timer); }
  void defer(Callback fn) { deferred_.push_back(std::move(fn)); }  // when the present callback has returned

 private:
  struct Watch {
    int fd;
    std::shared_ptr<Ready> ready;
  };
  int wait_ms() const;
  void run_timers();
  void run_deferred();

  const Clock& clock_;
  Fd epoll_, event_;
  std::unordered_map<uint64_t, Watch> watches_;
  std::map<TimerId, Callback> timers_;
  std::vector<Callback> deferred_;
  uint64_t next_id_ = 1;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::vector<Callback> inbox_;  // guarded by mutex_
};

}  // namespace baton::transfer
