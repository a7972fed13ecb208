#pragma once
// Resolver: names to addresses on a thread of its own, because getaddrinfo blocks for seconds when DNS is down and leases do not
// wait. Numeric addresses are answered without the thread. The answer comes on the loop's thread, unless the ticket was dropped
// before.
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "transfer/socket.h"

namespace baton::transfer {

class Resolver {
 public:
  using Answer = std::function<void(Result<std::vector<Address>>)>;
  explicit Resolver(Loop& loop) : loop_(loop) {}
  ~Resolver();
  uint64_t ask(const HostPort& where, Answer answer);
  void drop(uint64_t ticket) { answers_.erase(ticket); }

 private:
  void run();
  void deliver(uint64_t ticket, Result<std::vector<Address>> addresses);
  Loop& loop_;
  uint64_t next_ticket_ = 1;
  std::unordered_map<uint64_t, Answer> answers_;  // the loop's thread
  std::mutex mutex_;
  std::condition_variable asked_;
  std::deque<std::pair<uint64_t, HostPort>> questions_;  // guarded by mutex_
  bool stop_ = false;                                    // guarded by mutex_
  std::thread thread_;                                   // started by the first name
};

}  // namespace baton::transfer
