#include "picker/picker_metrics.h"

#include "base/prng.h"
#include "base/result.h"
#include "picker/limits.h"

namespace baton::picker {
namespace {

uint64_t hash_of(std::string_view a, std::string_view b, std::string_view c, int64_t d) {
  const std::hash<std::string_view> h;
  return mix64(mix64(mix64(h(a)) ^ h(b)) ^ h(c)) + static_cast<uint64_t>(d);
}

constexpr std::string_view kPrefixProducer = "approx-prefix-cache-producer", kMediaProducer = "mm-embeddings-cache-producer";

}  // namespace

Series::Series(PickerMetrics& owner, std::string model_, std::string target_, std::string fairness_id_, int64_t priority_)
    : model(std::move(model_)),
      target(std::move(target_)),
      fairness_id(std::move(fairness_id_)),
      priority(std::to_string(priority_)),
      owner_(owner),
      total_(counter_of(owner.metrics_, MetricId::kRequests, {model, target, fairness_id, priority})),
      running_(gauge_of(owner.metrics_, MetricId::kRunning, {model, target, fairness_id, priority})) {}

// Made when first needed: a series has twenty histograms and few requests need them all.
const TwinHistogram& Series::histogram(size_t slot) {
  if (const TwinHistogram* ready = ready_[slot].load(std::memory_order_acquire)) return *ready;
  std::lock_guard lock(mutex_);
  auto& made = made_[slot];
  if (!made) {
    const bool ttft = slot + 2 >= kSpan;
    const auto id = static_cast<MetricId>(std::min(kFirst + slot, static_cast<size_t>(MetricId::kTtft)));
    const std::string_view streaming = slot + 1 == kSpan ? "true" : "false";
    made = std::make_unique<TwinHistogram>(
        ttft ? histogram_of(owner_.metrics_, id, {model, target, fairness_id, priority, streaming})
             : histogram_of(owner_.metrics_, id, {model, target, fairness_id, priority}));
  }
  ready_[slot].store(made.get(), std::memory_order_release);
  return *made;
}

void Series::observe(MetricId what, double v) { histogram(static_cast<size_t>(what) - kFirst).observe(v); }

void Series::first_byte(bool streaming, double seconds) { histogram(kSpan - (streaming ? 1 : 2)).observe(seconds); }

template <class Handle, class Make>
Handle Series::kept(std::unordered_map<std::string, Handle>& where, std::string key, Make make) {
  std::lock_guard lock(mutex_);
  Handle& slot = where[std::move(key)];
  if (slot.now == nullptr) slot = make();
  return slot;
}

void Series::count_error(std::string_view code) {
  kept(counters_, cat("error ", code), [&] {
    return counter_of(owner_.metrics_, MetricId::kErrors, {model, target, fairness_id, priority, code});
  }).inc();
}

void Series::attempt_failed() {
  kept(counters_, "attempt", [&] {
    return counter_of(owner_.metrics_, MetricId::kAttempts, {"failure", target, "", "", ""});
  }).inc();
}

void Series::count_decision(std::string_view decision_type, const PluginName& handler) {
  for (const MetricId id : {MetricId::kDisaggDecisions, MetricId::kPdDecisions}) {
    kept(counters_, cat("decision ", static_cast<int>(id), " ", decision_type, " ", handler.name), [&] {
      return counter_of(owner_.metrics_, id, {handler.name, handler.type, model, decision_type});
    }).inc();
  }
}

void Series::waited(std::string_view outcome, double seconds) {
  kept(histograms_, cat("waited ", outcome), [&] {
    return histogram_of(owner_.metrics_, MetricId::kQueueDuration, {fairness_id, priority, outcome, owner_.pool_, model, target});
  }).observe(seconds);
}

void Series::enqueued(std::string_view outcome, double seconds) {
  kept(histograms_, cat("enqueued ", outcome), [&] {
    return histogram_of(owner_.metrics_, MetricId::kEnqueueDuration, {fairness_id, priority, outcome});
  }).observe(seconds);
}

void Series::queued(int64_t requests_delta, int64_t bytes_delta) {
  const auto gauge = [&](MetricId id) {
    return kept(gauges_, cat("queue ", static_cast<int>(id)),
                [&] { return gauge_of(owner_.metrics_, id, {fairness_id, priority, owner_.pool_, model, target}); });
  };
  gauge(MetricId::kQueueSize).add(static_cast<double>(requests_delta));
  gauge(MetricId::kQueueBytes).add(static_cast<double>(bytes_delta));
}

void Series::latency_gauge(const PluginName& plugin, std::string_view type, double value) {
  kept(gauges_, cat("latency ", type, " ", plugin.name), [&] {
    return gauge_of(owner_.metrics_, MetricId::kLatencyGauge, {plugin.name, plugin.type, model, target, type});
  }).set(value);
}

void Series::predicted(const PluginName& plugin, double ttft_s, double tpot_s, double took_s) {
  const auto observe_one = [&](MetricId id, double v) {
    kept(histograms_, cat("predicted ", static_cast<int>(id), " ", plugin.name), [&] {
      return histogram_of(owner_.metrics_, id, {plugin.name, plugin.type, model, target});
    }).observe(v);
  };
  observe_one(MetricId::kPredictedTtft, ttft_s);
  observe_one(MetricId::kPredictedTpot, tpot_s);
  observe_one(MetricId::kTtftPrediction, took_s);
  observe_one(MetricId::kTpotPrediction, took_s);
  latency_gauge(plugin, "predicted_ttft", ttft_s);
  latency_gauge(plugin, "predicted_tpot", tpot_s);
}

void Series::measured(const PluginName& plugin, std::string_view what, double seconds, double slo_s) {
  latency_gauge(plugin, what, seconds);
  if (slo_s <= 0) return;
  const bool broken = seconds > slo_s;
  latency_gauge(plugin, cat(what, "_slo_threshold"), slo_s);
  latency_gauge(plugin, cat(what, "_slo_violation"), broken ? 1 : 0);
  if (!broken) return;
  kept(counters_, cat("slo ", what, " ", plugin.name), [&] {
    return counter_of(owner_.metrics_, MetricId::kSloViolations, {plugin.name, plugin.type, model, target, what});
  }).inc();
}

PickerMetrics::PickerMetrics(Metrics& metrics, std::string pool) : plugins(metrics), metrics_(metrics), pool_(std::move(pool)) {
  const auto own = [&](MetricId id) -> TwinHistogram& { return own_[static_cast<size_t>(id)]; };
  for (const MetricId id :
       {MetricId::kScheduling, MetricId::kRequestProcessing, MetricId::kResponseProcessing, MetricId::kDispatchCycle})
    own(id) = histogram_of(metrics_, id);
  for (const MetricId id : {MetricId::kPrefixHitRatio, MetricId::kPrefixHitBytes})
    own(id) = histogram_of(metrics_, id, {kPrefixProducer, kPrefixProducer});
  own(MetricId::kEncoderHitRatio) = histogram_of(metrics_, MetricId::kEncoderHitRatio, {kMediaProducer, kMediaProducer});
  gauge_of(metrics_, MetricId::kInfo, {BATON_COMMIT, BATON_VERSION}).set(1);
}

void PickerMetrics::observe(MetricId what, double v) { own_[static_cast<size_t>(what)].observe(v); }

void PickerMetrics::count_media(std::string_view kind, bool held, std::string_view pod) {
  counter_of(metrics_, MetricId::kEncoderQueries, {kMediaProducer, kMediaProducer, kind}).inc();
  if (held) counter_of(metrics_, MetricId::kEncoderHits, {kMediaProducer, kMediaProducer, pod, kind}).inc();
}

void PickerMetrics::count_rewrite(std::string_view rewrite, std::string_view model, std::string_view target) {
  counter_of(metrics_, MetricId::kRewrites, {rewrite, safe(kModel, model), safe(kModel, target)}).inc();
}

std::string_view PickerMetrics::safe(Kind kind, std::string_view value) {
  constexpr std::string_view kOther = "other";
  if (value.size() > kLabelBytesMax) return kOther;
  auto& known = values_[kind];
  const std::string key(value);
  {
    std::shared_lock lock(mutex_);
    if (const auto at = known.find(key); at != known.end()) return *at;
    if (known.size() >= kLabelValuesMax) return kOther;
  }
  std::unique_lock lock(mutex_);
  if (known.size() >= kLabelValuesMax && !known.contains(key)) return kOther;
  return *known.insert(key).first;
}

Series& PickerMetrics::series(std::string_view model, std::string_view target, std::string_view fairness_id, int64_t priority) {
  const uint64_t hash = hash_of(model, target, fairness_id, priority);
  const std::string priority_text = std::to_string(priority);
  const auto find = [&]() -> Series* {
    for (auto [at, end] = series_.equal_range(hash); at != end; ++at) {
      Series& s = *at->second;
      if (s.model == model && s.target == target && s.fairness_id == fairness_id && s.priority == priority_text) return &s;
    }
    return nullptr;
  };
  {
    std::shared_lock lock(mutex_);
    if (Series* found = find()) return *found;
  }
  const std::string m(safe(kModel, model)), t(safe(kModel, target)), f(safe(kTenant, fairness_id));
  if (m != model || t != target || f != fairness_id) return series(m, t, f, priority);
  std::unique_lock lock(mutex_);
  if (Series* found = find()) return *found;
  if (series_.size() >= kSeriesMax) {
    if (other_ == nullptr) {
      auto made = std::make_unique<Series>(*this, "other", "other", "other", 0);
      other_ = series_.emplace(hash_of("other", "other", "other", 0), std::move(made))->second.get();
    }
    return *other_;
  }
  return *series_.emplace(hash, std::make_unique<Series>(*this, m, t, f, priority))->second;
}

}  // namespace baton::picker
