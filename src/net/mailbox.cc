#include "net/mailbox.h"

#include "net/scope.h"

namespace baton::net::detail {

struct Wakeup::Impl {
  std::mutex mutex;
  bool notified = false;
  std::move_only_function<void()> waiter;
  asio::io_context* context = nullptr;  // the waiter's; alive while it waits, because its task holds the gate

  void notify() {
    std::move_only_function<void()> resume;
    {
      std::lock_guard lock(mutex);
      notified = true;
      if (!waiter) return;
      resume = std::exchange(waiter, nullptr);
      // Posted under the lock: once the waiter has run, its thread may end and take the loop with it.
      asio::post(*context, std::move(resume));
    }
  }
};

Wakeup::Wakeup() : impl_(std::make_shared<Impl>()) {}
void Wakeup::notify() { impl_->notify(); }

Task<bool> Wakeup::wait() {
  Scope& scope = Scope::here();
  auto impl = impl_;
  StopHook hook(scope, [impl] { impl->notify(); });
  co_await asio::async_initiate<decltype(asio::use_awaitable), void()>(
      [impl, &scope](auto handler) {
        std::lock_guard lock(impl->mutex);
        impl->context = &scope.context();
        if (impl->notified) {
          asio::post(scope.context(), std::move(handler));
        } else {
          impl->waiter = std::move(handler);
        }
      },
      asio::use_awaitable);
  std::lock_guard lock(impl->mutex);
  impl->notified = false;
  co_return !scope.stopping();
}

}  // namespace baton::net::detail
