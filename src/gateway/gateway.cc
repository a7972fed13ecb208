#include "gateway/gateway.h"

#include <sys/resource.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>

#include "base/file.h"
#include "base/log.h"
#include "gateway/exchange.h"
#include "gateway/limits.h"
#include "net/otlp.h"
#include "net/tls.h"

namespace baton::gateway {
namespace {

// A stream holds two descriptors, the client's and the worker's; so many must be allowed, and the hard limit is what we may take.
void raise_descriptor_limit(int streams) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
  const auto wanted = 2 * static_cast<rlim_t>(streams) + kDescriptorsBeside;
  if (limit.rlim_max < wanted) {
    log_warn("the limit of open files is low: connections over it wait", "limit={} wanted={} for_requests={}", limit.rlim_max,
             wanted, streams);
  }
}

}  // namespace

struct Gateway::Parts {
  explicit Parts(GatewayConfig config, Metrics* metrics = nullptr) : shared(std::move(config), metrics) {}

  Result<> load_keys();
  Result<> start_tracing();
  net::Task<> keep_house();
  Result<net::ServerOptions> server_options();

  std::unique_ptr<net::Tracing> tracing;  // outlives the pools
  Shared shared;
  bool adopted = false;
  std::string keys_text;
  std::mutex files_mutex;
  std::unique_ptr<net::Server> server, metrics_server;
  std::unique_ptr<net::IoThread> house;
  std::mutex mutex;
  std::condition_variable stopped_changed;
  enum class Life { kRunning, kStopping, kStopped } life = Life::kRunning;
};

Gateway::Gateway(GatewayConfig config) : parts_(std::make_unique<Parts>(std::move(config))) {}

Gateway::Gateway(GatewayConfig config, picker::Picker& picker, Metrics& metrics)
    : parts_(std::make_unique<Parts>(std::move(config), &metrics)) {
  parts_->adopted = true;
  parts_->shared.pools.adopt(parts_->shared.config.pool_name, picker);
}

Gateway::~Gateway() { stop(); }

// At start a bad file is an error; later the old keys stay.
Result<> Gateway::Parts::load_keys() {
  const std::string& path = shared.config.api_keys_file;
  if (path.empty()) return {};
  BATON_TRY(std::string text, read_file(path, kKeyFileBytesMax));
  if (text == keys_text) return {};
  keys_text = std::move(text);
  auto loaded = shared.keys.load(keys_text);
  if (!loaded) return fail(loaded.error().code, path, ": ", loaded.error().message);
  log_info("API keys loaded", "file={}", path);
  return {};
}

// For pickers of its own; an adopted one brings its tracer.
Result<> Gateway::Parts::start_tracing() {
  if (adopted || !shared.config.tracing) return {};
  BATON_TRY(const net::OtlpConfig otlp, net::otlp_config([](const char* name) { return std::getenv(name); }, "llm-d-epp",
                                                         "parentbased_traceidratio", "0.1"));
  BATON_TRY(tracing, net::Tracing::make(otlp, shared.clock));
  shared.config.tracer = tracing->tracer();
  return {};
}

net::Task<> Gateway::Parts::keep_house() {
  constexpr int kRounds = kFilesEveryMs / kAccessLogFlushMs;
  for (int round = 0;; round = (round + 1) % kRounds) {
    co_await net::sleep_for(net::Millis(kAccessLogFlushMs));
    {
      std::lock_guard lock(mutex);
      if (life != Life::kRunning) break;
    }
    shared.access_log.flush();
    if (round != 0) continue;
    std::lock_guard lock(files_mutex);
    if (const auto loaded = load_keys(); !loaded)
      log_error("key file refused, the old keys stay", "error=\"{}\"", loaded.error().message);
    shared.pools.look_at_configs();
  }
}

Result<net::ServerOptions> Gateway::Parts::server_options() {
  const GatewayConfig& config = shared.config;
  net::ServerOptions options;
  options.host = config.host;
  options.port = config.http_port;
  options.threads = config.io_threads;
  options.header_bytes_max = static_cast<size_t>(config.header_bytes_max);
  options.body_bytes_max = static_cast<size_t>(config.body_bytes_max);
  options.body_timeout = net::Millis(config.body_timeout_ms);
  // Streams that wait for their first token hold a connection each; beyond the request limit some are only waiting for a 429.
  options.connections_max = config.concurrent_requests_max + kIdleConnectionsMax;
  options.http2 = config.http2;
  options.listen = [&all = shared](std::string_view method, std::string_view target) { return listen_to(all, method, target); };
  if (!config.wants_tls()) return options;
  net::TlsServerOptions tls;
  tls.cert_dir = config.tls_cert_dir;
  tls.cert_file = config.tls_cert_file, tls.key_file = config.tls_key_file;
  tls.reload = true;
  if (!config.http2) tls.alpn = {"http/1.1"};
  BATON_TRY(options.tls, net::TlsServer::make(tls));
  return options;
}

void Gateway::guard_metrics(discovery::AccessGuardFactory make_guard) { parts_->shared.make_guard = std::move(make_guard); }

Result<> Gateway::start() {
  Shared& shared = parts_->shared;
  const GatewayConfig& config = shared.config;
  BATON_OK(config.check());
  BATON_OK(parts_->start_tracing());
  if (!parts_->adopted) BATON_OK(shared.pools.make(config, shared.metrics.metrics(), shared.clock));
  if (!config.api_key.empty()) shared.keys.add("default", config.api_key);
  BATON_OK(parts_->load_keys());
  if (!config.access_log.empty()) BATON_OK(shared.access_log.open(config.access_log));
  raise_descriptor_limit(config.concurrent_requests_max);
  BATON_OK(shared.pools.start());
  const auto worker_factory = [&shared](bool probes_only) -> net::HandlerFactory {
    return [&shared, probes_only]() -> net::Handler {
      auto worker = std::make_shared<Worker>(shared, probes_only);
      return [worker](net::Request& request, net::ResponseWriter& writer) { return worker->handle(request, writer); };
    };
  };
  BATON_TRY(net::ServerOptions options, parts_->server_options());
  parts_->server = std::make_unique<net::Server>(options, worker_factory(false));
  BATON_OK(parts_->server->start());
  if (config.metrics_port != 0) {
    net::ServerOptions plain;
    plain.host = config.host;
    plain.port = config.metrics_port;
    parts_->metrics_server = std::make_unique<net::Server>(plain, worker_factory(true));
    BATON_OK(parts_->metrics_server->start());
  }
  parts_->house = std::make_unique<net::IoThread>();
  parts_->house->spawn([parts = parts_.get()] { return parts->keep_house(); });
  log_info("gateway listens", "host={} port={} pools={}", config.host, port(), shared.pools.all().size());
  return {};
}

int Gateway::port() const { return parts_->server ? parts_->server->port() : 0; }

int Gateway::metrics_port() const { return parts_->metrics_server ? parts_->metrics_server->port() : 0; }

void Gateway::set_members(const std::vector<discovery::Member>& members) { parts_->shared.pools.first().set_members(members); }

int Gateway::ready_endpoints() const { return endpoints_up(parts_->shared.pools); }

void Gateway::look_at_files() {
  std::lock_guard lock(parts_->files_mutex);
  if (const auto loaded = parts_->load_keys(); !loaded)
    log_error("key file refused, the old keys stay", "error=\"{}\"", loaded.error().message);
  parts_->shared.pools.look_at_configs();
  parts_->shared.access_log.flush();
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
  parts_->shared.pools.stop_discovery();
  if (parts_->server) parts_->server->stop(net::Millis(parts_->shared.config.drain_timeout_ms));
  if (parts_->metrics_server) parts_->metrics_server->stop(net::Millis(0));
  if (parts_->house) parts_->house->stop();
  parts_->shared.pools.stop();
  if (parts_->tracing) parts_->tracing->stop();
  parts_->shared.access_log.flush();
  lock.lock();
  parts_->life = Life::kStopped;
  parts_->stopped_changed.notify_all();
}

void Gateway::wait() {
  std::unique_lock lock(parts_->mutex);
  parts_->stopped_changed.wait(lock, [&] { return parts_->life == Parts::Life::kStopped; });
}

}  // namespace baton::gateway
