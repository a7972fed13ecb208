#pragma once
// Mailbox<T>: values from any thread to one coroutine on an I/O thread. The engine's step thread pushes tokens; the HTTP handler
// pops. Requires: one consumer, which made the Mailbox on its own I/O thread (it captures that executor). Guarantees: push never
// blocks and never runs consumer code; values come in push order; close() wakes the consumer, which drains what is left and then
// gets nullopt; a consumer that has the last value may end the Mailbox while its push() still returns. Bounded by what is pushed:
// producers bound themselves (a request has at most max_tokens).
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "net/http.h"

namespace baton::net {

namespace detail {
class Wakeup {  // hides the asio timer that a coroutine waits on
 public:
  Wakeup();
  void notify();      // any thread; coalesced
  Task<bool> wait();  // consumer thread; false if its thread is stopping
 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};
}  // namespace detail

template <class T>
class Mailbox {
 public:
  void push(T value) {
    auto wakeup = wakeup_;  // once the value is seen, the consumer may end, and this mailbox with it
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      queue_.push_back(std::move(value));
    }
    wakeup.notify();
  }
  void close() {
    auto wakeup = wakeup_;
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    wakeup.notify();
  }
  std::optional<T> try_pop() {
    std::lock_guard lock(mutex_);
    if (queue_.empty()) return std::nullopt;
    T value = std::move(queue_.front());
    queue_.pop_front();
    return value;
  }
  // The next value; nullopt once closed and empty, or when the thread stops.
  Task<std::optional<T>> pop() {
    for (;;) {
      {
        std::lock_guard lock(mutex_);
        if (!queue_.empty()) {
          T value = std::move(queue_.front());
          queue_.pop_front();
          co_return value;
        }
        if (closed_) co_return std::nullopt;
      }
      if (!co_await wakeup_.wait()) co_return std::nullopt;
    }
  }

 private:
  std::mutex mutex_;
  std::deque<T> queue_;
  bool closed_ = false;
  detail::Wakeup wakeup_;
};

}  // namespace baton::net
