#pragma once
// Accepting: the I/O threads of a server, the acceptor on the first of them, which hands each new connection to the thread with
// the fewest, and their end in order: nothing more accepted, drained, waited for, aborted. (SO_REUSEPORT would let the kernel
// spread connections by hash: with a handful of long streams that leaves threads idle.)
// Thread: what one thread's connections share; has a `Scope scope` and a `std::atomic<int> connection_count`.
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/log.h"
#include "net/http.h"
#include "net/limits.h"
#include "net/listener.h"
#include "net/scope.h"

namespace baton::net {

template <class Thread>
class Accepting {
 public:
  struct Does {
    std::function<void(tcp::socket, Thread&)> accepted;  // on the first thread; counts the connection, or drops it
    std::function<void(Thread&)> begin, end;             // on each thread, around its loop: its state dies on it
    std::function<void(Thread&)> drain, abort;           // on each thread; abort ends in scope.stop()
  };

  // The threads have no work yet. At an error nothing was started.
  Result<> start(std::vector<std::unique_ptr<Thread>> threads, const std::string& host, int port, Does does) {
    BATON_TRY(auto acceptor, listen_on(threads[0]->scope.context(), host, port));
    ErrorCode ec;
    port_ = acceptor.local_endpoint(ec).port();
    acceptor_.emplace(std::move(acceptor));
    threads_ = std::move(threads);
    does_ = std::move(does);
    started_ = accepting_ = true;
    for (auto& t : threads_) {
      os_threads_.emplace_back([this, &thread = *t] {
        thread.scope.post([this, &thread] { does_.begin(thread); });
        thread.scope.run();
        does_.end(thread);
      });
    }
    threads_[0]->scope.spawn_from_any([this] { return accept_loop(); });
    return {};
  }

  bool started() const { return started_; }
  bool closing() const { return closing_; }
  int port() const { return port_; }
  const std::vector<std::unique_ptr<Thread>>& threads() const { return threads_; }
  int connection_count() const {
    int n = 0;
    for (auto& t : threads_) n += t->connection_count;
    return n;
  }
  void ended(Thread& thread) {  // one of its connections; any thread
    if (--thread.connection_count > 0 && !closing_) return;
    std::lock_guard lock(mutex_);
    changed_.notify_all();
  }

  void stop(Millis grace) {  // once; later calls do nothing
    if (!started_ || std::exchange(stopped_, true)) return;
    closing_ = true;
    threads_[0]->scope.post([this] {
      ErrorCode ec;
      acceptor_->cancel(ec);
    });
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !accepting_; });  // first, so that no connection arrives behind the drain order
    lock.unlock();
    on_each(does_.drain);
    lock.lock();
    changed_.wait_for(lock, grace, [this] { return connection_count() == 0; });
    lock.unlock();
    on_each(does_.abort);
    for (auto& thread : os_threads_) thread.join();
  }

 private:
  void on_each(const std::function<void(Thread&)>& f) {
    for (auto& t : threads_) t->scope.post([&f, &thread = *t] { f(thread); });
  }

  Task<> accept_loop() {
    while (!closing_) {
      Thread* thread = threads_[0].get();
      for (auto& t : threads_) {
        if (t->connection_count < thread->connection_count) thread = t.get();
      }
      auto [ec, socket] = co_await acceptor_->async_accept(thread->scope.context(), kAwait);
      if (closing_) break;
      if (!ec) {
        does_.accepted(std::move(socket), *thread);
      } else if (!accept_may_go_on(ec)) {
        log_warn("cannot accept connections for a moment", "error={}", ec.message());
        co_await sleep_for(kAcceptPause);
      }
    }
    ErrorCode ec;
    acceptor_->close(ec);
    std::lock_guard lock(mutex_);
    accepting_ = false;
    changed_.notify_all();
  }

  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<std::thread> os_threads_;
  std::optional<tcp::acceptor> acceptor_;  // used on the first thread once that runs
  Does does_;
  int port_ = 0;
  std::atomic<bool> closing_{false};
  bool started_ = false, stopped_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;  // a connection ended, or the acceptor did
  bool accepting_ = false;           // guarded by mutex_
};

}  // namespace baton::net
