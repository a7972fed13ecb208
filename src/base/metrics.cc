#include "base/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <limits>
#include <mutex>

#include "base/clock.h"
#include "base/histogram_batch.h"
#include "base/result.h"

namespace baton {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct CounterHandle final : Counter {
  CounterHandle(prometheus::Family<prometheus::Counter>& f, const Labels& labels) : family(f), counter(f.Add(labels)) {}
  void inc(double by) override { counter.Increment(by); }
  double value() const override { return counter.Value(); }
  prometheus::Family<prometheus::Counter>& family;
  prometheus::Counter& counter;
};
struct GaugeHandle final : Gauge {
  GaugeHandle(prometheus::Family<prometheus::Gauge>& f, const Labels& labels) : family(f), gauge(f.Add(labels)) {}
  void set(double v) override { gauge.Set(v); }
  void add(double by) override { gauge.Increment(by); }
  double value() const override { return gauge.Value(); }
  prometheus::Family<prometheus::Gauge>& family;
  prometheus::Gauge& gauge;
};
struct HistogramHandle final : Histogram {
  explicit HistogramHandle(prometheus::Histogram& h) : histogram(h) {}
  void observe(double v) override { histogram.Observe(v); }
  prometheus::Histogram& histogram;
};

// 1 -> "1.0", 0.005 -> "0.005": prometheus_client prints every number as a Python float.
std::string python_float(double v) {
  if (v == kInfinity) return "+Inf";
  std::string s = cat(v);
  if (s.find_first_of(".enif") == std::string::npos) s += ".0";
  return s;
}

void append_labels(std::string& out, const prometheus::ClientMetric& metric, std::string_view le = {}) {
  if (metric.label.empty() && le.empty()) return;
  out += '{';
  bool first = true;
  auto put = [&](std::string_view name, std::string_view value) {
    if (!first) out += ',';
    first = false;
    out += name;
    out += "=\"";
    for (char c : value) {
      if (c == '\n') {
        out += "\\n";
        continue;
      }
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    out += '"';
  };
  for (const auto& label : metric.label) put(label.name, label.value);
  if (!le.empty()) put("le", le);
  out += '}';
}

void append_sample(std::string& out, std::string_view name, std::string_view suffix, const prometheus::ClientMetric& metric,
                   double value, std::string_view le = {}) {
  out += name;
  out += suffix;
  append_labels(out, metric, le);
  out += ' ';
  out += python_float(value);
  out += '\n';
}

void append_histogram(std::string& out, std::string_view name, const prometheus::ClientMetric& metric) {
  const auto& h = metric.histogram;
  bool has_inf = false;
  for (const auto& bucket : h.bucket) {
    has_inf |= bucket.upper_bound == kInfinity;
    append_sample(out, name, "_bucket", metric, static_cast<double>(bucket.cumulative_count), python_float(bucket.upper_bound));
  }
  if (!has_inf) append_sample(out, name, "_bucket", metric, static_cast<double>(h.sample_count), "+Inf");
  append_sample(out, name, "_count", metric, static_cast<double>(h.sample_count));
  append_sample(out, name, "_sum", metric, h.sample_sum);
}

}  // namespace

struct Metrics::Impl {
  prometheus::Registry registry;
  mutable std::mutex mutex;
  std::map<std::pair<std::string, Labels>, std::unique_ptr<CounterHandle>> counters;
  std::map<std::pair<std::string, Labels>, std::unique_ptr<GaugeHandle>> gauges;
  std::map<std::pair<std::string, Labels>, std::unique_ptr<Histogram>> histograms;
  double created = static_cast<double>(unix_seconds());
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

Counter& Metrics::counter(std::string_view name, std::string_view help, const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  auto& slot = impl_->counters[{std::string(name), labels}];
  if (!slot) {
    auto& family = prometheus::BuildCounter().Name(std::string(name)).Help(std::string(help)).Register(impl_->registry);
    slot = std::make_unique<CounterHandle>(family, labels);
  }
  return *slot;
}

Gauge& Metrics::gauge(std::string_view name, std::string_view help, const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  auto& slot = impl_->gauges[{std::string(name), labels}];
  if (!slot) {
    auto& family = prometheus::BuildGauge().Name(std::string(name)).Help(std::string(help)).Register(impl_->registry);
    slot = std::make_unique<GaugeHandle>(family, labels);
  }
  return *slot;
}

Histogram& Metrics::histogram(std::string_view name, std::string_view help, const std::vector<double>& bounds,
                              const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  auto& slot = impl_->histograms[{std::string(name), labels}];
  if (!slot) {
    auto& family = prometheus::BuildHistogram().Name(std::string(name)).Help(std::string(help)).Register(impl_->registry);
    slot = std::make_unique<HistogramHandle>(family.Add(labels, bounds));
  }
  return *slot;
}

void Metrics::remove_counter(std::string_view name, const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  const auto at = impl_->counters.find({std::string(name), labels});
  if (at == impl_->counters.end()) return;
  at->second->family.Remove(&at->second->counter);
  impl_->counters.erase(at);
}

void Metrics::remove_gauge(std::string_view name, const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  const auto at = impl_->gauges.find({std::string(name), labels});
  if (at == impl_->gauges.end()) return;
  at->second->family.Remove(&at->second->gauge);
  impl_->gauges.erase(at);
}

// Every Histogram was made by a Metrics.
void observe_batch(Histogram& histogram, const std::vector<double>& increments, double sum) {
  static_cast<HistogramHandle&>(histogram).histogram.ObserveMultiple(increments, sum);
}

std::string Metrics::text() const {
  std::string out;
  out.reserve(32 << 10);
  for (const auto& family : impl_->registry.Collect()) {
    if (family.metric.empty()) continue;
    using Type = prometheus::MetricType;
    bool counter = family.type == Type::Counter;
    std::string name = counter ? family.name + "_total" : family.name;
    std::string_view type = counter ? "counter" : family.type == Type::Gauge ? "gauge" : "histogram";
    out += cat("# HELP ", name, " ", family.help, "\n# TYPE ", name, " ", type, "\n");
    for (const auto& metric : family.metric) {
      switch (family.type) {
        case Type::Counter:
          append_sample(out, name, "", metric, metric.counter.value);
          break;
        case Type::Gauge:
          append_sample(out, name, "", metric, metric.gauge.value);
          break;
        default:
          append_histogram(out, name, metric);
      }
    }
    if (family.type == Type::Gauge) continue;
    out += cat("# HELP ", family.name, "_created ", family.help, "\n# TYPE ", family.name, "_created gauge\n");
    for (const auto& metric : family.metric) append_sample(out, family.name, "_created", metric, impl_->created);
  }
  return out;
}

}  // namespace baton
