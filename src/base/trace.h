#pragma once
// Spans of a request, W3C trace context in and out, and the bounded queue they wait in until an exporter (net/otlp.h) takes them.
// A Tracer* that is nullptr is tracing switched off: nothing is made and nothing costs. A Span that is not sampled carries its
// context on (so that those behind us decide alike) and ignores the rest. Times are the Clock's; they become Unix times as they
// are recorded. Over Options::queue_max waiting spans new ones are dropped and counted: a dead collector must not cost memory.
// Threads: Tracer any; a Span one at a time. Owner: the program; spans end before their Tracer.
// Source: W3C Trace Context level 1; OpenTelemetry SDK environment variables (samplers).
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"

namespace baton {

inline constexpr std::string_view kTraceparent = "traceparent", kTracestate = "tracestate";

struct TraceContext {
  std::array<uint8_t, 16> trace_id{};
  std::array<uint8_t, 8> span_id{};
  bool sampled = false;
  bool valid() const;  // neither id is all zeros
};
// "00-<32 hex>-<16 hex>-<2 hex>", later versions with what version 00 has; nullopt: not that, the trace begins here.
std::optional<TraceContext> parse_traceparent(std::string_view text);
std::string traceparent(const TraceContext& context);

struct SpanAttribute {
  using Value = std::variant<bool, int64_t, double, std::string, std::vector<std::string>, std::vector<double>>;
  std::string key;
  Value value;
};
enum class SpanKind : uint8_t { kInternal = 1, kServer = 2, kClient = 3 };  // as OTLP numbers them

struct SpanRecord {
  std::string name;
  SpanKind kind = SpanKind::kInternal;
  TraceContext context;
  std::array<uint8_t, 8> parent{};             // zeros: the trace's first
  int64_t begin_unix_ns = 0, end_unix_ns = 0;  // as recorded
  std::vector<SpanAttribute> attributes;
  bool failed = false;
  std::string error;
};

class Tracer;

class Span {
 public:
  Span() = default;  // of nobody: everything is ignored
  Span(Span&& other) noexcept { *this = std::move(other); }
  Span& operator=(Span&& other) noexcept;
  ~Span() { end(); }

  bool on() const { return tracer_ != nullptr && record_.context.sampled; }  // worth computing attributes for
  bool exists() const { return tracer_ != nullptr; }                         // has a context to carry on
  const TraceContext& context() const { return record_.context; }
  void set(std::string_view key, SpanAttribute::Value value);
  void set(std::string_view key, std::string_view value) { set(key, SpanAttribute::Value(std::string(value))); }
  void set(std::string_view key, const std::string& value) { set(key, std::string_view(value)); }
  void set(std::string_view key, const char* value) { set(key, std::string_view(value)); }
  void set(std::string_view key, int value) { set(key, SpanAttribute::Value(int64_t{value})); }
  void set(std::string_view key, size_t value) { set(key, SpanAttribute::Value(static_cast<int64_t>(value))); }
  void fail(std::string_view error);
  // A part of this one. begin_ns: the Clock's; -1 = now.
  Span child(std::string_view name, SpanKind kind = SpanKind::kInternal, int64_t begin_ns = -1) const;
  void end(int64_t end_ns = -1);  // once; then it is of nobody

 private:
  friend class Tracer;
  Tracer* tracer_ = nullptr;
  int64_t begin_ns_ = 0;
  SpanRecord record_;
};

struct Sampler {
  enum class Kind : uint8_t { kOff, kOn, kRatio } kind = Kind::kOn;
  bool parent_decides = true;  // where there is one
  double ratio = 1;
  bool sample(const TraceContext* parent, const std::array<uint8_t, 16>& trace_id) const;
};
// "parentbased_traceidratio" and the other five names of OTEL_TRACES_SAMPLER, with its argument; nullopt: no such name or argument.
std::optional<Sampler> parse_sampler(std::string_view name, std::string_view argument);

struct TracerOptions {
  Sampler sampler;
  size_t queue_max = 2'048;
};
struct TracerCounts {
  uint64_t recorded = 0, dropped = 0;  // dropped is part of recorded
};

class Tracer {
 public:
  Tracer(TracerOptions options, const Clock& clock);
  // The first span here of a request: below `parent` if somebody before us began the trace. begin_ns: the Clock's; -1 = now.
  Span begin(std::string_view name, SpanKind kind, const std::optional<TraceContext>& parent, int64_t begin_ns = -1);
  // For exporters.
  std::vector<SpanRecord> take(size_t most);
  size_t waiting() const { return waiting_.load(std::memory_order_relaxed); }
  void count_dropped(size_t spans) { dropped_.fetch_add(spans, std::memory_order_relaxed); }
  TracerCounts counts() const { return {recorded_.load(), dropped_.load()}; }
  const Clock& clock() const { return clock_; }

 private:
  friend class Span;
  uint64_t random();
  void record(SpanRecord&& record, int64_t begin_ns, int64_t end_ns);

  const TracerOptions options_;
  const Clock& clock_;
  const int64_t unix_offset_ns_;  // Unix time less the Clock's
  const uint64_t seed_;
  std::atomic<uint64_t> draws_{0}, recorded_{0}, dropped_{0};
  std::atomic<size_t> waiting_{0};
  std::mutex mutex_;
  std::vector<SpanRecord> queue_;  // under mutex_
};

}  // namespace baton
