#include <thread>

#include "net/scope.h"

namespace baton::net {

struct IoThread::Impl {
  explicit Impl(Millis gather) : thread([this, gather] { scope.run(gather); }) {}
  Scope scope;
  std::thread thread;
};

IoThread::IoThread(Millis gather) : impl_(std::make_unique<Impl>(gather)) {}
IoThread::~IoThread() { stop(); }
void IoThread::spawn(std::function<Task<>()> make) { impl_->scope.spawn_from_any(std::move(make)); }
void IoThread::post(std::function<void()> f) { impl_->scope.post(std::move(f)); }

void IoThread::stop() {
  if (!impl_->thread.joinable()) return;
  impl_->scope.post([this] { impl_->scope.stop(); });
  impl_->thread.join();
}

}  // namespace baton::net
