#pragma once
// The one table of what baton-router tells Prometheus: name, type, labels, buckets, and the deprecated name (with its labels) under
// which llm-d still emits the same number, because autoscalers and dashboards read it. A metric is a row here and a call where it
// happens; docs/metrics.md is printed from the rows, tests/cases/metrics/router.txt is what users' dashboards expect of them.
// Making a handle takes a lock and some strings: keep it where something happens often. Threads: any.
// Source: facts sheet "epp" 7.
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/metrics.h"

namespace baton::picker {

enum class MetricId : uint8_t {
  // one request, by the default labels
  kRequests,
  kErrors,
  kRunning,
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
  // the pool
  kAverageKv,
  kAverageQueue,
  kAverageRunning,
  kStdDevKv,
  kStdDevQueue,
  kStdDevRunning,
  kReadyEndpoints,
  kEndpointQueue,
  kEndpointUp,
  kInflightRequests,
  kInflightTokens,
  kPrefillPressure,
  kDecodePressure,
  kRoleFlip,
  // a decision
  kScheduling,
  kAttempts,
  kPlugin,
  kRequestProcessing,
  kResponseProcessing,
  kInfo,
  kRewrites,
  kDisaggDecisions,
  kPdDecisions,
  kPrefixSize,
  kPrefixHitRatio,
  kPrefixHitBytes,
  kEncoderQueries,
  kEncoderHits,
  kEncoderHitRatio,
  // data
  kPollErrors,
  kExtractErrors,
  kScrapeFaults,
  kDiscoverySynced,
  kDiscoveryAge,
  kDiscoveryLists,
  kDiscoveryWatches,
  kDiscoveryEvents,
  kDiscoveryErrors,
  kDiscoveryDenied,
  // flow control
  kQueueDuration,
  kDispatchCycle,
  kEnqueueDuration,
  kQueueSize,
  kQueueBytes,
  kSaturation,
  kStaleEndpoints,
  kBandRequests,
  kBandBytes,
  kGlobalRequests,
  kGlobalBytes,
  kFlowRequests,
  kRevocationsIssued,
  kRevocations,
  kReclaimTarget,
  kPendingReclaim,
  kRevocationConfirmed,
  kJainIndex,
  kProgramWait,
  kProgramService,
  // predicted latency
  kLatencyGauge,
  kPredictedTtft,
  kPredictedTpot,
  kTtftPrediction,
  kTpotPrediction,
  kSloViolations,
  // KV events
  kKvAdmissions,
  kKvEvictions,
  kKvLookups,
  kKvLookupHits,
  kKvMaxPodHits,
  kKvLookupLatency,
  kKvRemovedSuppressed,
  kKvRemovedForwarded,
  kKvSubscribers,
  kKvMessages,
  kKvSocketErrors,
  kKvQueueDepth,
  kKvQueueCapacity,
  kKvLost,
  // ext_proc
  kStreamsInflight,
  kStreamDuration,
  kStreams,
  kBodyTimeouts,
  kMalformed,
  kConfigReloads,
  kConfigRefused,
  // gateway
  kGatewayRunning,
  kGatewayRequests,
  kGatewayRejected,
  kGatewayDecisions,
  kGatewayPicks,
  kGatewayRetries,
  kGatewayResumed,
  kGatewayFirstByte,
  kGatewayEndpointUp,
  kGatewayInflightRequests,
  kGatewayInflightTokens,
  // traces
  kSpans,
  kSpansDropped,
  kSpanExports,
  kCount
};

enum class MetricType : uint8_t { kCounter, kGauge, kHistogram };
std::string_view metric_type_name(MetricType type);

struct MetricRow {
  MetricId id;
  std::string_view name;  // as Metrics wants it: counters without _total
  MetricType type;
  std::string_view labels;  // names with a blank between; values are given in this order
  std::string_view help;
  std::vector<double> bounds{};    // histograms
  std::string_view twin{};         // deprecated name, "" = none
  std::string_view twin_labels{};  // which of `labels` it has; "pod_name=endpoint_name": another name for one
};
std::span<const MetricRow> metric_rows();  // by id
const MetricRow& metric_row(MetricId id);
// "a b c" -> {a, b, c}
std::vector<std::string_view> label_names(std::string_view labels);
std::string metric_docs();  // docs/metrics.md

// A metric and its deprecated twin; moved together.
struct TwinCounter {
  Counter *now = nullptr, *old = nullptr;
  void inc(double by = 1) const {
    if (now != nullptr) now->inc(by);
    if (old != nullptr) old->inc(by);
  }
  // For numbers counted elsewhere: brings it up to `value`, never down.
  void raise(double value) const {
    if (now != nullptr && value > now->value()) inc(value - now->value());
  }
};
struct TwinGauge {
  Gauge *now = nullptr, *old = nullptr;
  void set(double v) const {
    if (now != nullptr) now->set(v);
    if (old != nullptr) old->set(v);
  }
  void add(double by) const {
    if (now != nullptr) now->add(by);
    if (old != nullptr) old->add(by);
  }
};
struct TwinHistogram {
  Histogram *now = nullptr, *old = nullptr;
  void observe(double v) const {
    if (now != nullptr) now->observe(v);
    if (old != nullptr) old->observe(v);
  }
};

using LabelValues = std::span<const std::string_view>;
// values: as many as the row has labels, in its order; checked.
TwinCounter counter_of(Metrics& metrics, MetricId id, LabelValues values);
TwinGauge gauge_of(Metrics& metrics, MetricId id, LabelValues values);
TwinHistogram histogram_of(Metrics& metrics, MetricId id, LabelValues values);
inline TwinCounter counter_of(Metrics& m, MetricId id, std::initializer_list<std::string_view> values = {}) {
  return counter_of(m, id, LabelValues(values.begin(), values.size()));
}
inline TwinGauge gauge_of(Metrics& m, MetricId id, std::initializer_list<std::string_view> values = {}) {
  return gauge_of(m, id, LabelValues(values.begin(), values.size()));
}
inline TwinHistogram histogram_of(Metrics& m, MetricId id, std::initializer_list<std::string_view> values = {}) {
  return histogram_of(m, id, LabelValues(values.begin(), values.size()));
}
// Ends the series of a counter or gauge and its twin's; their handles must not be used again.
void drop_series(Metrics& metrics, MetricId id, LabelValues values);

}  // namespace baton::picker
