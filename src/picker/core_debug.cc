// What the outside may look at: gauges of the pool and its endpoints, and the state as JSON.
#include <cmath>

#include "base/json.h"
#include "base/log.h"
#include "picker/core.h"
#include "picker/limits.h"
#include "route/estimate.h"

namespace baton::picker {
namespace {

struct Spread {
  double sum = 0, squares = 0, n = 0;
  void add(double v) { sum += v, squares += v * v, ++n; }
  double mean() const { return n > 0 ? sum / n : 0; }
  double deviation() const { return n > 0 ? std::sqrt(std::max(0.0, squares / n - mean() * mean())) : 0; }
};

}  // namespace

void DecisionLog::write(JsonWriter& w, int64_t now_ms) const {
  std::lock_guard lock(mutex_);
  w.array();
  for (uint64_t i = 0; i < std::min<uint64_t>(next_, kDecisionsKept); ++i) {
    const DecisionRecord& r = ring_[(next_ - 1 - i) % kDecisionsKept];
    w.object()
        .field("age_ms", now_ms - r.at_ms)
        .field("request_id", r.request_id)
        .field("model", r.model)
        .field("target", r.target);
    w.field("destination", r.primary).field("prefill", r.prefill).field("why", std::string(r.why)).field("profile", r.profile);
    w.field("priority", r.priority).field("prompt_tokens", r.prompt_tokens).field("cached_tokens", r.cached_tokens);
    w.field("precise", r.precise)
        .field("prefill_cached_tokens", r.prefill_cached_tokens)
        .field("waited_ms", r.waited_ms)
        .field("decide_us", r.decide_us);
    if (r.estimated_ttft_ms >= 0) w.field("estimated_ttft_ms", r.estimated_ttft_ms);
    w.field("again", r.again).key("scores").object();
    for (int k = 0; k < r.best_count; ++k) w.field(r.best[k].first, static_cast<double>(r.best[k].second));
    w.end().end();
  }
  w.end();
}

// Under gauges_mutex_, with a view of which the endpoint is part: it is forgotten under the same lock after it left the view.
void Core::own(const std::string& address, MetricId id, std::vector<std::string> values) {
  auto& owned = owned_series_[address];
  for (const OwnedSeries& series : owned) {
    if (series.id == id && series.values == values) return;
  }
  owned.push_back({id, std::move(values)});
}

void Core::set_gauge(const std::string& address, MetricId id, std::vector<std::string> values, double value) {
  gauge_of(metrics.metrics(), id, std::vector<std::string_view>(values.begin(), values.end())).set(value);
  own(address, id, std::move(values));
}

void Core::raise_counter(const std::string& address, MetricId id, std::vector<std::string> values, double value) {
  counter_of(metrics.metrics(), id, std::vector<std::string_view>(values.begin(), values.end())).raise(value);
  own(address, id, std::move(values));
}

void Core::forget_gauges(const std::string& address) {
  std::lock_guard lock(gauges_mutex_);
  const auto at = owned_series_.find(address);
  if (at == owned_series_.end()) return;
  for (const OwnedSeries& series : at->second)
    drop_series(metrics.metrics(), series.id, std::vector<std::string_view>(series.values.begin(), series.values.end()));
  owned_series_.erase(at);
}

void Core::pool_gauges(const View& view) {
  Spread queue, running, kv;
  double ready = 0;
  const int64_t now = clock.now_ns();
  for (const auto& state : view.states) {
    const route::Load load = state->load(now);
    ready += load.healthy ? 1 : 0;
    if (!load.healthy || load.age_ms < 0 || load.age_ms > options.staleness_ms) continue;
    queue.add(load.waiting), running.add(load.running), kv.add(static_cast<double>(load.kv_usage));
  }
  Metrics& m = metrics.metrics();
  const auto set = [&](MetricId id, double value) { gauge_of(m, id, {options.pool_name}).set(value); };
  set(MetricId::kAverageKv, kv.mean()), set(MetricId::kStdDevKv, kv.deviation());
  set(MetricId::kAverageQueue, queue.mean()), set(MetricId::kStdDevQueue, queue.deviation());
  set(MetricId::kAverageRunning, running.mean()), set(MetricId::kStdDevRunning, running.deviation());
  set(MetricId::kReadyEndpoints, ready);
  constexpr std::string_view kPrefixProducer = "approx-prefix-cache-producer";
  gauge_of(m, MetricId::kPrefixSize, {kPrefixProducer, kPrefixProducer}).set(static_cast<double>(prefix.size()));
}

// What the engines' events came to; only with enableMetrics, as in llm-d.
void Core::kv_counters() {
  const auto feed = live()->kv;
  if (!feed || !feed->params.metrics) return;
  Metrics& m = metrics.metrics();
  const auto raise = [&](MetricId id, uint64_t value) { counter_of(m, id).raise(static_cast<double>(value)); };
  const route::KvIndexCounts index = feed->index.counts();
  raise(MetricId::kKvAdmissions, index.stored);
  raise(MetricId::kKvEvictions, index.removed);
  raise(MetricId::kKvLookups, index.lookups);
  raise(MetricId::kKvLookupHits, index.hit_blocks);
  raise(MetricId::kKvMaxPodHits, index.hit_blocks);
  raise(MetricId::kKvRemovedSuppressed, index.removals_kept);
  raise(MetricId::kKvRemovedForwarded, index.removed - index.removals_kept);
  const KvSourceCounts source = feed->source.counts();
  gauge_of(m, MetricId::kKvSubscribers).set(static_cast<double>(source.subscribers));
  gauge_of(m, MetricId::kKvQueueDepth).set(static_cast<double>(source.waiting));
  gauge_of(m, MetricId::kKvQueueCapacity).set(static_cast<double>(source.waiting_max));
  raise(MetricId::kKvLost, source.lost + source.dropped);
  uint64_t connects = 0;
  for (const auto& [address, n] : source.connect_errors_of) {
    connects += n;
    counter_of(m, MetricId::kKvSocketErrors, {address, "connect"}).raise(static_cast<double>(n));
  }
  counter_of(m, MetricId::kKvSocketErrors, {"", "poll"})
      .raise(static_cast<double>(source.socket_errors - std::min(source.socket_errors, connects)));
  for (const auto& [address, n] : source.messages_of)
    raise_counter(address, MetricId::kKvMessages, {address}, static_cast<double>(n));
}

void Core::endpoint_gauges(const View& view) {
  for (size_t i = 0; i < view.states.size(); ++i) {
    const EndpointState& state = *view.states[i];
    const std::string& name = state.name.empty() ? state.address : state.name;
    set_gauge(state.address, MetricId::kEndpointQueue, {options.pool_name, name}, state.waiting.load());
    set_gauge(state.address, MetricId::kEndpointUp, {name}, state.healthy ? 1 : 0);
    std::map<std::pair<std::string, std::string>, std::pair<int64_t, int64_t>> by_tenant;
    std::map<std::string, uint64_t> by_target;
    state.each_cell([&](const InFlightCell& cell) {
      auto& [requests, tokens] = by_tenant[{cell.fairness_id, cell.priority}];
      requests += cell.requests.load();
      tokens += cell.tokens.load();
      by_target[cell.target] += cell.attempts.load();
    });
    const std::string& ns = options.pool_namespace;
    for (const auto& [who, counts] : by_tenant) {
      const std::vector<std::string> values = {name, ns, "inflight-load-producer", who.first, who.second};
      set_gauge(state.address, MetricId::kInflightRequests, values, static_cast<double>(counts.first));
      set_gauge(state.address, MetricId::kInflightTokens, values, static_cast<double>(counts.second));
    }
    for (const auto& [target, attempts] : by_target) {
      raise_counter(state.address, MetricId::kAttempts, {"success", target, name, ns, std::to_string(state.port)},
                    static_cast<double>(attempts));
    }
  }
}

// For a person or an autoscaler; nothing here changes a role.
void Core::propose_flip(const View& view) {
  std::vector<route::Load> loads;
  std::vector<cost::WorkerCost> costs;
  for (const auto& state : view.states) {
    loads.push_back(state->load(clock.now_ns()));
    costs.push_back(state->cost());
  }
  const auto flip = route::propose_role_flip({view.endpoints, loads, costs}, *live()->plan);
  const auto set = [&](MetricId id, double value) { gauge_of(metrics.metrics(), id, {options.pool_name}).set(value); };
  set(MetricId::kPrefillPressure, flip.prefill_pressure);
  set(MetricId::kDecodePressure, flip.decode_pressure);
  const std::string address = flip.endpoint < 0 ? std::string() : view.endpoints[static_cast<size_t>(flip.endpoint)].address;
  const std::string now = flip.endpoint < 0 ? std::string() : cat(address, " to ", route::role_name(flip.to));
  set(MetricId::kRoleFlip, flip.endpoint < 0 ? 0 : 1);
  if (now != last_flip_ && flip.endpoint >= 0) {
    log_info("another role would even out the stages", "endpoint={} to={} prefill_pressure={:.2f} decode_pressure={:.2f}",
             address, route::role_name(flip.to), flip.prefill_pressure, flip.decode_pressure);
  }
  last_flip_ = now;
}

void Core::refresh_metrics() {
  {
    std::lock_guard lock(gauges_mutex_);
    const auto view = pool.view();
    pool_gauges(*view);
    endpoint_gauges(*view);
    kv_counters();
    if (options.propose_role_flips) propose_flip(*view);
  }
  admission.refresh_gauges();
  metrics.plugins.flush();
  if (options.on_refresh) options.on_refresh();
}

std::string Core::debug_json() const {
  const auto now_ns = clock.now_ns();
  const auto view = pool.view();
  const auto state_of = live();
  JsonWriter w;
  w.object()
      .field("pool", options.pool_name)
      .field("namespace", options.pool_namespace)
      .field("synced", state_of->cluster->synced);
  w.field("generation", state_of->cluster->generation).field("stopped", stopped.load());
  w.field("prefix_blocks", prefix.size()).field("sessions", sessions.size()).field("waiting", admission.waiting());
  w.field("saturation", admission.saturation()).field("flow_control", state_of->plan->flow_control.enabled);
  if (state_of->kv) {
    const KvSourceCounts heard = state_of->kv->source.counts();
    const route::KvIndexCounts index = state_of->kv->index.counts();
    w.key("kv_events")
        .object()
        .field("applied", heard.applied)
        .field("lost", heard.lost)
        .field("decode_errors", heard.decode_errors);
    w.field("unknown_pods", heard.unknown_pods).field("subscribers", heard.subscribers).field("blocks", index.blocks);
    w.field("orphans", index.orphans).field("lookups", index.lookups).field("hits", index.hits).end();
  }
  w.key("bands").array();
  for (const auto& band : admission.bands()) {
    w.object().field("priority", band.priority).field("requests", band.requests).field("bytes", band.bytes);
    w.field("flows", band.flows).field("ceiling", band.ceiling).end();
  }
  w.end().key("endpoints").array();
  for (size_t i = 0; i < view->states.size(); ++i) {
    const EndpointState& state = *view->states[i];
    const route::Load load = state.load(now_ns);
    w.object()
        .field("address", state.address)
        .field("name", state.name)
        .field("role", std::string(route::role_name(view->endpoints[i].role)));
    w.field("healthy", load.healthy).field("age_ms", load.age_ms).field("waiting", load.waiting).field("running", load.running);
    w.field("kv_usage", static_cast<double>(load.kv_usage)).field("kv_usage_max", static_cast<double>(state.kv_usage_max.load()));
    w.field("inflight_requests", load.inflight_requests)
        .field("inflight_tokens", load.inflight_tokens)
        .field("unseen", state.unseen());
    w.field("block_tokens", load.block_tokens).field("blocks_total", load.blocks_total).field("sent", state.sent.load());
    w.key("models").array();
    for (const std::string& model : view->endpoints[i].models) w.value(model);
    w.end().key("lora").array();
    if (const auto lora = state.lora()) {
      for (const std::string& adapter : lora->running) w.value(adapter);
    }
    w.end();
    const cost::WorkerCost cost = state.cost();
    w.key("cost")
        .object()
        .field("prefill_us_per_token", cost.prefill.per_token_us)
        .field("prefill_fixed_us", cost.prefill.fixed_us);
    w.field("decode_fixed_us", cost.decode.fixed_us).field("decode_us_per_stream", cost.decode.per_token_us).end().end();
  }
  w.end().key("decisions");
  decisions.write(w, now_ns / 1'000'000);
  w.end();
  return w.take();
}

}  // namespace baton::picker
