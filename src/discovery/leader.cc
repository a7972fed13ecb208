#include "discovery/leader.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <mutex>

#include "base/log.h"
#include "base/prng.h"
#include "discovery/kube_client.h"
#include "discovery/kube_files.h"
#include "discovery/lease.h"
#include "discovery/reflector.h"

namespace baton::discovery {
namespace {

// Followers come at different times: up to 1.2 of `retry` later, as client-go.
constexpr double kJitter = 1.2;

std::string own_name() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return cat(host.data(), '_', random_hex(16));
}

std::string time_now() {
  return micro_time(
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

}  // namespace

std::string lease_name_for(const std::string& pool_namespace, const std::string& pool) {
  return cat("epp-", pool_namespace, '-', pool, ".llm-d.ai");
}

struct LeaderElection::Impl {
  explicit Impl(LeaderOptions o) : options(std::move(o)), prng(options.seed ? options.seed : secure_random_u64()) {
    if (options.identity.empty()) options.identity = own_name();
    resource = {.group = "coordination.k8s.io", .version = "v1", .plural = "leases", .ns = options.ns};
  }

  Result<> prepare();
  net::Task<> run();
  net::Task<> watchdog();
  net::Task<> give_back(std::shared_ptr<std::promise<void>> done);
  net::Task<Result<bool>> attempt();  // true: we hold it, renewed as of renewed_ms
  net::Task<Result<std::string>> ask(const char* method, std::string body);
  void observe(const Lease& lease);
  bool held_by_other() const;
  void set_leads(bool now, const char* why);
  void complain(const Error& error);
  bool expired() const { return clock.now_ms() - renewed_ms.load() >= options.renew_deadline.count(); }

  net::IoThread io;
  LeaderOptions options;
  Prng prng;
  SteadyClock clock;
  Resource resource;
  std::unique_ptr<KubeClient> client;
  std::function<void(bool)> on_change;
  bool started = false;
  std::atomic<bool> leads{false};
  std::atomic<int64_t> renewed_ms{0};  // when the request that renewed it last was sent

  // On the I/O thread alone:
  net::Cancel cancel;
  bool stopping = false;
  std::string object;  // the lease as last written by us; "" = must be read first
  Lease seen;
  int64_t seen_ms = 0;  // our clock when `seen` changed last
  std::string complaint;

  mutable std::mutex mutex;
  std::string holder;
};

LeaderElection::LeaderElection(LeaderOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
LeaderElection::~LeaderElection() { stop(); }
const std::string& LeaderElection::identity() const { return impl_->options.identity; }
bool LeaderElection::leads() const { return impl_->leads.load() && !impl_->expired(); }

std::string LeaderElection::leader() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->holder;
}

Result<> LeaderElection::start(std::function<void(bool leader)> on_change) {
  impl_->on_change = std::move(on_change);
  BATON_OK(impl_->prepare());
  impl_->started = true;
  impl_->io.spawn([impl = impl_.get()] { return impl->run(); });
  impl_->io.spawn([impl = impl_.get()] { return impl->watchdog(); });
  return {};
}

void LeaderElection::stop() {
  if (std::exchange(impl_->started, false)) {
    auto done = std::make_shared<std::promise<void>>();
    impl_->io.spawn([impl = impl_.get(), done] { return impl->give_back(done); });
    done->get_future().wait();  // bounded by the requests' timeouts
  }
  impl_->io.stop();
}

Result<> LeaderElection::Impl::prepare() {
  if (options.retry.count() < 1 ||
      options.renew_deadline.count() <= static_cast<int64_t>(kJitter * static_cast<double>(options.retry.count())) ||
      options.lease <= options.renew_deadline || options.lease < std::chrono::seconds(1)) {
    return fail(Code::kInvalidArgument,
                "leader election needs lease > renew deadline > 1.2 * retry, and a lease of a second or more");
  }
  if (options.ns.empty() || options.lease_name.empty())
    return fail(Code::kInvalidArgument, "leader election needs a namespace and a lease name");
  if (!options.access) {
    BATON_TRY(options.access, find_kube_access(Environment::of_process(), options.kubeconfig, options.context));
  }
  // A request that hangs must leave time for another before the lease ends.
  KubeTiming timing = options.timing;
  for (net::Millis* wait : {&timing.connect_timeout, &timing.answer_timeout, &timing.body_timeout}) {
    *wait = std::min(*wait, options.renew_deadline / 3);
  }
  client = std::make_unique<KubeClient>(*options.access, timing, clock);
  if (auto r = client->check(); !r) return within("kubernetes credentials", r.error());
  return {};
}

net::Task<> LeaderElection::Impl::run() {
  log_info("leader election", "lease={}/{} identity={}", options.ns, options.lease_name, options.identity);
  while (!stopping) {
    const auto held = co_await attempt();
    if (stopping) break;
    if (!held) {
      object.clear();
      complain(held.error());
    } else {
      complaint.clear();
      set_leads(*held && !expired(), *held ? "lease acquired" : "lease held by another");
    }
    const double stretch = leads ? 1 : 1 + kJitter * prng.uniform();
    co_await net::sleep_for(net::Millis(static_cast<int64_t>(static_cast<double>(options.retry.count()) * stretch)), &cancel);
  }
}

// Steps down on time, even while a request hangs.
net::Task<> LeaderElection::Impl::watchdog() {
  while (!stopping) {
    if (leads && expired()) set_leads(false, "lease not renewed in time");
    const int64_t left = renewed_ms + options.renew_deadline.count() - clock.now_ms();
    co_await net::sleep_for(leads ? net::Millis(std::max<int64_t>(left, 1)) : options.retry, &cancel);
  }
}

net::Task<Result<std::string>> LeaderElection::Impl::ask(const char* method, std::string body) {
  KubeClient::Ask request;
  request.method = method;
  request.target = resource.path() + (std::string_view(method) == "POST" ? "" : "/" + options.lease_name);
  request.body = std::move(body);
  request.cancel = stopping ? nullptr : &cancel;
  BATON_CO_TRY(net::Response response, co_await client->fetch(request));
  if (response.status / 100 != 2) co_return std::unexpected(status_error(response.status, response.body));
  co_return std::move(response.body);
}

net::Task<Result<bool>> LeaderElection::Impl::attempt() {
  Lease mine{.holder = options.identity,
             .duration_s = std::chrono::ceil<std::chrono::seconds>(options.lease).count(),
             .transitions = 0,
             .acquired = time_now(),
             .renewed = time_now(),
             .version = ""};
  if (object.empty()) {
    auto found = co_await ask("GET", "");
    if (!found && found.error().code != Code::kNotFound) co_return std::unexpected(found.error());
    if (!found) {
      const int64_t sent_ms = clock.now_ms();
      BATON_CO_TRY(object, co_await ask("POST", new_lease(options.ns, options.lease_name, mine)));
      BATON_CO_TRY(const Lease now, parse_lease(object));
      observe(now);
      renewed_ms = sent_ms;
      co_return true;
    }
    BATON_CO_TRY(const Lease now, parse_lease(*found));
    observe(now);
    if (held_by_other()) co_return false;
    object = *std::move(found);
  }
  const bool again = seen.holder == options.identity;
  mine.transitions = seen.transitions + (again ? 0 : 1);
  if (again) mine.acquired = seen.acquired;
  BATON_CO_TRY(std::string text, with_lease(object, mine));
  const int64_t sent_ms = clock.now_ms();
  BATON_CO_TRY(object, co_await ask("PUT", std::move(text)));
  BATON_CO_TRY(const Lease now, parse_lease(object));
  observe(now);
  renewed_ms = sent_ms;
  co_return true;
}

void LeaderElection::Impl::observe(const Lease& lease) {
  if (lease == seen) return;
  if (lease.holder != seen.holder) log_info("leader", "lease={}/{} holder=\"{}\"", options.ns, options.lease_name, lease.holder);
  seen = lease;
  seen_ms = clock.now_ms();
  std::lock_guard lock(mutex);
  holder = lease.holder;
}

bool LeaderElection::Impl::held_by_other() const {
  const int64_t lasts_ms = seen.duration_s > 0 ? seen.duration_s * 1000 : options.lease.count();
  return !seen.holder.empty() && seen.holder != options.identity && clock.now_ms() < seen_ms + lasts_ms;
}

void LeaderElection::Impl::set_leads(bool now, const char* why) {
  if (leads.exchange(now) == now) return;
  log_info(now ? "leading" : "no longer leading", "lease={}/{} identity={} why=\"{}\"", options.ns, options.lease_name,
           options.identity, why);
  if (on_change) on_change(now);
}

void LeaderElection::Impl::complain(const Error& error) {
  if (error.code == Code::kAborted) return;  // another replica was quicker
  if (std::exchange(complaint, error.message) == error.message) return;
  if (error.code != Code::kPermissionDenied) {
    return log_warn("leader election failed, will try again", "lease={}/{} error=\"{}\"", options.ns, options.lease_name,
                    error.message);
  }
  const std::string who = client->account();
  log_error("kubernetes denies leader election", "lease={}/{} account={} said=\"{}\" fix=\"{}\"", options.ns, options.lease_name,
            who, error.message, rbac_command(resource, "get,create,update", who));
}

net::Task<> LeaderElection::Impl::give_back(std::shared_ptr<std::promise<void>> done) {
  stopping = true;
  cancel.cancel();
  const bool had = leads;
  set_leads(false, "stopping");
  // Twice: a renewal that was under way may come between our read and our write.
  for (int tries = 0; had && tries < 2; ++tries) {
    auto found = co_await ask("GET", "");
    auto lease = found ? parse_lease(*found) : Result<Lease>(std::unexpected(found.error()));
    if (!lease || lease->holder != options.identity) break;
    lease->holder.clear();
    lease->duration_s = 1;
    lease->renewed = time_now();
    auto text = with_lease(*found, *lease);
    auto freed = co_await ask("PUT", text ? *text : "");
    if (freed) break;
    log_warn("lease not given back, a standby waits for its end", "error=\"{}\"", freed.error().message);
  }
  done->set_value();
}

}  // namespace baton::discovery
