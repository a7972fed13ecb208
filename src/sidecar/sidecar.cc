#include "sidecar/sidecar.h"

#include <cstdlib>

#include <sys/resource.h>

#include <thread>

#include "base/log.h"
#include "net/otlp.h"
#include "sidecar/connector.h"
#include "sidecar/limits.h"
#include "wire/headers.h"

namespace baton::sidecar {
namespace {

// A stream holds two connections.
void raise_file_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

net::Task<> answer_health(const Engine& engine, net::ResponseWriter& writer) {
  if (engine.ready) {
    (void)co_await writer.send({.status = 200, .headers = {}, .body = {}});
  } else {
    (void)co_await writer.send(net::Response::json(503, error_body(503, "the decode engine is not ready")));
  }
}

// Knows the engine's state before anybody asks.
net::Task<> watch_engine(Shared& shared, Engine& engine) {
  net::Client client;
  for (bool first = true;; first = false) {
    net::Call call;
    call.host = engine.at.host, call.port = engine.at.port, call.tls = shared.tls.decoder;
    if (call.tls && call.host == "127.0.0.1") call.server_name = "localhost";
    call.target = "/health";
    call.connect_timeout = call.first_byte_timeout = call.idle_timeout = kHealthTimeout;
    auto response = co_await client.fetch(call);
    if (!response && response.error().code == Code::kCancelled) co_return;  // we stop
    bool ready = response && response->status == 200;
    auto can = ready ? response->headers.get(wire::kCapabilities) : std::nullopt;
    if (&engine == &shared.engines[0]) {
      shared.engine_takes_push = can && can->find(wire::kCapabilityPush) != std::string_view::npos;
    }
    if (bool before = engine.ready.exchange(ready); before != ready || first) {
      if (ready) {
        log_info("engine is ready", "engine={}:{}", call.host, call.port);
      } else {
        log_warn("engine is not ready", "engine={}:{} why={}", call.host, call.port,
                 response ? cat("status ", response->status) : response.error().message);
      }
    }
    co_await net::sleep_for(ready ? kHealthPeriod : kHealthPeriodUnwell);
  }
}

net::Handler make_proxy(Shared& shared, size_t rank) {
  auto local = std::make_shared<Local>(net::Client(shared.config.idle_connections_max),
                                       find_connector(shared.config.connector)->make(shared.config), rank);
  return [&shared, local](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
    bool probe = request.path == "/health" && (request.method == "GET" || request.method == "HEAD");
    if (probe) co_return co_await answer_health(shared.engines[local->rank], writer);
    Exchange exchange(shared, *local, request, writer);
    co_await exchange.run();
  };
}

net::Handler make_metrics(Shared& shared) {
  return [&shared](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
    if (request.path == "/health") co_return co_await answer_health(shared.engines[0], writer);
    if (request.path != "/metrics") {
      (void)co_await writer.send(net::Response::json(404, error_body(404, "only /metrics and /health are here")));
      co_return;
    }
    (void)co_await writer.send(
        {.status = 200, .headers = {{"content-type", std::string(Metrics::kContentType)}}, .body = shared.metrics.text()});
  };
}

net::ServerOptions server_options(const SidecarConfig& config, int port, int threads) {
  net::ServerOptions options;
  options.host = config.host;
  options.port = port;
  options.threads = threads;
  options.header_bytes_max = kRequestHeaderBytesMax;
  options.body_bytes_max = static_cast<size_t>(config.body_bytes_max);
  options.connections_max = kConnectionsMax;
  return options;
}

}  // namespace

struct Sidecar::State {
  explicit State(SidecarConfig config)
      : shared(std::move(config)),
        metrics(server_options(shared.config, shared.config.metrics_port, 1), [this] { return make_metrics(shared); }) {}

  Result<> start_tracing() {
    if (!shared.config.tracing) return {};
    BATON_TRY(const net::OtlpConfig otlp, net::otlp_config([](const char* name) { return std::getenv(name); },
                                                           "llm-d-disagg-sidecar", "parentbased_traceidratio", "0.1"));
    BATON_TRY(tracing, net::Tracing::make(otlp, clock));
    shared.tracer = tracing->tracer();
    return {};
  }

  Result<> listen(std::shared_ptr<net::TlsServer> tls) {
    for (size_t rank = 0; rank < shared.engines.size(); ++rank) {
      // Rank 0 may take any free port; the others then lie beside it, as the gateway expects.
      int port = rank == 0 ? shared.config.port : proxies[0]->port() + static_cast<int>(rank);
      net::ServerOptions options = server_options(shared.config, port, shared.config.io_threads);
      options.tls = tls;
      proxies.push_back(std::make_unique<net::Server>(options, [this, rank] { return make_proxy(shared, rank); }));
      BATON_OK(proxies.back()->start());
      if (rank == 0) shared.port = proxies[0]->port();
    }
    return {};
  }

  SteadyClock clock;
  std::unique_ptr<net::Tracing> tracing;  // outlives the exchanges
  Shared shared;
  std::vector<std::unique_ptr<net::Server>> proxies;  // by rank
  net::Server metrics;
  net::IoThread watcher;
};

Sidecar::Sidecar(SidecarConfig config) : state_(std::make_unique<State>(std::move(config))) {}
Sidecar::~Sidecar() { stop(); }
int Sidecar::port() const { return state_->proxies.empty() ? 0 : state_->proxies[0]->port(); }
int Sidecar::metrics_port() const { return state_->metrics.port(); }
bool Sidecar::engine_ready() const { return state_->shared.engines[0].ready; }

Result<> Sidecar::start() {
  Shared& shared = state_->shared;
  const SidecarConfig& config = shared.config;
  BATON_OK(config.check());
  BATON_OK(state_->start_tracing());
  raise_file_limit();
  if (auto instead = find_connector(config.connector)->instead_of; !instead.empty()) {
    log_warn("deprecated connector", "name={} use={}", config.connector, instead);
  }
  BATON_TRY(shared.tls, make_worker_tls(config));
  std::shared_ptr<net::TlsServer> tls;
  if (config.secure_proxy) {
    BATON_TRY(tls,
              net::TlsServer::make({.cert_dir = config.cert_path, .reload = true, .min_version = "1.2", .alpn = {"http/1.1"}}));
  }
  BATON_OK(shared.allowed.start(kPoolSyncWait));
  BATON_OK(state_->listen(tls));
  if (config.metrics_port != 0) BATON_OK(state_->metrics.start());
  for (Engine& engine : shared.engines) state_->watcher.spawn([&] { return watch_engine(shared, engine); });
  if (shared.resolver->needed()) state_->watcher.spawn([&] { return shared.resolver->run(); });
  log_info("sidecar is listening", "address={}:{} tls={} engine={} ranks={} connector={} on_prefill_failure={}", config.host,
           port(), config.secure_proxy, shared.engines[0].at.text(), shared.engines.size(), config.connector,
           config.on_prefill_failure);
  return {};
}

void Sidecar::stop() {
  std::vector<std::thread> draining;  // at the same time: they share one grace
  for (auto& proxy : state_->proxies) {
    draining.emplace_back([&] { proxy->stop(net::Millis(state_->shared.config.drain_timeout_ms)); });
  }
  for (auto& thread : draining) thread.join();
  state_->metrics.stop(net::Millis(0));
  state_->watcher.stop();
  state_->shared.allowed.stop();
  if (state_->tracing) state_->tracing->stop();
}

}  // namespace baton::sidecar
