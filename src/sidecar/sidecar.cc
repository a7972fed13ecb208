#include "sidecar/sidecar.h"

#include "base/log.h"
#include "sidecar/connector.h"
#include "sidecar/limits.h"

namespace baton::sidecar {
namespace {

net::Task<> answer_health(Shared& shared, net::ResponseWriter& writer) {
  if (shared.engine_ready) {
    (void)co_await writer.send({.status = 200, .headers = {}, .body = {}});
  } else {
    (void)co_await writer.send(net::Response::json(503, error_body(503, "the decode engine is not ready")));
  }
}

// Knows the engine's state before anybody asks.
net::Task<> watch_engine(Shared& shared) {
  net::Client client;
  for (bool first = true;; first = false) {
    net::Call call;
    call.host = shared.config.model_server_host, call.port = shared.config.model_server_port;
    call.target = "/health";
    call.connect_timeout = call.first_byte_timeout = call.idle_timeout = kHealthTimeout;
    auto response = co_await client.fetch(call);
    if (!response && response.error().code == Code::kCancelled) co_return;  // we stop
    bool ready = response && response->status == 200;
    if (bool before = shared.engine_ready.exchange(ready); before != ready || first) {
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

net::Handler make_proxy(Shared& shared) {
  auto local = std::make_shared<Local>(net::Client(shared.config.idle_connections_max),
                                       find_connector(shared.config.connector)->make(shared.config));
  return [&shared, local](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
    bool probe = request.path == "/health" && (request.method == "GET" || request.method == "HEAD");
    if (probe) co_return co_await answer_health(shared, writer);
    Exchange exchange(shared, *local, request, writer);
    co_await exchange.run();
  };
}

net::Handler make_metrics(Shared& shared) {
  return [&shared](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
    if (request.path == "/health") co_return co_await answer_health(shared, writer);
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
  return options;
}

}  // namespace

struct Sidecar::State {
  explicit State(SidecarConfig config)
      : shared(std::move(config)),
        proxy(server_options(shared.config, shared.config.port, shared.config.io_threads), [this] { return make_proxy(shared); }),
        metrics(server_options(shared.config, shared.config.metrics_port, 1), [this] { return make_metrics(shared); }) {}

  Shared shared;
  net::Server proxy, metrics;
  net::IoThread watcher;
};

Sidecar::Sidecar(SidecarConfig config) : state_(std::make_unique<State>(std::move(config))) {}
Sidecar::~Sidecar() { stop(); }
int Sidecar::port() const { return state_->proxy.port(); }
int Sidecar::metrics_port() const { return state_->metrics.port(); }
bool Sidecar::engine_ready() const { return state_->shared.engine_ready; }

Result<> Sidecar::start() {
  const SidecarConfig& config = state_->shared.config;
  BATON_OK(config.check());
  BATON_OK(state_->proxy.start());
  if (config.metrics_port != 0) BATON_OK(state_->metrics.start());
  state_->watcher.spawn([this] { return watch_engine(state_->shared); });
  log_info("sidecar is listening", "address={}:{} engine={}:{} on_prefill_failure={}", config.host, port(),
           config.model_server_host, config.model_server_port, config.on_prefill_failure);
  return {};
}

void Sidecar::stop() {
  state_->proxy.stop(net::Millis(state_->shared.config.drain_timeout_ms));
  state_->metrics.stop(net::Millis(0));
  state_->watcher.stop();
}

}  // namespace baton::sidecar
