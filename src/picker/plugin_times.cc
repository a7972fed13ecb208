#include "picker/plugin_times.h"

#include "base/histogram_batch.h"
#include "route/plugins.h"

namespace baton::picker {
namespace {

// The producers whose work is a step of the decision; the others' happens elsewhere (as the body is read) and is nobody's own.
bool is_step(std::string_view type) {
  return type == "approx-prefix-cache-producer" || type == "precise-prefix-cache-producer" ||
         type == "predicted-latency-producer" || type == "inflight-load-producer";
}

bool runs_at(const route::PluginRow& row, route::Point point) {
  switch (point) {
    case route::Point::kDataProducer:
      return is_step(row.type);
    case route::Point::kAdmission:
      return row.admit != nullptr;
    case route::Point::kProfileHandler:
      return row.handler != route::HandlerKind::kNone;
    case route::Point::kFilter:
      return row.filter != nullptr;
    case route::Point::kScorer:
      return row.score != nullptr;
    case route::Point::kPicker:
      return (row.kinds & route::kPicker) != 0;
    case route::Point::kDecider:
      return row.decider != nullptr;
  }
  return false;
}

}  // namespace

void PluginCell::flush() {
  std::vector<double> counts;
  double any = 0;
  for (auto& count : counts_) any += counts.emplace_back(static_cast<double>(count.exchange(0, std::memory_order_relaxed)));
  const double sum = static_cast<double>(sum_ns_.exchange(0, std::memory_order_relaxed)) * 1e-9;
  if (any == 0) return;
  observe_batch(*histogram_.now, counts, sum);
  observe_batch(*histogram_.old, counts, sum);
}

std::shared_ptr<const PlanTimes> PluginTimes::of(const route::Plan& plan) {
  auto out = std::make_shared<PlanTimes>();
  if (!plan.policy) return out;
  const auto& plugins = plan.policy->plugins;
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < plugins.size(); ++i) {
    const route::PluginRow& row = *plugins[i].row;
    const std::string type(row.type), &name = plugins[i].name;
    for (int p = 0; p < route::kPoints; ++p) {
      const auto point = static_cast<route::Point>(p);
      if (!runs_at(row, point)) {
        out->cells_.push_back(nullptr);
        continue;
      }
      auto& cell = cells_[{route::point_name(point), type, name}];
      if (!cell) {
        cell = std::make_unique<PluginCell>();
        cell->histogram_ = histogram_of(metrics_, MetricId::kPlugin, {route::point_name(point), type, name});
      }
      out->cells_.push_back(cell.get());
    }
    const auto note = [&](std::string_view wanted, int& index, PluginName& label) {
      if (row.type != wanted || index >= 0) return;
      index = static_cast<int>(i);
      label = {type, name};
    };
    PluginName unused;
    note("approx-prefix-cache-producer", out->approx, out->prefix);
    note("precise-prefix-cache-producer", out->precise, unused);
    note("predicted-latency-producer", out->predictor, out->latency);
    note("inflight-load-producer", out->inflight, unused);
    if (static_cast<int>(i) == plan.policy->handler) out->handler = {type, name};
  }
  return out;
}

void PluginTimes::flush() {
  std::lock_guard lock(mutex_);
  for (auto& [key, cell] : cells_) cell->flush();
}

}  // namespace baton::picker
