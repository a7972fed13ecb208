#pragma once
// PluginTimes: plugin_duration_seconds. A decision is a few microseconds and runs a dozen plugins, so what they took is added to
// counters here, two atomic additions a plugin, and becomes histograms when somebody reads the metrics. Cells are kept by
// (extension point, type, name) for good: a new configuration goes on with those it shares with the old.
// Threads: any. Owner: Core.
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "picker/metric_table.h"
#include "route/plan.h"
#include "route/step_log.h"

namespace baton::picker {

struct PluginName {
  std::string type, name;
};

class PluginCell {
 public:
  static constexpr std::array<int64_t, 10> kBoundsNs = {100'000,   200'000,    500'000,    1'000'000,  2'000'000,
                                                        5'000'000, 10'000'000, 20'000'000, 50'000'000, 100'000'000};
  void add(int64_t ns) {
    size_t i = 0;
    while (i < kBoundsNs.size() && ns > kBoundsNs[i]) ++i;
    counts_[i].fetch_add(1, std::memory_order_relaxed);
    sum_ns_.fetch_add(ns, std::memory_order_relaxed);
  }
  void flush();

 private:
  friend class PluginTimes;
  std::array<std::atomic<uint64_t>, kBoundsNs.size() + 1> counts_{};
  std::atomic<int64_t> sum_ns_{0};
  TwinHistogram histogram_;
};

// The cells of one plan, and which of its plugins the labels of other metrics name.
class PlanTimes {
 public:
  void add(const route::StepLog& steps) const {
    for (size_t i = 0; i < steps.size(); ++i) add(steps[i].point, steps[i].plugin, steps[i].end_ns - steps[i].begin_ns);
  }
  void add(route::Point point, int plugin, int64_t ns) const {
    if (plugin < 0) return;
    PluginCell* cell = cells_[static_cast<size_t>(plugin * route::kPoints + static_cast<int>(point))];
    if (cell != nullptr) cell->add(ns);
  }
  // Indices into Policy::plugins; -1 = the plan has none.
  int approx = -1, precise = -1, predictor = -1, inflight = -1;
  PluginName handler, prefix, latency;

 private:
  friend class PluginTimes;
  std::vector<PluginCell*> cells_;  // by plugin and point; nullptr where the plugin does not run there
};

class PluginTimes {
 public:
  explicit PluginTimes(Metrics& metrics) : metrics_(metrics) {}
  std::shared_ptr<const PlanTimes> of(const route::Plan& plan);
  void flush();

 private:
  Metrics& metrics_;
  std::mutex mutex_;
  std::map<std::array<std::string, 3>, std::unique_ptr<PluginCell>> cells_;
};

}  // namespace baton::picker
