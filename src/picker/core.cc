#include "picker/core.h"

#include <algorithm>

#include "base/log.h"
#include "picker/limits.h"

namespace baton::picker {

namespace {
// Replicas that exchange prefixes must hash alike; nobody who lacks their token can prepare prompts that collide.
uint64_t shared_seed(const PickerOptions& options) {
  if (!options.replicas) return secure_random_u64();
  uint64_t seed = 0;
  for (const char c : options.replicas->token) seed = mix64(seed * 31 + static_cast<unsigned char>(c) + 1);
  return mix64(seed + 1);
}
}  // namespace

Core::Core(PickerOptions given, std::shared_ptr<const route::Plan> plan, Metrics& m, const Clock& c)
    : options(std::move(given)),
      clock(c),
      metrics(m, options.pool_name),
      hash_seed(shared_seed(options)),
      seed_(options.seed != 0 ? options.seed : secure_random_u64()),
      admission(c, metrics, {.view = [this] { return pool.view(); }, .arm = [this](int64_t at_us) { arm(at_us); }}),
      prober(pool, c,
             {.fresh = [this](const EndpointState& state) { fresh_numbers(state); },
              .failed = [this](const EndpointState&, ScrapeFault fault) { scrape_failed(fault); },
              .changed = [this](EndpointState&) { admission.poke(); }}) {
  for (size_t i = 0; i < faults_.size(); ++i) {
    faults_[i] = counter_of(m, MetricId::kScrapeFaults, {scrape_fault_name(static_cast<ScrapeFault>(i))});
  }
  poll_errors_ = counter_of(m, MetricId::kPollErrors, {"metrics-data-source"});
  extract_errors_ = counter_of(m, MetricId::kExtractErrors, {"metrics-data-source", "core-metrics-extractor"});
  set_plan(std::move(plan));
  if (options.replicas) replica = std::make_unique<Replica>(*options.replicas, replica_hooks(), clock);
}

Core::~Core() { stop(); }

void Core::scrape_failed(ScrapeFault fault) {
  faults_[static_cast<size_t>(fault)].inc();
  (fault == ScrapeFault::kNoNumbers ? extract_errors_ : poll_errors_).inc();
}

Result<> Core::start() {
  std::lock_guard writer(writer_mutex_);
  const auto now = live();
  BATON_OK(make_scanners(now->plan->source));  // a bad metric name stops the start; on reload it is logged
  if (replica) BATON_OK(replica->start());
  started_ = true;
  if (now->kv) start_feed(*now->kv);
  for (const auto& state : pool.view()->states) prober.follow(state);
  return {};
}

void Core::stop() {
  stopped = true;
  admission.stop();
  if (replica) replica->stop();
  if (const auto now = live(); now && now->kv) now->kv->source.stop();
  if (const auto now = live(); now && now->tokens) now->tokens->stop();
  prober.stop();
}

KvFeed::KvFeed(const route::KvEventsParams& given, const Clock& clock)
    : params(given),
      index(given),
      source({.topic_filter = given.topic_filter, .shared_endpoint = given.zmq_endpoint}, index, clock) {}

void KvFeed::follow(const View& view) {
  std::vector<KvEndpoint> out;
  for (const route::Endpoint& e : view.endpoints) {
    const auto port = [&](int64_t base) { return base > 0 ? static_cast<int>(base) + e.rank : 0; };
    out.push_back({.slot = e.slot,
                   .host = e.host,
                   .port = port(params.socket_port),
                   .replay_port = port(params.replay_socket_port),
                   .rank = e.rank,
                   .model = e.models.empty() ? std::string() : e.models.front(),
                   .name = e.name,
                   .address = e.address});
  }
  source.set_endpoints(std::move(out));
}

// Without events the precise index stays empty: every worker looks cold, which costs hits and no answers.
void Core::start_feed(KvFeed& feed) {
  if (const auto started = feed.source.start(); !started)
    log_error("KV events cannot be read", "error=\"{}\"", started.error().message);
}

std::shared_ptr<const Live> Core::live() const {
  std::lock_guard lock(mutex_);
  return live_;
}

std::shared_ptr<const ProbePlan> Core::probe_plan(const route::Plan& plan) const {
  auto out = std::make_shared<ProbePlan>();
  out->health = options.replies_need_health;
  out->models = options.replies_need_health || plan.needs.models;
  out->metrics = plan.needs.metrics && plan.scrape;
  out->lora = plan.needs.lora;
  out->interval_ms = plan.source.interval_ms > 0 ? plan.source.interval_ms : options.scrape_interval_ms;
  out->idle_ms = kProbeIdleMs;
  const int64_t staleness = plan.flow_control.enabled ? plan.detector.staleness_ms : options.staleness_ms;
  if (out->metrics && staleness < 2 * out->interval_ms)
    log_warn("metrics count as stale sooner than they are read again", "interval_ms={} staleness_ms={}", out->interval_ms,
             staleness);
  // An idle endpoint must not look stale: it would count as full.
  out->idle_ms = std::clamp(staleness / 2, out->interval_ms, out->idle_ms);
  out->path = plan.source.path;
  out->port = static_cast<int>(plan.source.port);
  out->default_engine = plan.source.default_engine;
  if (plan.source.scheme == "https") {
    auto tls = net::TlsClient::make({.verify = !plan.source.insecure_skip_verify,
                                     .ca_file = plan.source.ca_cert_path,
                                     .cert_file = plan.source.client_cert_path,
                                     .key_file = plan.source.client_key_path});
    if (tls)
      out->tls = *std::move(tls);
    else
      log_error("metrics cannot be read by https, plain http is used", "error=\"{}\"", tls.error().message);
  }
  auto scanners = make_scanners(plan.source);
  if (!scanners) {
    log_error("custom metric names are not usable, built-in ones are used", "error=\"{}\"", scanners.error().message);
    scanners = make_scanners({});
  }
  out->scanners = *std::move(scanners);
  return out;
}

void Core::set_plan(std::shared_ptr<const route::Plan> plan) {
  std::lock_guard writer(writer_mutex_);
  auto next = std::make_shared<Live>();
  if (const auto old = live()) *next = *old;
  if (!next->cluster) next->cluster = std::make_shared<const discovery::ClusterState>();
  next->plan = std::move(plan);
  predictor.set_prior(next->plan->cost.worker);
  next->times = metrics.plugins.of(*next->plan);
  if (!next->plan->needs.kv_events) {
    next->kv = nullptr;
  } else if (!next->kv || next->kv->params != next->plan->kv_events) {
    next->kv = std::make_shared<KvFeed>(next->plan->kv_events, clock);
    if (next->kv->params.metrics) next->kv->lookup = histogram_of(metrics.metrics(), MetricId::kKvLookupLatency);
    next->kv->follow(*pool.view());
    if (started_) start_feed(*next->kv);
  }
  const auto before = live();
  if (!before || !before->kv || !next->kv || before->plan->tokens != next->plan->tokens || before->kv->params != next->kv->params)
    next->tokens = token_source(*next->plan);
  prober.set_plan(probe_plan(*next->plan));
  admission.set_plan(next->plan);
  tuned_block_tokens_ = 0;
  std::lock_guard lock(mutex_);
  live_ = std::move(next);
}

std::shared_ptr<TokenSource> Core::token_source(const route::Plan& plan) {
  if (!plan.needs.kv_events || plan.tokens.kind == route::TokenParams::Kind::kEstimate) return nullptr;
  const auto worker = [this]() -> std::optional<TokenSource::Address> {
    const auto view = pool.view();
    std::vector<size_t> up;
    for (size_t i = 0; i < view->states.size(); ++i) {
      if (view->states[i]->healthy) up.push_back(i);
    }
    if (up.empty()) return std::nullopt;
    const route::Endpoint& e = view->endpoints[up[prng().below(up.size())]];
    return TokenSource::Address{e.host, e.port};
  };
  const auto tokens_max = static_cast<size_t>(plan.kv_events.block_tokens) * route::kPrefixBlocksMax;
  return std::make_shared<TokenSource>(plan.tokens, tokens_max, worker, metrics.metrics());
}

void Core::set_cluster(std::shared_ptr<const discovery::ClusterState> state) {
  std::lock_guard writer(writer_mutex_);
  auto next = std::make_shared<Live>(*live());
  next->cluster = state;
  next->priorities.clear();
  for (const auto& objective : state->objectives) next->priorities[objective.name] = objective.priority;
  next->rewrites = RewriteTable(state->rewrites);
  const auto before = pool.view();
  const Pool::Change change = pool.apply(state->members, next->plan->source.engine_label, !options.replies_need_health);
  for (const int slot : change.gone) {
    prefix.forget(slot);
    cold.forget(slot);
    media.forget(slot);
  }
  if (next->kv) next->kv->follow(*pool.view());
  for (const auto& old : before->states) {
    if (old->removed) endpoint_gone(*old);
  }
  for (const auto& fresh : change.fresh) {
    predictor.adopt(*fresh);
    set_capacity(*fresh, next->plan->prefix);
    if (started_) prober.follow(fresh);
  }
  {
    std::lock_guard lock(mutex_);
    live_ = std::move(next);
  }
  admission.poke();
}

void Core::endpoint_gone(const EndpointState& state) {
  predictor.forget(state);
  forget_gauges(state.address);
}

void Core::report_down(std::string_view address) {
  for (const auto& state : pool.view()->states) {
    if (state->address == address && state->healthy.exchange(false))
      log_warn("endpoint refuses connections", "endpoint={}", address);
  }
}

ReplicaHooks Core::replica_hooks() {
  return {.local =
              [this] {
                std::vector<ReplicaCount> out;
                for (const auto& state : pool.view()->states)
                  out.push_back({state->address, state->inflight_requests.load(), state->inflight_tokens.load()});
                return out;
              },
          .remote =
              [this](std::span<const ReplicaCount> others) {
                const auto view = pool.view();
                std::vector<const ReplicaCount*> by_index(view->states.size(), nullptr);
                for (const ReplicaCount& count : others) {
                  if (const int i = view->find(count.address); i >= 0) by_index[static_cast<size_t>(i)] = &count;
                }
                for (size_t i = 0; i < by_index.size(); ++i) {
                  view->states[i]->peer_requests = by_index[i] != nullptr ? static_cast<int32_t>(by_index[i]->requests) : 0;
                  view->states[i]->peer_tokens = by_index[i] != nullptr ? by_index[i]->tokens : 0;
                }
                admission.poke();
              },
          .prefix =
              [this](std::string_view address, std::span<const uint64_t> hashes) {
                const auto view = pool.view();
                if (const int i = view->find(std::string(address)); i >= 0)
                  prefix.record(hashes, view->states[static_cast<size_t>(i)]->slot);
              },
          .endpoints =
              [this] {
                std::vector<std::string> out;
                for (const auto& state : pool.view()->states) out.push_back(state->address);
                return out;
              },
          .held =
              [this](std::string_view address, size_t max) {
                const auto view = pool.view();
                const int i = view->find(std::string(address));
                return i < 0 ? std::vector<uint64_t>() : prefix.newest(view->states[static_cast<size_t>(i)]->slot, max);
              },
          .older =
              [this](std::string_view address, std::span<const uint64_t> hashes) {
                const auto view = pool.view();
                if (const int i = view->find(std::string(address)); i >= 0)
                  prefix.append_older(hashes, view->states[static_cast<size_t>(i)]->slot);
              }};
}

void Core::fresh_numbers(const EndpointState& state) {
  const int32_t tokens = state.block_tokens;
  int32_t none = 0;
  if (tokens > 0 && tuned_block_tokens_ == 0) tuned_block_tokens_.compare_exchange_strong(none, tokens);
  if (state.blocks_total > 0 && !state.capacity_known.exchange(true)) set_capacity(state, live()->plan->prefix);
  admission.poke();
}

// What an engine holds is what is worth remembering of it.
void Core::set_capacity(const EndpointState& state, const route::PrefixParams& params) {
  const int64_t blocks = params.auto_tune && state.blocks_total > 0 ? state.blocks_total.load() : params.capacity_per_endpoint;
  prefix.set_capacity(state.slot, static_cast<size_t>(std::max<int64_t>(1, blocks)));
}

std::unique_ptr<Scratch> Core::borrow() {
  std::lock_guard lock(scratch_mutex_);
  if (scratch_.empty()) return std::make_unique<Scratch>(clock);
  auto scratch = std::move(scratch_.back());
  scratch_.pop_back();
  return scratch;
}

void Core::give_back(std::unique_ptr<Scratch> scratch) {
  std::lock_guard lock(scratch_mutex_);
  scratch_.push_back(std::move(scratch));
}

int Core::prefix_block_tokens(const route::Plan& plan) const {
  const int32_t tuned = tuned_block_tokens_.load(std::memory_order_relaxed);
  return plan.prefix.auto_tune && tuned > 0 ? tuned : static_cast<int>(std::max<int64_t>(1, plan.prefix.block_tokens));
}

namespace {
net::Task<> expire_at(Admission& admission, const Clock& clock, int64_t at_us) {
  const int64_t left_us = at_us - clock.now_us();
  if (left_us > 0) co_await net::sleep_for(net::Millis((left_us + 999) / 1'000));
  admission.expire();
}
}  // namespace

void Core::arm(int64_t at_us) {
  if (at_us == INT64_MAX || stopped) return;
  prober.spawn([this, at_us] { return expire_at(admission, clock, at_us); });
}

}  // namespace baton::picker
