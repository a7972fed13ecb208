#include "deploy/ratio.h"

#include <atomic>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/prng.h"
#include "deploy/limits.h"
#include "deploy/ratio_role.h"
#include "discovery/leader.h"

namespace baton::deploy {
namespace {

constexpr net::Millis kTickGrace{60'000};  // beyond some intervals without a look: not alive

bool is_name(std::string_view text) {  // may stand in a path of the API
  return !text.empty() && text.size() <= 253 &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-.") == std::string_view::npos;
}

}  // namespace

struct RatioController::Impl {
  explicit Impl(RatioCommand c) : command(std::move(c)) {}

  Result<> prepare();
  Result<> start_server();
  net::Task<> run();
  net::Task<Result<>> look();
  net::Task<Result<>> step(const cost::RatioStep& next);
  net::Task<Result<>> refuse_autoscalers();
  void show(const cost::Wanted& wanted, const cost::RatioStep& next);
  void complain(const Error& error);
  net::Response answer(const net::Request& request) const;
  bool leads() const { return !leader || leader->leads(); }
  bool alive() const { return clock.now_ms() - looked_ms.load() < 4'000 * int64_t{command.interval_s} + kTickGrace.count(); }

  net::IoThread io;  // first: what lives on it ends before it
  RatioCommand command;
  SteadyClock clock;
  Metrics metrics;
  cost::RatioPolicy policy;
  cost::LoadTargets targets;
  cost::WorkerCost prefill_cost, decode_cost;
  std::unique_ptr<discovery::KubeClient> client;
  std::unique_ptr<discovery::LeaderElection> leader;
  std::unique_ptr<net::Server> server;
  Gauge* leading = nullptr;
  Counter* failures = nullptr;
  std::atomic<int64_t> looked_ms{0};
  std::atomic<bool> knows{false};  // the last look saw all it needs

  // On the I/O thread alone:
  net::Cancel cancel;
  bool stopping = false, led = false;
  std::unique_ptr<RatioRole> prefill, decode;
  cost::RatioMemory memory;
  const char* said = "";
  std::string complaint;
};

RatioController::RatioController(RatioCommand command) : impl_(std::make_unique<Impl>(std::move(command))) {}
RatioController::~RatioController() { stop(); }
int RatioController::port() const { return impl_->server ? impl_->server->port() : 0; }

Result<> RatioController::start() {
  Impl& impl = *impl_;
  BATON_OK(impl.prepare());
  BATON_OK(impl.start_server());
  if (impl.leader) BATON_OK(impl.leader->start([](bool) {}));
  impl.looked_ms = impl.clock.now_ms();
  impl.io.spawn([&impl] { return impl.run(); });
  return {};
}

void RatioController::stop() {
  Impl& impl = *impl_;
  impl.io.post([&impl] {
    impl.stopping = true;
    impl.cancel.cancel();
    for (RatioRole* role : {impl.prefill.get(), impl.decode.get()}) {
      if (role != nullptr) role->stop();
    }
  });
  impl.io.stop();
  if (impl.leader) impl.leader->stop();
  if (impl.server) impl.server->stop(net::Millis(0));
}

Result<> RatioController::Impl::prepare() {
  std::string wrong;
  const auto also = [&](const std::string& text) { wrong += text.empty() ? "" : cat(wrong.empty() ? "" : "; ", text); };
  if (!is_name(command.prefill) || !is_name(command.decode)) also("--prefill and --decode name the two Deployments");
  if (command.prefill == command.decode && !command.prefill.empty()) also("--prefill and --decode are the same Deployment");
  policy = command.policy(), targets = command.targets();
  if (policy.prefill.max == 0 || policy.decode.max == 0) {
    also("--prefill-max and --decode-max: how many workers your accelerators allow");
  } else {
    also(ratio_policy_error(policy));
  }
  auto costs = command.costs();
  if (!costs) also(costs.error().message);
  if (!wrong.empty()) return fail(Code::kInvalidArgument, wrong);
  std::tie(prefill_cost, decode_cost) = *costs;
  BATON_TRY(discovery::KubeAccess access,
            discovery::find_kube_access(discovery::Environment::of_process(), command.kubeconfig, command.context));
  if (command.ns.empty()) command.ns = access.ns.empty() ? "default" : access.ns;
  if (!is_name(command.ns)) return fail(Code::kInvalidArgument, "--namespace \"", command.ns, "\" is no Kubernetes name");
  discovery::KubeTiming timing;
  timing.answer_timeout = timing.body_timeout = net::Millis(kAnswerMs);
  client = std::make_unique<discovery::KubeClient>(access, timing, clock);
  if (auto r = client->check(); !r) return within("kubernetes credentials", r.error());
  if (!command.lease.empty()) {
    discovery::LeaderOptions options;
    options.access = access, options.ns = command.ns, options.lease_name = command.lease;
    leader = std::make_unique<discovery::LeaderElection>(std::move(options));
  }
  const RatioRole::Wiring wiring{*client, clock, metrics, io, command.ns, 1000 * int64_t{command.window_s}, command.metrics_port};
  prefill = std::make_unique<RatioRole>(wiring, "prefill", command.prefill);
  decode = std::make_unique<RatioRole>(wiring, "decode", command.decode);
  leading = &metrics.gauge("baton_ratio_leading", "1 if this replica is the one that acts.");
  failures = &metrics.counter("baton_ratio_failures", "Looks or steps that failed.");
  return {};
}

Result<> RatioController::Impl::start_server() {
  net::ServerOptions options;
  options.host = command.host, options.port = command.port;
  server = std::make_unique<net::Server>(options, [this]() -> net::Handler {
    return [this](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
      (void)co_await writer.send(answer(request));
    };
  });
  BATON_OK(server->start());
  log_info("ratio controller", "port={} namespace={} prefill={} decode={} dry_run={}", server->port(), command.ns,
           command.prefill, command.decode, command.dry_run);
  return {};
}

net::Response RatioController::Impl::answer(const net::Request& request) const {
  if (request.method != "GET" && request.method != "HEAD") return net::Response::text(405, "method not allowed\n");
  if (request.path == "/metrics") {
    net::Response out = net::Response::text(200, metrics.text());
    out.headers.set("Content-Type", Metrics::kContentType);
    return out;
  }
  if (request.path == "/healthz")
    return alive() ? net::Response::text(200, "ok\n") : net::Response::text(503, "no look for too long\n");
  if (request.path == "/readyz") {
    const bool ready = !leads() || knows;
    return net::Response::text(ready ? 200 : 503, ready ? "ok\n" : "the pool is not known yet\n");
  }
  return net::Response::text(404, "not found\n");
}

net::Task<> RatioController::Impl::run() {
  while (!stopping) {
    const bool now = leads();
    if (now && !led) memory = {.stepped_ms = clock.now_ms()};  // what another replica did last is not known: let it settle
    led = now;
    leading->set(now ? 1 : 0);
    if (now) {
      auto done = co_await look();
      if (stopping) break;
      knows = done.has_value();
      if (!done) {
        failures->inc();
        complain(done.error());
      } else if (!std::exchange(complaint, "").empty()) {
        log_info("the ratio controller sees again");
      }
    }
    looked_ms = clock.now_ms();
    co_await net::sleep_for(net::Millis(1000 * int64_t{command.interval_s}), &cancel);
  }
}

net::Task<Result<>> RatioController::Impl::look() {
  for (RatioRole* role : {prefill.get(), decode.get()}) BATON_CO_OK(co_await role->read_scale(&cancel));
  BATON_CO_OK(co_await refuse_autoscalers());
  for (RatioRole* role : {prefill.get(), decode.get()}) BATON_CO_OK(co_await role->read_pods(&cancel));
  const auto prompts = prefill->load(), answers = decode->load();
  cost::WorkerCost p = prefill_cost, d = decode_cost;
  p.prefill = cost::calibrated(p.prefill, prefill->meter().prefill_samples());
  d.decode = cost::calibrated(d.decode, decode->meter().decode_samples());
  cost::Wanted wanted{.prefill = -1, .decode = -1};
  if (prompts && answers) {
    cost::LoadTargets now = targets;
    now.kv_tokens = answers->kv_tokens;
    wanted = cost::wanted_workers(p, d, pool_load(*prompts, *answers), now);
  }
  const cost::RatioStep next =
      cost::ratio_step(policy, prefill->now(wanted.prefill), decode->now(wanted.decode), clock.now_ms(), memory);
  show(wanted, next);
  if (!next.changed || command.dry_run || !leads()) co_return Result<>();
  co_return co_await step(next);
}

// Down before up: a flip's new worker wants the devices of the one that goes.
net::Task<Result<>> RatioController::Impl::step(const cost::RatioStep& next) {
  const std::pair<RatioRole*, int> rows[] = {{prefill.get(), next.prefill}, {decode.get(), next.decode}};
  for (const bool down : {true, false}) {
    for (const auto& [role, to] : rows) {
      if (to == role->replicas() || (to < role->replicas()) != down) continue;
      BATON_CO_OK(co_await role->scale_to(to, &cancel));
    }
  }
  co_return Result<>();
}

net::Task<Result<>> RatioController::Impl::refuse_autoscalers() {
  discovery::KubeClient::Ask ask;
  ask.target = cat("/apis/autoscaling/v2/namespaces/", command.ns, "/horizontalpodautoscalers?limit=", kListObjectsMax);
  ask.bytes_max = kListBytesMax, ask.cancel = &cancel;
  BATON_CO_TRY(const net::Response response, co_await client->fetch(ask));
  if (response.status == 404) co_return Result<>();
  if (response.status != 200) {
    const Error error = discovery::status_error(response.status, response.body);
    if (error.code != Code::kPermissionDenied) co_return std::unexpected(error);
    co_return fail(error.code, error.message, "; an autoscaler of the same Deployments would fight this one. Fix: ",
                   discovery::rbac_command({.group = "autoscaling", .plural = "horizontalpodautoscalers", .ns = command.ns},
                                           "list", client->account()));
  }
  BATON_CO_TRY(const Json list, parse_json(response.body, {.bytes_max = kListBytesMax}));
  for (const std::string& deployment : {command.prefill, command.decode}) {
    if (const std::string name = autoscaler_of(list, deployment); !name.empty())
      co_return fail(Code::kFailedPrecondition, "HorizontalPodAutoscaler ", name, " scales ", deployment,
                     " too: delete it, its ScaledObject, or this controller; nothing is done meanwhile");
  }
  co_return Result<>();
}

void RatioController::Impl::show(const cost::Wanted& wanted, const cost::RatioStep& next) {
  prefill->show(wanted.prefill), decode->show(wanted.decode);
  if (!next.changed && said == next.verdict) return;
  said = next.verdict;
  log_info(!next.changed     ? "ratio"
           : command.dry_run ? "ratio would change"
                             : "ratio changes",
           "prefill={} to={} wanted={:.2f} decode={} to={} wanted={:.2f} why=\"{}\"", prefill->replicas(), next.prefill,
           wanted.prefill, decode->replicas(), next.decode, wanted.decode, next.verdict);
}

void RatioController::Impl::complain(const Error& error) {
  if (error.code == Code::kAborted)
    return log_info("somebody else scaled meanwhile, looking again", "error=\"{}\"", error.message);
  if (std::exchange(complaint, error.message) == error.message) return;
  const bool person =
      error.code == Code::kPermissionDenied || error.code == Code::kFailedPrecondition || error.code == Code::kNotFound;
  if (person) return log_error("ratio is not controlled", "error=\"{}\"", error.message);
  log_warn("ratio is not controlled", "error=\"{}\"", error.message);
}

}  // namespace baton::deploy
