#include "discovery/kubernetes.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <set>

#include "base/log.h"
#include "discovery/kept_objects.h"
#include "discovery/kube_objects.h"
#include "discovery/limits.h"
#include "net/http.h"

namespace baton::discovery {
namespace {

constexpr const char* kGroup = "inference.networking.k8s.io";
constexpr const char* kOldGroup = "inference.networking.x-k8s.io";
constexpr const char* kLlmdGroup = "llm-d.ai";

template <class T>
struct Kind {
  Kind(KubeClient& client, Resource resource, size_t max, std::function<Result<T>(const Json&)> parse, uint64_t seed,
       std::function<void()> changed)
      : store(resource.plural, max, std::move(parse)), reflector(client, std::move(resource), store, seed, std::move(changed)) {}
  KeptObjects<T> store;
  Reflector reflector;
};
template <class T>
using Kinds = std::vector<std::shared_ptr<Kind<T>>>;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// A name that may stand in a path of the API: lower-case letters, digits, '-' and '.'.
bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 253 && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
  });
}

Result<> check(const KubernetesOptions& options) {
  if (options.pool_name.empty() == options.endpoint_selector.empty()) {
    return fail(Code::kInvalidArgument, "exactly one of pool-name and endpoint-selector is needed");
  }
  if (!options.pool_name.empty() && !is_name(options.pool_name)) {
    return fail(Code::kInvalidArgument, "pool-name \"", options.pool_name, "\" is no Kubernetes name");
  }
  const std::string& group = options.pool_group;
  if (!group.empty() && group != kGroup && group != kOldGroup) {
    return fail(Code::kInvalidArgument, "pool-group must be ", kGroup, " or ", kOldGroup, ", got \"", group, "\"");
  }
  const std::string& family = options.ip_family;
  if (!family.empty() && family != "ipv4" && family != "ipv6") {
    return fail(Code::kInvalidArgument, "ip family must be ipv4 or ipv6, got \"", family, "\"");
  }
  const std::vector<int>& ports = options.endpoint_target_ports;
  if (options.endpoint_selector.empty()) {
    return ports.empty() ? Result<>() : fail(Code::kInvalidArgument, "endpoint-target-ports belongs to endpoint-selector");
  }
  const bool good = std::ranges::all_of(ports, [](int port) { return port >= 1 && port <= 65535; });
  if (!good || ports.empty() || ports.size() > kTargetPortsMax || std::set(ports.begin(), ports.end()).size() != ports.size()) {
    return fail(Code::kInvalidArgument, "endpoint-target-ports must be 1 to ", kTargetPortsMax, " different ports");
  }
  return {};
}

}  // namespace

struct KubernetesDiscovery::Impl {
  explicit Impl(KubernetesOptions o) : options(std::move(o)), seeds(options.seed ? options.seed : secure_random_u64()) {}

  Result<> prepare();
  void begin();
  void changed();
  void follow_pool(const PoolSpec& spec);
  const PoolSpec* pool();
  std::string why_no_pool() const;
  void publish_soon();
  net::Task<> publish_later(net::Millis delay);
  void publish();
  ClusterState build();
  std::vector<Member> members(const PoolSpec& spec);
  void note();
  void cancel();
  template <class F>
  void each_reflector(F f) const;
  template <class T>
  std::shared_ptr<Kind<T>> launch(Resource resource, size_t max, std::function<Result<T>(const Json&)> parse);
  void follow_nodes();

  net::IoThread io;  // first: what lives on it ends before it
  KubernetesOptions options;
  SteadyClock clock;
  Prng seeds;
  std::string ns;
  OnClusterState on_change;
  std::unique_ptr<KubeClient> client;
  std::optional<PoolSpec> standalone;
  bool started = false;

  // On the I/O thread alone:
  Kinds<PoolSpec> pools;  // in order of preference
  Kinds<NamedObjective> objectives;
  Kinds<NamedRewrite> rewrites;
  std::shared_ptr<Kind<NodePlace>> nodes;      // once a pod does not say itself where it runs
  std::shared_ptr<Kind<Pod>> pods, next_pods;  // next_pods: for a new selector, not read yet
  std::string selector;                        // of the newest of them
  std::string complaint;                       // about the pool, as last logged
  std::vector<Reflector::State> states;
  bool publish_pending = false, stopping = false, too_many = false;
  int64_t published_ms = INT64_MIN / 2;

  mutable std::mutex mutex;
  std::shared_ptr<const ClusterState> current = std::make_shared<ClusterState>();
  KubernetesStatus status;
  int64_t oldest_heard_ms = -1;
};

KubernetesDiscovery::KubernetesDiscovery(KubernetesOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
KubernetesDiscovery::~KubernetesDiscovery() { stop(); }

Result<> KubernetesDiscovery::start(OnClusterState on_change) {
  impl_->on_change = std::move(on_change);
  BATON_OK(impl_->prepare());
  impl_->started = true;
  impl_->io.post([impl = impl_.get()] { impl->begin(); });
  return {};
}

void KubernetesDiscovery::stop() {
  if (std::exchange(impl_->started, false)) {
    impl_->io.post([impl = impl_.get()] { impl->cancel(); });
  }
  impl_->io.stop();
}

std::shared_ptr<const ClusterState> KubernetesDiscovery::current() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->current;
}

KubernetesStatus KubernetesDiscovery::status() const {
  std::lock_guard lock(impl_->mutex);
  KubernetesStatus out = impl_->status;
  if (impl_->oldest_heard_ms >= 0) out.age_ms = impl_->clock.now_ms() - impl_->oldest_heard_ms;
  return out;
}

const std::string& KubernetesDiscovery::pool() const {
  return impl_->standalone ? impl_->standalone->name : impl_->options.pool_name;
}
const std::string& KubernetesDiscovery::pool_namespace() const { return impl_->ns; }

Result<> KubernetesDiscovery::Impl::prepare() {
  BATON_OK(check(options));
  if (!options.access) {
    BATON_TRY(options.access, find_kube_access(Environment::of_process(), options.kubeconfig, options.context));
  }
  for (std::string candidate : {options.pool_namespace, variable("NAMESPACE"), options.access->ns, std::string("default")}) {
    if (ns.empty()) ns = std::move(candidate);
  }
  if (!is_name(ns)) return fail(Code::kInvalidArgument, "pool-namespace \"", ns, "\" is no Kubernetes name");
  if (!options.endpoint_selector.empty()) {
    const std::string pod = options.pod_name.empty() ? variable("POD_NAME") : options.pod_name;
    const auto deployment = deployment_of_pod(pod);
    if (!deployment) {
      return fail(Code::kInvalidArgument, "POD_NAME \"", pod,
                  "\" must be <deployment>-<hash>-<hash>: the pool is named after it");
    }
    standalone = PoolSpec{.name = *deployment,
                          .group = "",
                          .selector = {},
                          .ports = options.endpoint_target_ports,
                          .app_protocol = "",
                          .picker = ""};
  }
  client = std::make_unique<KubeClient>(*options.access, options.timing, clock);
  if (auto r = client->check(); !r) return within("kubernetes credentials", r.error());
  log_info("watching kubernetes", "server={}:{} credentials=\"{}\" account={} namespace={} pool={}{}", options.access->host,
           options.access->port, options.access->origin, client->account(), ns, standalone ? "selector:" : "",
           standalone ? options.endpoint_selector : options.pool_name);
  return {};
}

template <class T>
std::shared_ptr<Kind<T>> KubernetesDiscovery::Impl::launch(Resource resource, size_t max,
                                                           std::function<Result<T>(const Json&)> parse) {
  if (!resource.cluster) resource.ns = ns;
  auto kind = std::make_shared<Kind<T>>(*client, std::move(resource), max, std::move(parse), seeds.next(), [this] { changed(); });
  io.spawn([kind] { return kind->reflector.run(); });
  return kind;
}

void KubernetesDiscovery::Impl::begin() {
  const auto pool_of = [&](const char* group, const char* version) {
    if (!options.pool_group.empty() && options.pool_group != group) return;
    Resource resource{
        .group = group, .version = version, .plural = "inferencepools", .name = options.pool_name, .optional = true};
    pools.push_back(launch<PoolSpec>(std::move(resource), 1, [group](const Json& object) { return parse_pool(object, group); }));
  };
  if (standalone) {
    follow_pool(*standalone);
  } else {
    pool_of(kGroup, "v1");
    pool_of(kOldGroup, "v1alpha2");
  }
  for (const char* group : {kLlmdGroup, kOldGroup}) {
    objectives.push_back(
        launch<NamedObjective>({.group = group, .version = "v1alpha2", .plural = "inferenceobjectives", .optional = true},
                               kObjectsMax, parse_objective));
    rewrites.push_back(
        launch<NamedRewrite>({.group = group, .version = "v1alpha2", .plural = "inferencemodelrewrites", .optional = true},
                             kObjectsMax, parse_rewrite));
  }
}

template <class F>
void KubernetesDiscovery::Impl::each_reflector(F f) const {
  for (const auto& kind : pools) f(kind->reflector);
  for (const auto& kind : objectives) f(kind->reflector);
  for (const auto& kind : rewrites) f(kind->reflector);
  for (const auto* kind : {&pods, &next_pods}) {
    if (*kind) f((*kind)->reflector);
  }
  if (nodes) f(nodes->reflector);
}

void KubernetesDiscovery::Impl::cancel() {
  stopping = true;
  each_reflector([](Reflector& reflector) { reflector.cancel(); });
}

// The pool in force, and a word to the log when there is none, or one too many.
const PoolSpec* KubernetesDiscovery::Impl::pool() {
  if (standalone) return &*standalone;
  const PoolSpec* found = nullptr;
  std::string now;
  bool tried = true;
  for (const auto& kind : pools) {
    tried &= kind->reflector.tried();
    if (kind->store.all().empty()) continue;
    const PoolSpec& spec = kind->store.all().begin()->second;
    if (found) now = cat("pool=", spec.name, " in_force=", found->group, " ignored=", spec.group);
    if (!found) found = &spec;
  }
  if (!found && tried) now = cat("pool=", options.pool_name, " namespace=", ns, why_no_pool());
  if (now != complaint && !now.empty()) {
    if (found) {
      log_warn("two inference pools of that name", "{}", now);
    } else {
      log_error("no inference pool", "{}", now);
    }
  }
  if (tried) complaint = now;
  return found;
}

std::string KubernetesDiscovery::Impl::why_no_pool() const {
  std::string out;
  for (const auto& kind : pools) {
    const Reflector& reflector = kind->reflector;
    const Resource& resource = reflector.resource();
    out += cat(" ", resource.group, '/', resource.version, "=\"");
    if (reflector.state() == Reflector::State::kMissing) {
      out += "kind not installed";
    } else if (reflector.state() == Reflector::State::kDenied) {
      out += cat("denied to ", client->account(), ", allow it by: ", rbac_command(resource, "get,list,watch", client->account()));
    } else if (reflector.state() == Reflector::State::kSynced) {
      out += "no such pool, or one that cannot be used";
    } else {
      out += reflector.last_error();
    }
    out += '"';
  }
  return out;
}

void KubernetesDiscovery::Impl::follow_pool(const PoolSpec& spec) {
  const std::string wanted = standalone ? options.endpoint_selector : selector_text(spec.selector);
  if (wanted == selector) return;
  selector = wanted;
  if (next_pods) next_pods->reflector.cancel();
  next_pods = launch<Pod>({.group = "", .version = "v1", .plural = "pods", .label_selector = wanted}, kPodsMax, parse_pod);
}

// Where the cluster does not copy a node's topology to its pods, and lets us look at nodes: else topology stays unknown.
void KubernetesDiscovery::Impl::follow_nodes() {
  if (nodes || !pods || std::ranges::none_of(pods->store.all(), [](const auto& pod) { return wants_place(pod.second); })) return;
  nodes = launch<NodePlace>({.group = "", .version = "v1", .plural = "nodes", .optional = true, .cluster = true}, kNodesMax, parse_node);
}

void KubernetesDiscovery::Impl::changed() {
  if (stopping) return;
  if (const PoolSpec* spec = pool()) follow_pool(*spec);
  if (next_pods && next_pods->reflector.state() == Reflector::State::kSynced) {
    if (pods) pods->reflector.cancel();
    pods = std::exchange(next_pods, nullptr);
  }
  follow_nodes();
  bool dirty = nodes && nodes->store.take_changed();
  const auto take = [&](const auto& kinds) {
    for (const auto& kind : kinds) dirty |= kind->store.take_changed();
  };
  take(pools);
  take(objectives);
  take(rewrites);
  if (pods) dirty |= pods->store.take_changed();
  std::vector<Reflector::State> now;
  each_reflector([&](const Reflector& reflector) {
    now.push_back(reflector.state());
    now.push_back(reflector.tried() ? Reflector::State::kSynced : Reflector::State::kStarting);
  });
  if (std::exchange(states, now) != now) dirty = true;
  if (dirty) publish_soon();
  note();
}

void KubernetesDiscovery::Impl::publish_soon() {
  if (std::exchange(publish_pending, true)) return;
  const int64_t wait_ms = published_ms + options.timing.publish.count() - clock.now_ms();
  net::spawn_here(publish_later(net::Millis(std::max<int64_t>(wait_ms, 0))));
}

net::Task<> KubernetesDiscovery::Impl::publish_later(net::Millis delay) {
  co_await net::sleep_for(delay);
  publish_pending = false;
  if (!stopping) publish();
}

void KubernetesDiscovery::Impl::publish() {
  published_ms = clock.now_ms();
  ClusterState next = build();
  if (!next.synced && current->generation == 0) return;  // nothing to say yet
  next.generation = current->generation;                 // current is written by this thread alone
  if (next == *current) return;
  ++next.generation;
  auto state = std::make_shared<const ClusterState>(std::move(next));
  {
    std::lock_guard lock(mutex);
    current = state;
    status.synced = state->synced;
  }
  log_info("endpoints", "source=kubernetes pool={}/{} synced={} generation={} count={} objectives={} rewrites={}", ns,
           state->pool, state->synced, state->generation, state->members.size(), state->objectives.size(),
           state->rewrites.size());
  if (on_change) on_change(state);
}

ClusterState KubernetesDiscovery::Impl::build() {
  ClusterState out;
  out.pool_namespace = ns;
  out.pool = standalone ? standalone->name : options.pool_name;
  const PoolSpec* spec = pool();
  bool tried = true;
  // llm-d.ai's objects where that group is installed, else those of the group before it.
  const auto in_force = [&](const auto& kinds) -> const auto& {
    for (const auto& kind : kinds) tried &= kind->reflector.tried();
    const auto state = kinds[0]->reflector.state();
    const bool absent = state == Reflector::State::kMissing || state == Reflector::State::kDenied;
    return (absent ? kinds[1] : kinds[0])->store.all();
  };
  for (const auto& [name, item] : in_force(objectives)) {
    if (item.pool == out.pool) out.objectives.push_back(item.objective);
  }
  for (const auto& [name, item] : in_force(rewrites)) {
    if (item.pool == out.pool) out.rewrites.push_back(item.rewrite);
  }
  std::ranges::sort(out.rewrites, {}, [](const Rewrite& rewrite) { return std::tie(rewrite.created_s, rewrite.name); });
  if (!spec) return out;
  out.pool_group = spec->group;
  out.app_protocol = spec->app_protocol;
  if (pods) out.members = members(*spec);
  out.synced = pods != nullptr && tried;
  return out;
}

std::vector<Member> KubernetesDiscovery::Impl::members(const PoolSpec& spec) {
  std::vector<Member> out;
  for (const auto& [name, pod] : pods->store.all()) {
    if (!selects(spec.selector, pod.labels)) continue;  // pods of the selector before, until the new ones are read
    const NodePlace* node = nullptr;
    if (nodes) {
      if (const auto at = nodes->store.all().find(pod.node); at != nodes->store.all().end()) node = &at->second;
    }
    for (Member& member : members_of(pod, ns, spec.ports, options.ip_family)) {
      if (node) place(member, *node);
      out.push_back(std::move(member));
    }
  }
  if (out.size() > kClusterMembersMax) {
    if (!std::exchange(too_many, true))
      log_error("too many endpoints, the rest is ignored", "count={} max={}", out.size(), kClusterMembersMax);
    out.resize(kClusterMembersMax);
  }
  return out;
}

void KubernetesDiscovery::Impl::note() {
  KubernetesStatus now;
  int64_t oldest = INT64_MAX;
  each_reflector([&](const Reflector& reflector) {
    const Reflector::Counts& counts = reflector.counts();
    now.lists += counts.lists;
    now.watches += counts.watches;
    now.events += counts.events;
    now.errors += counts.errors;
    now.denied += counts.denied;
    if (reflector.state() == Reflector::State::kSynced) {
      oldest = std::min(oldest, reflector.heard_ms());
      if (!reflector.last_error().empty()) now.last_error = reflector.last_error();
    }
  });
  std::lock_guard lock(mutex);
  now.synced = status.synced;
  status = std::move(now);
  oldest_heard_ms = oldest == INT64_MAX ? -1 : oldest;
}

std::optional<std::string> deployment_of_pod(std::string_view pod_name) {
  for (int suffixes = 0; suffixes < 2; ++suffixes) {
    const size_t dash = pod_name.rfind('-');
    if (dash == std::string_view::npos || dash + 1 == pod_name.size()) return std::nullopt;
    const bool plain =
        std::ranges::all_of(pod_name.substr(dash + 1), [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); });
    if (!plain) return std::nullopt;
    pod_name = pod_name.substr(0, dash);
  }
  if (pod_name.empty()) return std::nullopt;
  return std::string(pod_name);
}

}  // namespace baton::discovery
