// Server: one acceptor on the first I/O thread, which hands each new connection to the thread with the fewest. (SO_REUSEPORT
// would let the kernel spread them by hash: with a handful of long streams that leaves threads idle.)
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "net/connection.h"
#include "net/limits.h"
#include "net/listener.h"
#include "net/tls_context.h"

namespace baton::net {

struct Server::Impl {
  Impl(ServerOptions o, HandlerFactory factory) : options(std::move(o)), make_handler(std::move(factory)) {}

  Result<> bind();
  Task<> accept_loop();
  Result<> accept_one(ErrorCode ec, tcp::socket socket, ServerThread& thread);
  void run_thread(ServerThread& thread);
  int connection_count() const;
  void connection_ended(ServerThread& thread, bool away);
  void on_each_thread(void (*f)(ServerThread&));

  const ServerOptions options;
  HandlerFactory make_handler;
  std::vector<std::unique_ptr<ServerThread>> threads;
  std::vector<std::thread> os_threads;
  std::optional<tcp::acceptor> acceptor;  // used on threads[0] once that runs
  int bound_port = 0;
  std::atomic<int> in_flight{0};
  std::atomic<int> turned_away{0};  // being told so
  std::atomic<bool> closing{false};
  bool started = false, stopped = false;
  std::mutex mutex;
  std::condition_variable changed;  // a connection ended, or the acceptor did
  bool accepting = false;
};

Server::Server(ServerOptions options, HandlerFactory make_handler)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(make_handler))) {}
Server::~Server() { stop(Millis(0)); }
int Server::port() const { return impl_->bound_port; }
int Server::in_flight() const { return impl_->in_flight.load(); }

Result<> Server::Impl::bind() {
  BATON_TRY(auto bound, listen_on(threads[0]->scope.context(), options.host, options.port));
  acceptor.emplace(std::move(bound));
  ErrorCode ec;
  bound_port = acceptor->local_endpoint(ec).port();
  return {};
}

Result<> Server::start() {
  Impl& impl = *impl_;
  BATON_CHECK(!impl.started);
  for (int i = 0; i < std::max(1, impl.options.threads); ++i) {
    impl.threads.push_back(std::make_unique<ServerThread>(impl.options));
    impl.threads.back()->in_flight = &impl.in_flight;
  }
  if (auto bound = impl.bind(); !bound) {
    impl.acceptor.reset();
    impl.threads.clear();
    return bound;
  }
  impl.started = true;
  impl.accepting = true;
  for (auto& thread : impl.threads) {
    impl.os_threads.emplace_back([&impl, &thread = *thread] { impl.run_thread(thread); });
  }
  impl.threads[0]->scope.spawn_from_any([&impl] { return impl.accept_loop(); });
  return {};
}

void Server::Impl::run_thread(ServerThread& thread) {
  thread.scope.post([this, &thread] { thread.handler = make_handler(); });
  thread.scope.run();
  thread.handler = nullptr;  // per-thread state dies on its thread, before the loop it may hold sockets of
}

Task<> Server::Impl::accept_loop() {
  while (!closing) {
    ServerThread* thread = threads[0].get();
    for (auto& t : threads) {
      if (t->connection_count < thread->connection_count) thread = t.get();
    }
    auto [ec, socket] = co_await acceptor->async_accept(thread->scope.context(), kAwait);
    if (closing) break;
    if (auto accepted = accept_one(ec, std::move(socket), *thread); !accepted) {
      log_warn("cannot accept connections for a moment", "error={}", accepted.error().message);
      co_await sleep_for(kAcceptPause);
    }
  }
  ErrorCode ec;
  acceptor->close(ec);
  std::lock_guard lock(mutex);
  accepting = false;
  changed.notify_all();
}

Result<> Server::Impl::accept_one(ErrorCode ec, tcp::socket socket, ServerThread& thread) {
  if (accept_may_go_on(ec)) return {};
  if (ec) return fail(Code::kResourceExhausted, ec.message());
  const bool over = connection_count() >= options.connections_max;
  if (over && turned_away >= kTurnedAwayMax) return {};
  ++(over ? turned_away : thread.connection_count);
  asio::post(thread.scope.context(), [this, &thread, over, socket = std::move(socket)]() mutable {
    if (thread.scope.stopping()) return connection_ended(thread, over);
    auto tls = options.tls ? make_stream(*options.tls) : nullptr;
    auto connection = std::make_shared<Connection>(thread, Channel(std::move(socket), std::move(tls)));
    thread.scope.spawn([](Impl& impl, ServerThread& t, std::shared_ptr<Connection> c, bool away) -> Task<> {
      co_await (away ? c->turn_away() : c->run());
      c.reset();
      impl.connection_ended(t, away);
    }(*this, thread, std::move(connection), over));
  });
  return {};
}

int Server::Impl::connection_count() const {
  int n = 0;
  for (auto& t : threads) n += t->connection_count;
  return n;
}

void Server::Impl::connection_ended(ServerThread& thread, bool away) {
  if (away) {
    --turned_away;
    return;
  }
  if (--thread.connection_count == 0 || closing) {
    std::lock_guard lock(mutex);
    changed.notify_all();
  }
}

void Server::Impl::on_each_thread(void (*f)(ServerThread&)) {
  for (auto& thread : threads) thread->scope.post([f, &thread = *thread] { f(thread); });
}

void Server::stop(Millis grace) {
  Impl& impl = *impl_;
  if (!impl.started || std::exchange(impl.stopped, true)) return;
  impl.closing = true;
  impl.threads[0]->scope.post([&impl] {
    ErrorCode ec;
    impl.acceptor->cancel(ec);
  });
  std::unique_lock lock(impl.mutex);
  // First the acceptor, so that no connection arrives behind the drain order.
  impl.changed.wait(lock, [&] { return !impl.accepting; });
  lock.unlock();
  impl.on_each_thread([](ServerThread& thread) {
    thread.draining = true;
    for (Connection* c : thread.connections) c->drain();
  });
  lock.lock();
  impl.changed.wait_for(lock, grace, [&] { return impl.connection_count() == 0; });
  lock.unlock();
  impl.on_each_thread([](ServerThread& thread) {
    for (Connection* c : thread.connections) c->abort();
    thread.scope.stop();
  });
  for (auto& thread : impl.os_threads) thread.join();
  impl.threads.clear();
}

}  // namespace baton::net
