#include "epp/stream_metrics.h"

namespace baton::epp {

using picker::MetricId;

StreamMetrics::StreamMetrics(Metrics& metrics, bool per_stream)
    : metrics_(metrics),
      stalled_(counter_of(metrics, MetricId::kBodyTimeouts)),
      malformed_(counter_of(metrics, MetricId::kMalformed)) {
  if (!per_stream) return;
  inflight_ = gauge_of(metrics, MetricId::kStreamsInflight);
  duration_ = histogram_of(metrics, MetricId::kStreamDuration);
}

void StreamMetrics::opened() { inflight_.add(1); }

void StreamMetrics::closed(Code code, int64_t nanoseconds) {
  if (inflight_.now == nullptr) return;
  inflight_.add(-1);
  duration_.observe(static_cast<double>(nanoseconds) * 1e-9);
  counter_of(metrics_, MetricId::kStreams, {code_name(code)}).inc();
}

}  // namespace baton::epp
