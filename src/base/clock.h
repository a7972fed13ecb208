#pragma once
// Clock: monotonic nanoseconds, injected so that tests and the simulator own time. Any thread may call now_ns().
#include <atomic>
#include <chrono>
#include <cstdint>

namespace baton {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t now_ns() const = 0;
  int64_t now_us() const { return now_ns() / 1000; }
  int64_t now_ms() const { return now_ns() / 1'000'000; }
  double now_s() const { return static_cast<double>(now_ns()) * 1e-9; }
};

class SteadyClock final : public Clock {
 public:
  int64_t now_ns() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
};

class ManualClock final : public Clock {
 public:
  int64_t now_ns() const override { return now_ns_.load(); }
  void advance_ns(int64_t ns) { now_ns_ += ns; }
  void advance_ms(int64_t ms) { now_ns_ += ms * 1'000'000; }

 private:
  std::atomic<int64_t> now_ns_{0};
};

// Seconds since 1970, for `created` fields and logs only; never for intervals.
inline int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace baton
