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
void Core::own(const std::string& address, std::string_view name, Labels labels, bool counter) {
  auto& owned = owned_series_[address];
  for (const OwnedSeries& series : owned) {
    if (series.name == name && series.labels == labels) return;
  }
  owned.push_back({std::string(name), std::move(labels), counter});
}

void Core::set_gauge(const std::string& address, std::string_view name, std::string_view help, Labels labels, double value) {
  metrics.metrics().gauge(name, help, labels).set(value);
  own(address, name, std::move(labels), false);
}

void Core::raise_counter(const std::string& address, std::string_view name, std::string_view help, Labels labels, double value) {
  Counter& counter = metrics.metrics().counter(name, help, labels);
  if (value > counter.value()) counter.inc(value - counter.value());
  own(address, name, std::move(labels), true);
}

void Core::forget_gauges(const std::string& address) {
  std::lock_guard lock(gauges_mutex_);
  const auto at = owned_series_.find(address);
  if (at == owned_series_.end()) return;
  for (const OwnedSeries& series : at->second) {
    if (series.counter)
      metrics.metrics().remove_counter(series.name, series.labels);
    else
      metrics.metrics().remove_gauge(series.name, series.labels);
  }
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
  const Labels labels = {{"name", options.pool_name}};
  const auto mean = [&](std::string_view what, std::string_view help, const Spread& spread) {
    m.gauge(cat("llm_d_epp_average_", what), help, labels).set(spread.mean());
    m.gauge(cat("inference_pool_average_", what), help, labels).set(spread.mean());
    m.gauge(cat("llm_d_epp_std_dev_", what), help, labels).set(spread.deviation());
  };
  mean("kv_cache_utilization", "KV cache usage of the endpoints, 0 to 1", kv);
  mean("queue_size", "requests waiting at the endpoints", queue);
  mean("running_requests", "requests running at the endpoints", running);
  m.gauge("llm_d_epp_ready_endpoints", "endpoints that can take requests", labels).set(ready);
  m.gauge("inference_pool_ready_pods", "endpoints that can take requests", labels).set(ready);
  const Labels plugin = {{"plugin_name", "approx-prefix-cache-producer"}, {"plugin_type", "approx-prefix-cache-producer"}};
  m.gauge("llm_d_epp_prefix_indexer_size", "blocks the prefix index remembers", plugin).set(static_cast<double>(prefix.size()));
  m.gauge("inference_extension_prefix_indexer_size", "blocks the prefix index remembers").set(static_cast<double>(prefix.size()));
}

void Core::endpoint_gauges(const View& view) {
  for (size_t i = 0; i < view.states.size(); ++i) {
    const EndpointState& state = *view.states[i];
    const std::string& name = state.name.empty() ? state.address : state.name;
    const double queue = state.waiting.load();
    set_gauge(state.address, "llm_d_epp_per_endpoint_queue_size", "requests waiting at an endpoint",
              {{"name", options.pool_name}, {"model_server_endpoint", name}}, queue);
    set_gauge(state.address, "inference_pool_per_pod_queue_size", "requests waiting at an endpoint",
              {{"name", options.pool_name}, {"model_server_pod", name}}, queue);
    set_gauge(state.address, "llm_d_epp_endpoint_up", "1 if the endpoint can take requests", {{"endpoint_name", name}},
              state.healthy ? 1 : 0);
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
      const Labels labels = {{"endpoint_name", name},
                             {"namespace", ns},
                             {"producer_name", "inflight-load-producer"},
                             {"fairness_id", who.first},
                             {"priority", who.second}};
      set_gauge(state.address, "llm_d_epp_inflight_requests", "requests of ours on an endpoint", labels,
                static_cast<double>(counts.first));
      set_gauge(state.address, "llm_d_epp_inflight_tokens", "prompt tokens of ours an endpoint has still to compute", labels,
                static_cast<double>(counts.second));
    }
    for (const auto& [target, attempts] : by_target) {
      const std::string& name_of = target;
      const auto raise = [&, sent = attempts](std::string_view metric, const char* label) {
        raise_counter(state.address, metric, "decisions by result",
                      {{"status", "success"},
                       {"target_model_name", name_of},
                       {label, name},
                       {"namespace", ns},
                       {"port", std::to_string(state.port)}},
                      static_cast<double>(sent));
      };
      raise("llm_d_epp_scheduler_attempts", "endpoint_name");
      raise("inference_extension_scheduler_attempts", "pod_name");
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
  Metrics& m = metrics.metrics();
  const Labels pool_labels = {{"inference_pool", options.pool_name}};
  m.gauge("llm_d_epp_prefill_pressure", "mean seconds of queued prompt work", pool_labels).set(flip.prefill_pressure);
  m.gauge("llm_d_epp_decode_pressure", "mean share of KV and streams in use", pool_labels).set(flip.decode_pressure);
  const std::string address = flip.endpoint < 0 ? std::string() : view.endpoints[static_cast<size_t>(flip.endpoint)].address;
  const std::string now = flip.endpoint < 0 ? std::string() : cat(address, " to ", route::role_name(flip.to));
  m.gauge("llm_d_epp_role_flip_proposed", "1 if another role for one worker would even out the stages", pool_labels)
      .set(flip.endpoint < 0 ? 0 : 1);
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
    if (options.propose_role_flips) propose_flip(*view);
  }
  admission.refresh_gauges();
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
