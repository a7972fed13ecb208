#pragma once
// PickerMetrics: what the picker tells Prometheus, by the rows of metric_table.h. Handles are cached per label combination, so a
// request costs one look-up. Labels a client controls are capped: kLabelValuesMax distinct values, then "other". Threads: any.
// Handles live as long as the Metrics. Several pickers of a process share one Metrics. Source: facts sheet "epp" 7.
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "picker/metric_table.h"
#include "picker/plugin_times.h"

namespace baton::picker {

class PickerMetrics;

// Everything counted under one (model, target model, tenant, priority).
class Series {
 public:
  Series(PickerMetrics& owner, std::string model, std::string target, std::string fairness_id, int64_t priority);
  void observe(MetricId what, double v);  // kDuration to kItl
  void first_byte(bool streaming, double seconds);
  void count_request() { total_.inc(); }
  void count_error(std::string_view code);
  void running(double delta) { running_.add(delta); }
  void attempt_failed();
  void count_decision(std::string_view decision_type, const PluginName& handler);
  // Flow control: how long it waited and how that ended; how long standing in line took.
  void waited(std::string_view outcome, double seconds);
  void enqueued(std::string_view outcome, double seconds);
  void queued(int64_t requests_delta, int64_t bytes_delta);
  // predicted-latency-producer: what was expected of the chosen endpoint, and the time that took; then what came.
  // what: "ttft" or "tpot"; slo_s: 0 = none.
  void predicted(const PluginName& plugin, double ttft_s, double tpot_s, double took_s);
  void measured(const PluginName& plugin, std::string_view what, double seconds, double slo_s);
  const std::string model, target, fairness_id, priority;

 private:
  static constexpr size_t kFirst = static_cast<size_t>(MetricId::kDuration);
  static constexpr size_t kSpan = static_cast<size_t>(MetricId::kTtft) - kFirst + 2;  // TTFT twice: streaming or not
  const TwinHistogram& histogram(size_t slot);
  template <class Handle, class Make>
  Handle kept(std::unordered_map<std::string, Handle>& where, std::string key, Make make);
  void latency_gauge(const PluginName& plugin, std::string_view type, double value);

  PickerMetrics& owner_;
  TwinCounter total_;
  TwinGauge running_;
  std::array<std::atomic<const TwinHistogram*>, kSpan> ready_{};
  std::mutex mutex_;  // of what follows
  std::array<std::unique_ptr<TwinHistogram>, kSpan> made_;
  std::unordered_map<std::string, TwinCounter> counters_;
  std::unordered_map<std::string, TwinGauge> gauges_;
  std::unordered_map<std::string, TwinHistogram> histograms_;
};

class PickerMetrics {
 public:
  PickerMetrics(Metrics& metrics, std::string pool);
  Series& series(std::string_view model, std::string_view target, std::string_view fairness_id, int64_t priority);
  void count_media(std::string_view kind, bool held, std::string_view pod);  // encoder_cache_*: was the worker sent it before?
  // Of the picker's own histograms: kScheduling, kRequestProcessing, kResponseProcessing, kDispatchCycle, kPrefixHitRatio,
  // kPrefixHitBytes, kEncoderHitRatio.
  void observe(MetricId what, double v);
  void count_rewrite(std::string_view rewrite, std::string_view model, std::string_view target);
  // The label-safe form of a value a client sent: itself, or "other". Each kind has its own count, so that invented tenants
  // cannot push out models.
  enum Kind : uint8_t { kModel, kTenant };
  std::string_view safe(Kind kind, std::string_view value);
  Metrics& metrics() { return metrics_; }
  const std::string& pool() const { return pool_; }
  PluginTimes plugins;

 private:
  friend class Series;
  Metrics& metrics_;
  const std::string pool_;
  std::array<TwinHistogram, static_cast<size_t>(MetricId::kCount)> own_{};
  mutable std::shared_mutex mutex_;
  std::unordered_multimap<uint64_t, std::unique_ptr<Series>> series_;
  std::array<std::unordered_set<std::string>, 2> values_;  // by Kind; elements never move
  Series* other_ = nullptr;
};

}  // namespace baton::picker
