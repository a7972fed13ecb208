#include "net/scope.h"

#include <ctime>

#include "base/log.h"
#include "net/pace.h"

namespace baton::net {
namespace {

// Which loop runs on this thread: what spawn_here() and a Mailbox mean by "here". Set only inside Scope::run().
thread_local Scope* scope_here = nullptr;

// Holds the closure while its coroutine runs: a lambda coroutine's captures live in the closure, not in the frame.
Task<> keep(std::function<Task<>()> make) { co_await make(); }

// A task that throws is a bug in the task: everything it calls returns errors as values.
void check_no_exception(std::exception_ptr e) {
  if (!e) return;
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& error) {
    log_error("a task threw an exception", "what={}", error.what());
  } catch (...) {
    log_error("a task threw something that is no std::exception");
  }
  std::abort();
}

}  // namespace

Scope& Scope::here() {
  BATON_CHECK(scope_here != nullptr);
  return *scope_here;
}

void Scope::run(Millis gather) {
  Scope* outer = std::exchange(scope_here, this);
  if (gather > Millis(0)) {
    const timespec pause{gather.count() / 1000, gather.count() % 1000 * 1'000'000};
    while (context_.run_one() > 0) {
      context_.poll();
      if (!context_.stopped()) ::nanosleep(&pause, nullptr);
      context_.poll();
    }
  } else {
    context_.run();
  }
  scope_here = outer;
}

void Scope::stop() {
  if (stopping_) return;
  stopping_ = true;
  // A hook cancels or posts; it resumes nobody from here, so the list cannot change under us.
  for (auto& f : *hooks_) f();
  if (tasks_ == 0) context_.stop();
}

void Scope::spawn(Task<> task) {
  ++tasks_;
  asio::co_spawn(context_, std::move(task), [this](std::exception_ptr e) {
    check_no_exception(e);
    leave();
  });
}

void Scope::spawn_from_any(std::function<Task<>()> make) {
  asio::post(context_, [this, make = std::move(make)]() mutable {
    if (!stopping_) spawn(keep(std::move(make)));
  });
}

void Scope::leave() {
  // context_.stop() rather than waiting for an idle loop: a name look-up that hangs in getaddrinfo must not hold the thread.
  if (--tasks_ == 0 && stopping_) context_.stop();
}

StopHook::StopHook(Scope& scope, std::function<void()> f) : hooks_(scope.hooks_) {
  at_ = hooks_->insert(hooks_->end(), std::move(f));
  if (scope.stopping_) (*at_)();
}

StopHook::~StopHook() { hooks_->erase(at_); }

Task<> Event::wait() {
  if (!set_) {
    co_await asio::async_initiate<decltype(asio::use_awaitable), void()>([this](auto handler) { waiter_ = std::move(handler); },
                                                                         asio::use_awaitable);
  }
  set_ = false;
}

void Event::set() {
  if (set_) return;
  set_ = true;
  if (waiter_) asio::post(Scope::here().context(), std::exchange(waiter_, nullptr));
}

struct Deadline::State : std::enable_shared_from_this<Deadline::State> {
  using Time = std::chrono::steady_clock::time_point;
  State(Scope& scope, std::function<void()> f) : timer(scope.context()), on_expiry(std::move(f)) {}

  void arm(Time at) {
    armed = at;
    timer.expires_at(at);
    timer.async_wait([self = shared_from_this()](ErrorCode ec) {
      if (!ec) self->fired();
    });
  }
  void fired() {
    armed = Time::max();
    if (!on_expiry || deadline == Time::max()) return;
    if (std::chrono::steady_clock::now() < deadline) return arm(deadline);
    deadline = Time::max();
    auto f = on_expiry;  // it may destroy this deadline
    f();
  }

  asio::steady_timer timer;
  std::function<void()> on_expiry;
  Time deadline = Time::max();
  Time armed = Time::max();
};

Deadline::Deadline(Scope& scope, std::function<void()> on_expiry)
    : state_(std::make_shared<State>(scope, std::move(on_expiry))) {}

Deadline::~Deadline() {
  state_->on_expiry = nullptr;
  state_->timer.cancel();
}

void Deadline::set(Millis from_now) {
  state_->deadline = std::chrono::steady_clock::now() + from_now;
  if (state_->deadline < state_->armed) state_->arm(state_->deadline);
}

void Deadline::clear() { state_->deadline = State::Time::max(); }

namespace {
Task<> sleep_until(std::chrono::steady_clock::time_point end, Cancel* cancel) {
  Scope& scope = Scope::here();
  asio::steady_timer timer(scope.context(), end);
  StopHook hook(scope, [&timer] { timer.cancel(); });
  std::shared_ptr<void> cancelled;
  if (cancel) cancelled = cancel->on_cancel([&timer] { timer.cancel(); });
  co_await timer.async_wait(kAwait);
}
}  // namespace

Task<> sleep_for(Millis duration, Cancel* cancel) {
  Scope& scope = Scope::here();
  if (scope.stopping() || (cancel && cancel->cancelled())) co_return;
  // Only a turn of the loop: arming the kernel's timer costs 20 us on a virtual machine, far more than the turn.
  if (duration <= Millis(0)) co_return co_await asio::post(scope.context(), asio::use_awaitable);
  co_await sleep_until(std::chrono::steady_clock::now() + duration, cancel);
}

Task<> sleep_until_beat(Millis period, Millis phase) {
  if (Scope::here().stopping()) co_return;
  const std::chrono::nanoseconds step = std::max(period, Millis(1)), behind = phase;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const auto next = ((now - behind) / step + 1) * step + behind;
  co_await sleep_until(std::chrono::steady_clock::time_point(next), nullptr);
}

void spawn_here(Task<> task) { Scope::here().spawn(std::move(task)); }

void run_task(std::function<Task<>()> make) {
  Scope scope;
  scope.spawn([](Scope& s, std::function<Task<>()> body) -> Task<> {
    co_await body();
    s.stop();
  }(scope, std::move(make)));
  scope.run();
}

}  // namespace baton::net
