// Server: HTTP connections on the threads of net/accepting.h.
#include "net/accepting.h"
#include "net/connection.h"
#include "net/tls_context.h"

namespace baton::net {

struct Server::Impl {
  Impl(ServerOptions o, HandlerFactory factory) : options(std::move(o)), make_handler(std::move(factory)) {}
  void accepted(tcp::socket socket, ServerThread& thread);
  void ended(ServerThread& thread, bool away);

  const ServerOptions options;
  HandlerFactory make_handler;
  std::atomic<int> in_flight{0};
  std::atomic<int> turned_away{0};  // being told so
  Accepting<ServerThread> accepting;
};

Server::Server(ServerOptions options, HandlerFactory make_handler)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(make_handler))) {}
Server::~Server() { stop(Millis(0)); }
int Server::port() const { return impl_->accepting.port(); }
int Server::in_flight() const { return impl_->in_flight.load(); }

Result<> Server::start() {
  Impl& impl = *impl_;
  BATON_CHECK(!impl.accepting.started());
  std::vector<std::unique_ptr<ServerThread>> threads;
  for (int i = 0; i < std::max(1, impl.options.threads); ++i) {
    threads.push_back(std::make_unique<ServerThread>(impl.options));
    threads.back()->in_flight = &impl.in_flight;
  }
  return impl.accepting.start(std::move(threads), impl.options.host, impl.options.port,
                              {.accepted = [&impl](tcp::socket s, ServerThread& thread) { impl.accepted(std::move(s), thread); },
                               .begin = [&impl](ServerThread& thread) { thread.handler = impl.make_handler(); },
                               .end = [](ServerThread& thread) { thread.handler = nullptr; },  // before the loop it may hold sockets of
                               .drain =
                                   [](ServerThread& thread) {
                                     thread.draining = true;
                                     for (Connection* c : thread.connections) c->drain();
                                   },
                               .abort =
                                   [](ServerThread& thread) {
                                     for (Connection* c : thread.connections) c->abort();
                                     thread.scope.stop();
                                   }});
}

void Server::stop(Millis grace) { impl_->accepting.stop(grace); }

void Server::Impl::accepted(tcp::socket socket, ServerThread& thread) {
  const bool over = accepting.connection_count() >= options.connections_max;
  if (over && turned_away >= kTurnedAwayMax) return;
  ++(over ? turned_away : thread.connection_count);
  asio::post(thread.scope.context(), [this, &thread, over, s = std::move(socket)]() mutable {
    if (thread.scope.stopping()) return ended(thread, over);
    auto tls = options.tls ? make_stream(*options.tls) : nullptr;
    auto connection = std::make_shared<Connection>(thread, Channel(std::move(s), std::move(tls)));
    thread.scope.spawn([](Impl& impl, ServerThread& t, std::shared_ptr<Connection> c, bool away) -> Task<> {
      co_await (away ? c->turn_away() : c->run());
      c.reset();
      impl.ended(t, away);
    }(*this, thread, std::move(connection), over));
  });
}

void Server::Impl::ended(ServerThread& thread, bool away) {
  if (!away) return accepting.ended(thread);
  --turned_away;
}

}  // namespace baton::net
