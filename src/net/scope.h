#pragma once
// Scope: one I/O thread's event loop, the gate that counts the tasks alive on it, and the hooks that end their waits when it
// stops. Requires: everything but post() and spawn_from_any() is called on the thread that runs it. Guarantees: run() returns
// once stop() was called and the gate is empty; a wait that holds a StopHook ends soon after stop(). StopHook: runs f when the
// scope stops, at once if it has stopped already; unhooks when destroyed. Event: wakes the one coroutine that waits on it.
// Deadline: one timer, armed lazily because most deadlines only ever move later.
#include <chrono>
#include <functional>
#include <list>
#include <memory>

#include "net/asio.h"
#include "net/buffer.h"
#include "net/http.h"

namespace baton::net {

class Scope {
 public:
  Scope() : context_(1), guard_(asio::make_work_guard(context_)) {}
  Scope(const Scope&) = delete;
  // The scope whose run() is on this thread's stack. Checked: calling net from a thread without a loop is our bug.
  static Scope& here();

  asio::io_context& context() { return context_; }
  bool stopping() const { return stopping_; }
  Buffer& spare() { return spare_; }  // empty; a block for whoever reads next
  void run(Millis gather = Millis(0));  // gather: see IoThread
  void stop();
  void spawn(Task<> task);
  void post(std::function<void()> f) { asio::post(context_, std::move(f)); }  // any thread
  void spawn_from_any(std::function<Task<>()> make);                          // any thread; dropped after stop()

 private:
  friend class StopHook;
  using Hooks = std::list<std::function<void()>>;
  void leave();
  asio::io_context context_;
  asio::executor_work_guard<asio::io_context::executor_type> guard_;
  std::shared_ptr<Hooks> hooks_ = std::make_shared<Hooks>();  // shared: a hook may outlive its scope
  Buffer spare_;
  int tasks_ = 0;
  bool stopping_ = false;
};

class StopHook {
 public:
  StopHook(Scope& scope, std::function<void()> f);
  ~StopHook();
  StopHook(const StopHook&) = delete;

 private:
  std::shared_ptr<Scope::Hooks> hooks_;
  Scope::Hooks::iterator at_;
};

class Event {
 public:
  Task<> wait();  // returns at once if set since the last wait
  void set();

 private:
  bool set_ = false;
  std::move_only_function<void()> waiter_;
};

class Deadline {
 public:
  Deadline(Scope& scope, std::function<void()> on_expiry);
  ~Deadline();
  Deadline(const Deadline&) = delete;
  void set(Millis from_now);
  void clear();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace baton::net
