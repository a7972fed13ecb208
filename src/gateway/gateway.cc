#include "gateway/gateway.h"

#include <condition_variable>
#include <mutex>

#include "base/log.h"
#include "discovery/file_discovery.h"
#include "gateway/exchange.h"
#include "gateway/prober.h"

namespace baton::gateway {

struct Gateway::Parts {
  explicit Parts(GatewayConfig config)
      : shared(std::move(config)),
        prober(shared.pool, shared.clock, net::Millis(shared.config.refresh_metrics_interval_ms)),
        discovery(shared.config.endpoints_file) {}

  Shared shared;
  Prober prober;
  discovery::FileDiscovery discovery;
  std::unique_ptr<net::Server> server, metrics_server;
  std::mutex mutex;
  std::condition_variable stopped_changed;
  enum class Life { kRunning, kStopping, kStopped } life = Life::kRunning;
};

Gateway::Gateway(GatewayConfig config) : parts_(std::make_unique<Parts>(std::move(config))) {}

Gateway::~Gateway() { stop(); }

Result<> Gateway::start() {
  Shared& shared = parts_->shared;
  const GatewayConfig& config = shared.config;
  BATON_TRY(shared.route, config.finish());
  shared.hash_seed = secure_random_u64();
  shared.pick_seed = config.seed != 0 ? static_cast<uint64_t>(config.seed) : secure_random_u64();
  const auto worker_factory = [&shared](bool probes_only) -> net::HandlerFactory {
    return [&shared, probes_only]() -> net::Handler {
      auto worker = std::make_shared<Worker>(shared, probes_only);
      return [worker](net::Request& request, net::ResponseWriter& writer) { return worker->handle(request, writer); };
    };
  };
  net::ServerOptions options;
  options.host = config.host;
  options.port = config.http_port;
  options.threads = config.io_threads;
  options.body_bytes_max = static_cast<size_t>(config.body_bytes_max);
  // Streams that wait for their first token hold a connection each; beyond the request limit some are only waiting for a 429.
  options.connections_max = config.concurrent_requests_max + 1'024;
  parts_->server = std::make_unique<net::Server>(options, worker_factory(false));
  BATON_OK(parts_->server->start());
  if (config.metrics_port != 0) {
    options.port = config.metrics_port;
    options.threads = 1;
    parts_->metrics_server = std::make_unique<net::Server>(options, worker_factory(true));
    BATON_OK(parts_->metrics_server->start());
  }
  if (!config.endpoints_file.empty()) {
    BATON_OK(parts_->discovery.start([this](auto membership) { set_members(membership->members); }));
  }
  log_info("gateway listens", "host={} port={} endpoints={}", config.host, port(), shared.pool.view()->endpoints.size());
  return {};
}

int Gateway::port() const { return parts_->server ? parts_->server->port() : 0; }

int Gateway::metrics_port() const { return parts_->metrics_server ? parts_->metrics_server->port() : 0; }

void Gateway::set_members(const std::vector<discovery::Member>& members) {
  for (auto& state : parts_->shared.pool.apply(members)) parts_->prober.follow(std::move(state));
}

int Gateway::ready_endpoints() const {
  int ready = 0;
  for (const auto& state : parts_->shared.pool.view()->states) ready += state->healthy ? 1 : 0;
  return ready;
}

void Gateway::stop() {
  using Life = Parts::Life;
  std::unique_lock lock(parts_->mutex);
  if (parts_->life != Life::kRunning) {  // someone else stops it: wait for the end, so that the caller may destroy us
    parts_->stopped_changed.wait(lock, [&] { return parts_->life == Life::kStopped; });
    return;
  }
  parts_->life = Life::kStopping;
  lock.unlock();
  parts_->shared.draining = true;
  parts_->discovery.stop();
  if (parts_->server) parts_->server->stop(net::Millis(parts_->shared.config.drain_timeout_ms));
  if (parts_->metrics_server) parts_->metrics_server->stop(net::Millis(0));
  parts_->prober.stop();
  lock.lock();
  parts_->life = Life::kStopped;
  parts_->stopped_changed.notify_all();
}

void Gateway::wait() {
  std::unique_lock lock(parts_->mutex);
  parts_->stopped_changed.wait(lock, [&] { return parts_->life == Parts::Life::kStopped; });
}

}  // namespace baton::gateway
