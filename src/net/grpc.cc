// GrpcServer: gRPC connections on the threads of net/accepting.h (a proxy opens one connection for each of its workers).
#include "net/grpc.h"

#include "net/accepting.h"
#include "net/grpc_call.h"
#include "net/tls_context.h"
#include "net/tune.h"

namespace baton::net {

struct GrpcServer::Impl {
  Impl(GrpcServerOptions o, std::function<GrpcHandlerFactory()> f) : options(std::move(o)), make(std::move(f)) {}
  void accepted(tcp::socket socket, GrpcThread& thread);

  const GrpcServerOptions options;
  std::function<GrpcHandlerFactory()> make;
  Accepting<GrpcThread> accepting;
};

GrpcServer::GrpcServer(GrpcServerOptions options, std::function<GrpcHandlerFactory()> make)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(make))) {}
GrpcServer::~GrpcServer() { stop(Millis(0)); }
int GrpcServer::port() const { return impl_->accepting.port(); }

int GrpcServer::calls_in_flight() const {
  int n = 0;
  for (auto& t : impl_->accepting.threads()) n += t->calls;
  return n;
}

Result<> GrpcServer::start() {
  Impl& impl = *impl_;
  BATON_CHECK(!impl.accepting.started());
  std::vector<std::unique_ptr<GrpcThread>> threads;
  for (int i = 0; i < std::max(1, impl.options.threads); ++i) {
    auto thread = std::make_unique<GrpcThread>(impl.options);
    thread->loop = std::make_unique<H2Loop>(thread->scope);
    thread->inbox = std::make_shared<GrpcInbox>(thread->scope);
    thread->on_connection_gone = [&impl, t = thread.get()] { impl.accepting.ended(*t); };
    threads.push_back(std::move(thread));
  }
  return impl.accepting.start(std::move(threads), impl.options.host, impl.options.port,
                              {.accepted = [&impl](tcp::socket s, GrpcThread& thread) { impl.accepted(std::move(s), thread); },
                               .begin = [&impl](GrpcThread& thread) { thread.factory = impl.make(); },
                               .end = [](GrpcThread& thread) { thread.factory = nullptr; },
                               .drain =
                                   [](GrpcThread& thread) {
                                     thread.draining = true;
                                     for (auto& c : std::vector(thread.loop->connections)) c->drain();
                                   },
                               .abort =
                                   [](GrpcThread& thread) {
                                     for (auto& c : std::vector(thread.loop->connections)) c->abort();
                                     thread.inbox->close();
                                     thread.scope.stop();
                                   }});
}

void GrpcServer::stop(Millis grace) { impl_->accepting.stop(grace); }

void GrpcServer::Impl::accepted(tcp::socket socket, GrpcThread& thread) {
  if (accepting.connection_count() >= options.connections_max) {
    log_debug("too many connections, one closed at accept", "max={}", options.connections_max);
    return;
  }
  ++thread.connection_count;
  asio::post(thread.scope.context(), [this, &thread, s = std::move(socket)]() mutable {
    if (thread.draining || thread.scope.stopping()) return accepting.ended(thread);
    tune(s);
    auto tls = options.tls ? make_stream(*options.tls) : nullptr;
    auto connection = std::make_shared<GrpcConnection>(thread, Channel(std::move(s), std::move(tls)));
    connection->start();
  });
}

}  // namespace baton::net
