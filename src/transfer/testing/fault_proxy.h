#pragma once
// FaultProxy: a TCP proxy on loopback that does one armed fault at a byte position of one direction: cut, stall, flip a bit, drop
// bytes, or trickle (forward a few bytes at a time). Positions count from arm(). Owner: the test; its own thread does the I/O.
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/prng.h"
#include "transfer/socket.h"

namespace baton::transfer::testing {

struct Fault {
  enum class Kind : uint8_t { kCut, kStall, kFlip, kDrop, kTrickle } kind{};
  bool to_consumer = true;  // direction; a stall holds both
  size_t after = 0;         // bytes that pass before it
  size_t length = 1;        // kDrop, kTrickle: bytes it lasts
};
std::string describe(const Fault& fault);

class FaultProxy {
 public:
  FaultProxy(int target_port, uint64_t seed);
  ~FaultProxy();
  int port() const { return port_; }
  std::string address() const { return cat("127.0.0.1:", port_); }
  void arm(Fault fault);
  bool wait_triggered();  // false: a minute passed
  void clear();           // disarms, and ends a stall

 private:
  struct Pipe {
    int from = -1, to = -1;
    bool to_consumer = false;
    std::string pending;
  };
  struct Pair {
    Fd consumer, producer;
    Pipe pipes[2];
    bool dead = false;
  };
  void run();
  void accept_one();
  bool pump(Pipe& pipe, bool readable);
  bool apply(Pipe& pipe, std::string bytes);
  void wake();

  int target_port_, port_ = 0;
  Prng prng_;
  Fd listener_, wake_read_, wake_write_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  std::mutex mutex_;
  std::condition_variable triggered_cv_;
  std::optional<Fault> fault_;  // guarded by mutex_, as is all below
  size_t seen_ = 0, trickle_ = 0, drop_ = 0;
  bool stalled_ = false, triggered_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace baton::transfer::testing
