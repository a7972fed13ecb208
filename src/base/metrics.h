#pragma once
// Metrics: counters, gauges and histograms of one process, written as Prometheus text the way prometheus_client for Python does
// it (counters end in _total, le="1.0"), because dashboards and pickers match on that text. Owner: the component holds a Metrics
// and the handles it made; handles live as long as their Metrics. No global registry. Any thread: inc/set/observe are atomic;
// text() takes a lock only against registration.
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace baton {

using Labels = std::map<std::string, std::string>;

class Counter {
 public:
  virtual ~Counter() = default;
  virtual void inc(double by = 1) = 0;
  virtual double value() const = 0;
};
class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void set(double v) = 0;
  virtual void add(double by) = 0;
  virtual double value() const = 0;
};
class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void observe(double v) = 0;
};

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  // name as Prometheus shows it, without _total for counters; the same (name, labels) gives the same handle.
  Counter& counter(std::string_view name, std::string_view help, const Labels& labels = {});
  Gauge& gauge(std::string_view name, std::string_view help, const Labels& labels = {});
  Histogram& histogram(std::string_view name, std::string_view help, const std::vector<double>& bounds,
                       const Labels& labels = {});
  // Ends a series whose subject is gone (an endpoint); its handle must not be used again.
  void remove_counter(std::string_view name, const Labels& labels);
  void remove_gauge(std::string_view name, const Labels& labels);
  std::string text() const;  // text/plain; version=0.0.4
  static constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton
