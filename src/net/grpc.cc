// GrpcServer: one acceptor on the first I/O thread, which hands each connection to the thread with the fewest (a proxy opens one
// connection for each of its workers).
#include "net/grpc.h"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "net/grpc_call.h"
#include "net/listener.h"
#include "net/tls_context.h"
#include "net/tune.h"

namespace baton::net {

struct GrpcServer::Impl {
  Impl(GrpcServerOptions o, std::function<GrpcHandlerFactory()> f) : options(std::move(o)), make(std::move(f)) {}
  Task<> accept_loop();
  void accepted(tcp::socket socket, GrpcThread& thread);
  void run_thread(GrpcThread& thread);
  int connection_count() const;
  void connection_gone(GrpcThread& thread);
  void on_each_thread(void (*f)(GrpcThread&));

  const GrpcServerOptions options;
  std::function<GrpcHandlerFactory()> make;
  std::vector<std::unique_ptr<GrpcThread>> threads;
  std::vector<std::thread> os_threads;
  std::optional<tcp::acceptor> acceptor;  // used on threads[0] once that runs
  int bound_port = 0;
  std::atomic<bool> closing{false};
  bool started = false, stopped = false;
  std::mutex mutex;
  std::condition_variable changed;  // a connection ended, or the acceptor did
  bool accepting = false;
};

GrpcServer::GrpcServer(GrpcServerOptions options, std::function<GrpcHandlerFactory()> make)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(make))) {}
GrpcServer::~GrpcServer() { stop(Millis(0)); }
int GrpcServer::port() const { return impl_->bound_port; }

int GrpcServer::calls_in_flight() const {
  int n = 0;
  for (auto& t : impl_->threads) n += t->calls;
  return n;
}

Result<> GrpcServer::start() {
  Impl& impl = *impl_;
  BATON_CHECK(!impl.started);
  std::vector<std::unique_ptr<GrpcThread>> threads;
  for (int i = 0; i < std::max(1, impl.options.threads); ++i) {
    auto thread = std::make_unique<GrpcThread>(impl.options);
    thread->loop = std::make_unique<H2Loop>(thread->scope);
    thread->inbox = std::make_shared<GrpcInbox>(thread->scope);
    thread->on_connection_gone = [&impl, t = thread.get()] { impl.connection_gone(*t); };
    threads.push_back(std::move(thread));
  }
  BATON_TRY(auto acceptor, listen_on(threads[0]->scope.context(), impl.options.host, impl.options.port));
  ErrorCode ec;
  impl.bound_port = acceptor.local_endpoint(ec).port();
  impl.acceptor.emplace(std::move(acceptor));
  impl.threads = std::move(threads);
  impl.started = impl.accepting = true;
  for (auto& t : impl.threads) impl.os_threads.emplace_back([&impl, &thread = *t] { impl.run_thread(thread); });
  impl.threads[0]->scope.spawn_from_any([&impl] { return impl.accept_loop(); });
  return {};
}

void GrpcServer::Impl::run_thread(GrpcThread& thread) {
  thread.scope.post([this, &thread] { thread.factory = make(); });
  thread.scope.run();
  thread.factory = nullptr;  // per-thread state dies on its thread
}

Task<> GrpcServer::Impl::accept_loop() {
  while (!closing) {
    GrpcThread* thread = threads[0].get();
    for (auto& t : threads) {
      if (t->connections < thread->connections) thread = t.get();
    }
    auto [ec, socket] = co_await acceptor->async_accept(thread->scope.context(), kAwait);
    if (closing) break;
    if (!ec) {
      accepted(std::move(socket), *thread);
    } else if (!accept_may_go_on(ec)) {
      log_warn("cannot accept connections for a moment", "error={}", ec.message());
      co_await sleep_for(kAcceptPause);
    }
  }
  ErrorCode ec;
  acceptor->close(ec);
  std::lock_guard lock(mutex);
  accepting = false;
  changed.notify_all();
}

void GrpcServer::Impl::accepted(tcp::socket socket, GrpcThread& thread) {
  if (connection_count() >= options.connections_max) {
    log_debug("too many connections, one closed at accept", "max={}", options.connections_max);
    return;
  }
  ++thread.connections;
  asio::post(thread.scope.context(), [this, &thread, s = std::move(socket)]() mutable {
    if (thread.draining || thread.scope.stopping()) return connection_gone(thread);
    tune(s);
    auto tls = options.tls ? make_stream(*options.tls) : nullptr;
    auto connection = std::make_shared<GrpcConnection>(thread, Channel(std::move(s), std::move(tls)));
    connection->start();
  });
}

int GrpcServer::Impl::connection_count() const {
  int n = 0;
  for (auto& t : threads) n += t->connections;
  return n;
}

void GrpcServer::Impl::connection_gone(GrpcThread& thread) {
  if (--thread.connections > 0 && !closing) return;
  std::lock_guard lock(mutex);
  changed.notify_all();
}

void GrpcServer::Impl::on_each_thread(void (*f)(GrpcThread&)) {
  for (auto& t : threads) t->scope.post([f, &thread = *t] { f(thread); });
}

void GrpcServer::stop(Millis grace) {
  Impl& impl = *impl_;
  if (!impl.started || std::exchange(impl.stopped, true)) return;
  impl.closing = true;
  impl.threads[0]->scope.post([&impl] {
    ErrorCode ec;
    impl.acceptor->cancel(ec);
  });
  std::unique_lock lock(impl.mutex);
  impl.changed.wait(lock, [&] { return !impl.accepting; });  // first, so that no connection arrives behind the drain order
  lock.unlock();
  impl.on_each_thread([](GrpcThread& thread) {
    thread.draining = true;
    for (auto& c : std::vector(thread.loop->connections)) c->drain();
  });
  lock.lock();
  impl.changed.wait_for(lock, grace, [&] { return impl.connection_count() == 0; });
  lock.unlock();
  impl.on_each_thread([](GrpcThread& thread) {
    for (auto& c : std::vector(thread.loop->connections)) c->abort();
    thread.inbox->close();
    thread.scope.stop();
  });
  for (auto& thread : impl.os_threads) thread.join();
}

}  // namespace baton::net
