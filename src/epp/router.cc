#include "epp/router.h"

#include <atomic>
#include <cstdlib>
#include <mutex>

#include "base/clock.h"
#include "base/log.h"
#include "discovery/file_discovery.h"
#include "discovery/kubernetes.h"
#include "discovery/leader.h"
#include "epp/health.h"
#include "epp/limits.h"
#include "epp/plan_source.h"
#include "epp/stream.h"
#include "net/grpc.h"
#include "net/http.h"
#include "net/otlp.h"
#include "net/tls.h"

namespace baton::epp {

struct Router::Parts {
  explicit Parts(RouterFlags f)
      : flags(std::move(f)),
        plans(flags),
        stream_metrics(metrics, flags.stream_metrics),
        reloads(counter_of(metrics, picker::MetricId::kConfigReloads)),
        refused(counter_of(metrics, picker::MetricId::kConfigRefused)) {}

  Result<> make_picker();
  Result<> start_discovery();
  Result<> start_leader();
  Result<> start_grpc();
  Result<> start_admin();
  void look_at_config();
  void take(std::shared_ptr<const discovery::ClusterState> state);
  net::Task<> watch_config();
  void show_surroundings();
  net::GrpcHandlerFactory process_factory();
  net::Task<> admin(const discovery::AccessGuard& guard, net::Request& request, net::ResponseWriter& writer);
  Result<> start_tracing();

  RouterFlags flags;
  Metrics metrics;
  SteadyClock clock;
  PlanSource plans;
  StreamMetrics stream_metrics;
  picker::TwinCounter reloads, refused;
  std::mutex config_mutex;
  std::unique_ptr<net::Tracing> tracing;  // outlives the picker
  std::unique_ptr<picker::Picker> picker;
  std::atomic<bool> protocol_known{true}, stopping{false};
  std::unique_ptr<discovery::FileDiscovery> files;
  std::unique_ptr<discovery::KubernetesDiscovery> kubernetes;
  std::unique_ptr<discovery::LeaderElection> leader;
  Health health;
  std::unique_ptr<net::GrpcServer> grpc, health_grpc;
  discovery::AccessGuardFactory make_guard;
  std::unique_ptr<net::Server> admin_server;
  std::unique_ptr<net::IoThread> house;
  int64_t drain_ends_ns = 0;
};

Router::Router(RouterFlags flags) : parts_(std::make_unique<Parts>(std::move(flags))) {}
Router::~Router() { stop(); }
picker::Picker& Router::picker() { return *parts_->picker; }
Metrics& Router::metrics() { return parts_->metrics; }
Tracer* Router::tracer() { return parts_->tracing ? parts_->tracing->tracer() : nullptr; }
const discovery::AccessGuardFactory& Router::metrics_guard() const { return parts_->make_guard; }
int Router::grpc_port() const { return parts_->grpc ? parts_->grpc->port() : 0; }
int Router::health_port() const { return parts_->health_grpc ? parts_->health_grpc->port() : 0; }
int Router::metrics_port() const { return parts_->admin_server ? parts_->admin_server->port() : 0; }
void Router::look_at_config() { parts_->look_at_config(); }

Result<> Router::start() {
  Parts& parts = *parts_;
  BATON_OK(parts.start_tracing());
  BATON_OK(parts.make_picker());
  BATON_OK(parts.picker->start());
  parts.health.ready = [&parts] { return parts.picker->ready() && parts.protocol_known; };
  BATON_OK(parts.start_discovery());
  BATON_OK(parts.start_leader());
  BATON_OK(parts.start_grpc());
  BATON_OK(parts.start_admin());
  if (parts.plans.follows_file()) {
    parts.house = std::make_unique<net::IoThread>();
    parts.house->spawn([&parts] { return parts.watch_config(); });
  }
  log_info("endpoint picker listens", "ext_proc={} tls={} health={} metrics={}", grpc_port(), parts.flags.secure_serving,
           health_port(), metrics_port());
  return {};
}

Result<> Router::Parts::start_tracing() {
  if (!flags.tracing) return {};
  // llm-d's own defaults.
  BATON_TRY(const net::OtlpConfig config,
            net::otlp_config([](const char* name) { return std::getenv(name); }, "llm-d-epp", "parentbased_traceidratio", "0.1"));
  BATON_TRY(tracing, net::Tracing::make(config, clock));
  return {};
}

Result<> Router::Parts::make_picker() {
  route::Loaded loaded = plans.load();
  for (const std::string& warning : loaded.warnings) log_warn("configuration", "{}", warning);
  if (!loaded.plan) {
    std::string errors;
    for (const std::string& error : loaded.errors) errors += cat(errors.empty() ? "" : "\n", error);
    return fail(Code::kInvalidArgument, errors);
  }
  if (flags.endpoints_file.empty() && flags.pool_name.empty() && flags.endpoint_selector.empty()) {
    flags.endpoints_file = loaded.plan->discovery_file;
  }
  picker::PickerOptions options = flags.picker_options();
  options.replies_need_health = !flags.endpoints_file.empty();  // Kubernetes says what is ready
  if (tracing) options.tracer = tracing->tracer();
  options.on_refresh = [this] { show_surroundings(); };
  picker = picker::Picker::make(options, loaded.plan, metrics, clock);
  return {};
}

void Router::Parts::take(std::shared_ptr<const discovery::ClusterState> state) {
  const std::string& protocol = state->app_protocol;
  protocol_known = protocol.empty() || protocol == "http" || protocol == "kubernetes.io/h2c";
  if (!protocol_known) log_error("the pool's appProtocol is not supported: not ready", "appProtocol={}", protocol);
  picker->set_cluster(std::move(state));
}

Result<> Router::Parts::start_discovery() {
  auto on_change = [this](std::shared_ptr<const discovery::ClusterState> state) { take(std::move(state)); };
  if (!flags.endpoints_file.empty()) {
    files = std::make_unique<discovery::FileDiscovery>(flags.endpoints_file);
    return discovery::start_cluster(*files, flags.picker_options().pool_name, flags.picker_options().pool_namespace, on_change);
  }
  if (flags.pool_name.empty() && flags.endpoint_selector.empty()) {
    return fail(
        Code::kInvalidArgument,
        "one of --pool-name, --endpoint-selector and --endpoints (or a discovery plugin in the configuration) must say which "
        "endpoints there are");
  }
  discovery::KubernetesOptions options;
  options.kubeconfig = flags.kubeconfig;
  options.pool_name = flags.pool_name;
  options.pool_namespace = flags.pool_namespace;
  options.pool_group = flags.pool_group;
  options.endpoint_selector = flags.endpoint_selector;
  options.endpoint_target_ports = flags.target_ports();
  kubernetes = std::make_unique<discovery::KubernetesDiscovery>(std::move(options));
  return kubernetes->start(on_change);
}

void Router::Parts::show_surroundings() {
  using picker::MetricId;
  if (tracing && tracing->tracer() != nullptr) {
    const TracerCounts spans = tracing->tracer()->counts();
    const net::ExportCounts exports = tracing->counts();
    counter_of(metrics, MetricId::kSpans).raise(static_cast<double>(spans.recorded));
    counter_of(metrics, MetricId::kSpansDropped).raise(static_cast<double>(spans.dropped));
    counter_of(metrics, MetricId::kSpanExports, {"ok"}).raise(static_cast<double>(exports.sent));
    counter_of(metrics, MetricId::kSpanExports, {"failed"}).raise(static_cast<double>(exports.failed));
  }
  if (!kubernetes) return;
  const discovery::KubernetesStatus status = kubernetes->status();
  gauge_of(metrics, MetricId::kDiscoverySynced).set(status.synced ? 1 : 0);
  gauge_of(metrics, MetricId::kDiscoveryAge).set(status.age_ms < 0 ? -1 : static_cast<double>(status.age_ms) * 1e-3);
  const std::pair<MetricId, uint64_t> counts[] = {{MetricId::kDiscoveryLists, status.lists},
                                                  {MetricId::kDiscoveryWatches, status.watches},
                                                  {MetricId::kDiscoveryEvents, status.events},
                                                  {MetricId::kDiscoveryErrors, status.errors},
                                                  {MetricId::kDiscoveryDenied, status.denied}};
  for (const auto& [id, value] : counts) counter_of(metrics, id).raise(static_cast<double>(value));
}

Result<> Router::Parts::start_leader() {
  if (!flags.leader_election) return {};
  if (!kubernetes) return fail(Code::kInvalidArgument, "--ha-enable-leader-election needs Kubernetes: a lease is kept there");
  discovery::LeaderOptions options;
  options.kubeconfig = flags.kubeconfig;
  options.ns = flags.picker_options().pool_namespace;
  options.lease_name = discovery::lease_name_for(options.ns, flags.picker_options().pool_name);
  leader = std::make_unique<discovery::LeaderElection>(std::move(options));
  health.leads = [this] { return leader->leads(); };
  return leader->start([](bool leads) { log_info("leader election", "leads={}", leads); });
}

// ---- listeners

// One Door an I/O thread, and its clock hand.
net::GrpcHandlerFactory Router::Parts::process_factory() {
  auto door = std::make_shared<Door>(*picker, clock, stream_metrics,
                                     DoorOptions{.body_timeout_ms = flags.body_timeout_ms, .echo_headers = flags.echo_headers});
  net::spawn_here([](std::shared_ptr<Door> d, const std::atomic<bool>& stop) -> net::Task<> {
    while (!stop) {
      co_await net::sleep_for(kSweep);
      d->sweep();
    }
  }(door, stopping));
  return [this, door](net::GrpcCall& call) -> std::unique_ptr<net::GrpcHandler> {
    if (call.path() == kProcessPath) return std::make_unique<Stream>(*door, call);
    return flags.health_checking ? make_health(health, call) : nullptr;
  };
}

Result<> Router::Parts::start_grpc() {
  net::GrpcServerOptions options;
  options.host = flags.host;
  if (flags.grpc_health_port != kPortUnset) {
    options.port = flags.grpc_health_port;
    health_grpc = std::make_unique<net::GrpcServer>(
        options, [this] { return [this](net::GrpcCall& call) { return make_health(health, call); }; });
    BATON_OK(health_grpc->start());
  }
  if (flags.grpc_port == kPortUnset) return {};
  options.port = flags.grpc_port;
  options.threads = flags.io_threads;
  options.message_bytes_max = static_cast<size_t>(flags.recv_msg_bytes_max);
  options.unsent_bytes_max = kUnsentBytesMax;
  if (flags.secure_serving) {
    BATON_TRY(options.tls, net::TlsServer::make(flags.tls_options()));
  }
  grpc = std::make_unique<net::GrpcServer>(options, [this] { return process_factory(); });
  return grpc->start();
}

Result<> Router::Parts::start_admin() {
  if (flags.metrics_endpoint_auth && kubernetes) {
    BATON_TRY(discovery::KubeAccess access, discovery::find_kube_access(discovery::Environment::of_process(), flags.kubeconfig));
    BATON_TRY(make_guard, discovery::access_guards(std::move(access), clock));
  }
  if (flags.metrics_port == kPortUnset) return {};
  net::ServerOptions options;
  options.host = flags.host;
  options.port = flags.metrics_port;
  admin_server = std::make_unique<net::Server>(options, [this]() -> net::Handler {
    return [this, guard = make_guard ? make_guard() : discovery::AccessGuard()](net::Request& request, net::ResponseWriter& writer) {
      return admin(guard, request, writer);
    };
  });
  return admin_server->start();
}

net::Task<> Router::Parts::admin(const discovery::AccessGuard& guard, net::Request& request, net::ResponseWriter& writer) {
  net::Response response = net::Response::text(404, "not found\n");
  const bool guarded = guard && (request.path == "/metrics" || request.path.starts_with("/debug/"));
  if (auto refusal = guarded ? co_await guard(request) : std::optional<net::Response>()) {
    (void)co_await writer.send(*std::move(refusal));
    co_return;
  }
  if (request.method != "GET" && request.method != "HEAD") {
    response = net::Response::text(405, "method not allowed\n");
    response.headers.set("Allow", "GET");
  } else if (request.path == "/metrics") {
    picker->refresh_metrics();
    response = net::Response::text(200, metrics.text());
    response.headers.set("Content-Type", Metrics::kContentType);
  } else if (request.path == "/debug/plugins/state") {
    response = net::Response::json(200, picker->debug_json());
  } else if (request.path == "/healthz") {
    response = net::Response::text(200, "ok\n");
  } else if (request.path == "/readyz") {
    const bool serves = health.of("") == Serving::kServing;
    response = net::Response::text(serves ? 200 : 503, serves ? "ok\n" : "not ready\n");
  }
  (void)co_await writer.send(std::move(response));
}

// ---- the configuration as it changes

void Router::Parts::look_at_config() {
  std::lock_guard lock(config_mutex);
  auto loaded = plans.changed();
  if (!loaded) return;
  for (const std::string& warning : loaded->warnings) log_warn("configuration", "{}", warning);
  if (!loaded->plan) {
    for (const std::string& error : loaded->errors) log_error("new configuration is wrong, the old one stays", "{}", error);
    return refused.inc();
  }
  picker->set_plan(loaded->plan);
  reloads.inc();
  log_info("new configuration in force", "file={}", flags.config_file);
}

net::Task<> Router::Parts::watch_config() {
  while (!stopping) {
    co_await net::sleep_for(kConfigPoll);
    if (!stopping) look_at_config();
  }
}

// ---- the end

void Router::begin_drain() {
  Parts& parts = *parts_;
  parts.health.draining = true;
  parts.drain_ends_ns = parts.clock.now_ns() + parts.flags.drain_timeout_ms * 1'000'000;
  if (parts.leader) parts.leader->stop();
}

bool Router::drained() const { return parts_->health.draining && parts_->clock.now_ns() >= parts_->drain_ends_ns; }

void Router::stop() {
  Parts& parts = *parts_;
  parts.health.draining = true;
  if (parts.stopping.exchange(true)) return;
  if (parts.house) parts.house->stop();
  if (parts.leader) parts.leader->stop();
  if (parts.grpc) parts.grpc->stop(kStopGrace);
  if (parts.kubernetes) parts.kubernetes->stop();
  if (parts.files) parts.files->stop();
  if (parts.picker) parts.picker->stop();
  if (parts.health_grpc) parts.health_grpc->stop(net::Millis(0));
  if (parts.admin_server) parts.admin_server->stop(net::Millis(0));
  if (parts.tracing) parts.tracing->stop();
}

}  // namespace baton::epp
