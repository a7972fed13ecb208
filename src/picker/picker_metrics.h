#pragma once
// PickerMetrics: what the picker tells Prometheus, under llm-d's present names (llm_d_epp_*) and their deprecated twins, which
// autoscalers and dashboards still read. One table in picker_metrics.cc lists them. Handles are cached per label combination, so
// a request costs one look-up. Labels a client controls are capped: kLabelValuesMax distinct values, then "other". Threads: any.
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

#include "base/metrics.h"

namespace baton::picker {

// Histograms of one request, by the default labels.
enum class PerRequest : uint8_t {
  kDuration,
  kRequestBytes,
  kResponseBytes,
  kInputTokens,
  kOutputTokens,
  kCachedTokens,
  kNtpot,
  kTpot,
  kItl,
  kTtft,
  kTtftStreaming,
  kCount
};
// Histograms without labels of the request.
enum class PerPicker : uint8_t {
  kScheduling,
  kRequestProcessing,
  kResponseProcessing,
  kDispatchCycle,
  kHitRatio,
  kHitBytes,
  kCount
};

// A metric and its deprecated twin; observed together.
struct TwinHistogram {
  Histogram *now = nullptr, *old = nullptr;
  void observe(double v) const {
    if (now != nullptr) now->observe(v);
    if (old != nullptr) old->observe(v);
  }
};
struct TwinCounter {
  Counter *now = nullptr, *old = nullptr;
  void inc(double by = 1) const {
    if (now != nullptr) now->inc(by);
    if (old != nullptr) old->inc(by);
  }
};

class PickerMetrics;

// Everything counted under one (model, target model, tenant, priority).
class Series {
 public:
  Series(PickerMetrics& owner, std::string model, std::string target, std::string fairness_id, int64_t priority);
  void observe(PerRequest what, double v);
  void count_request() { total_.inc(); }
  void count_error(std::string_view code);
  void running(double delta);
  void count_decision(std::string_view decision_type);
  // Flow control: how long it waited and how that ended.
  void waited(std::string_view outcome, double seconds);
  void queued(int64_t requests_delta, int64_t bytes_delta);
  const std::string model, target, fairness_id, priority;

 private:
  TwinHistogram histogram(PerRequest what);
  PickerMetrics& owner_;
  TwinCounter total_;
  Gauge *running_now_, *running_old_;
  std::array<std::atomic<Histogram*>, static_cast<size_t>(PerRequest::kCount)> now_{}, old_{};
  std::mutex mutex_;  // of the two below
  std::unordered_map<std::string, TwinCounter> errors_, decisions_;
  std::unordered_map<std::string, TwinHistogram> waits_;
  std::array<Gauge*, 4> queue_{};
};

class PickerMetrics {
 public:
  PickerMetrics(Metrics& metrics, std::string pool);
  Series& series(std::string_view model, std::string_view target, std::string_view fairness_id, int64_t priority);
  void observe(PerPicker what, double v) { fixed_[static_cast<size_t>(what)].observe(v); }
  void count_media(std::string_view kind, bool held);  // encoder_cache_*: was the worker sent it before?
  void attempt_failed() { failed_attempts_.inc(); }
  void count_rewrite(std::string_view rewrite, std::string_view model, std::string_view target);
  // The label-safe form of a value a client sent: itself, or "other". Each kind has its own count, so that invented tenants
  // cannot push out models.
  enum Kind : uint8_t { kModel, kTenant };
  std::string_view safe(Kind kind, std::string_view value);
  Metrics& metrics() { return metrics_; }
  const std::string& pool() const { return pool_; }

 private:
  friend class Series;
  Metrics& metrics_;
  const std::string pool_;
  std::array<TwinHistogram, static_cast<size_t>(PerPicker::kCount)> fixed_;
  TwinCounter failed_attempts_;
  mutable std::shared_mutex mutex_;
  std::unordered_multimap<uint64_t, std::unique_ptr<Series>> series_;
  std::array<std::unordered_set<std::string>, 2> values_;  // by Kind; elements never move
  Series* other_ = nullptr;
};

}  // namespace baton::picker
