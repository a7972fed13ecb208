#include "picker/metric_table.h"

#include "base/result.h"

namespace baton::picker {
namespace {

using Bounds = std::vector<double>;
using enum MetricId;
constexpr auto kC = MetricType::kCounter;
constexpr auto kG = MetricType::kGauge;
constexpr auto kH = MetricType::kHistogram;

Bounds up_to(const Bounds& bounds, double last) {
  Bounds out;
  for (double b : bounds) {
    if (b <= last) out.push_back(b);
  }
  return out;
}
Bounds growing(double first, double last, double factor) {
  Bounds out;
  for (double b = first; b <= last; b *= factor) out.push_back(b);
  return out;
}
Bounds joined(Bounds a, const Bounds& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// llm-d's own lists, its typing errors (32778) included: dashboards match on le.
const Bounds kGeneral = {.005, .025, .05, .1, .2, .4,  .6,  .8,  1,   1.25, 1.5, 2,   3,   4,    5,    6,    8,   10,
                         15,   20,   30,  45, 60, 120, 180, 240, 300, 360,  480, 600, 900, 1200, 1800, 2700, 3600};
const Bounds kSizes = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32778, 65536};
const Bounds kTokens = joined(kSizes, growing(131072, 1048576, 2));
const Bounds kTpotBounds = {.0005, .00205, .005, .01, .02, .04, .06, .08, .1,  .125, .15, .2,
                            .3,    .4,     .5,   .6,  .8,  1,   1.2, 1.4, 1.6, 1.8,  2};
const Bounds kItlBounds = {.001, .005, .01, .02, .04, .06, .08, .1, .15, .2, .3, .5, .75, 1, 2};
const Bounds kNtpotBounds = {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10};
const Bounds kScheduler = {.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1};
const Bounds kProcessing = {.0005, .001, .002, .005, .01, .015, .025, .04, .06, .1, .25, .5, 1, 2.5, 5, 10};
const Bounds kAnswering = {.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5};
const Bounds kWaiting = {.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60};
const Bounds kPredicting = {.0001, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5};
const Bounds kConfirming = {.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10};
const Bounds kRatio = {0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1};
const Bounds kStreamLife = {.005, .025, .05, .1, .2, .4, .8, 1.5, 3, 6, 10, 30, 60, 120, 300, 600, 1800, 3600};
const Bounds kFirstByte = {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600};

constexpr std::string_view kDefault = "model_name target_model_name fairness_id priority";
constexpr std::string_view kModels = "model_name target_model_name";
constexpr std::string_view kPredicted = "plugin_name plugin_type model_name target_model_name";
constexpr std::string_view kQueued = "fairness_id priority inference_pool model_name target_model_name";
constexpr std::string_view kPlugged = "plugin_name plugin_type";
constexpr std::string_view kInflight = "endpoint_name namespace producer_name fairness_id priority";
constexpr std::string_view kDecided = "plugin_name plugin_type model_name decision_type";

std::vector<MetricRow> request_rows() {
  return {
      {kRequests, "llm_d_epp_request", kC, kDefault, "requests", {}, "inference_objective_request",
       "model_name target_model_name priority"},
      {kErrors, "llm_d_epp_request_error", kC, "model_name target_model_name fairness_id priority error_code", "requests that failed",
       {}, "inference_objective_request_error", "model_name target_model_name error_code"},
      {kRunning, "llm_d_epp_request_running", kG, kDefault, "requests being answered", {}, "inference_objective_running_requests",
       "model_name"},
      {kDuration, "llm_d_epp_request_duration_seconds", kH, kDefault, "arrival to last byte", kGeneral,
       "inference_objective_request_duration_seconds", kModels},
      {kRequestBytes, "llm_d_epp_request_size_bytes", kH, kDefault, "request body", growing(64, 1 << 30, 2),
       "inference_objective_request_sizes", kModels},
      {kResponseBytes, "llm_d_epp_response_size_bytes", kH, kDefault, "response body", kSizes,
       "inference_objective_response_sizes", kModels},
      {kInputTokens, "llm_d_epp_request_input_tokens", kH, kDefault, "prompt tokens", kTokens, "inference_objective_input_tokens",
       kModels},
      {kOutputTokens, "llm_d_epp_request_output_tokens", kH, kDefault, "answer tokens", kTokens,
       "inference_objective_output_tokens", kModels},
      {kCachedTokens, "llm_d_epp_request_cached_tokens", kH, kDefault, "prompt tokens the engine had cached", kTokens,
       "inference_objective_prompt_cached_tokens", kModels},
      {kNtpot, "llm_d_epp_request_ntpot_seconds", kH, kDefault, "duration per answer token", kNtpotBounds,
       "inference_objective_normalized_time_per_output_token_seconds", kModels},
      {kTpot, "llm_d_epp_request_streaming_tpot_seconds", kH, kDefault, "time per answer token after the first, streams",
       kTpotBounds},
      {kItl, "llm_d_epp_request_streaming_itl_seconds", kH, kDefault, "time between chunks of a stream", kItlBounds},
      {kTtft, "llm_d_epp_request_ttft_seconds", kH, "model_name target_model_name fairness_id priority streaming",
       "arrival to first answer byte", up_to(kGeneral, 120), "inference_objective_request_ttft_seconds", kModels},
  };
}

std::vector<MetricRow> pool_rows() {
  return {
      {kAverageKv, "llm_d_epp_average_kv_cache_utilization", kG, "name", "mean KV cache usage of the endpoints, 0 to 1", {},
       "inference_pool_average_kv_cache_utilization", "name"},
      {kAverageQueue, "llm_d_epp_average_queue_size", kG, "name", "mean of the requests that wait at an endpoint", {},
       "inference_pool_average_queue_size", "name"},
      {kAverageRunning, "llm_d_epp_average_running_requests", kG, "name", "mean of the requests that run at an endpoint", {},
       "inference_pool_average_running_requests", "name"},
      {kStdDevKv, "llm_d_epp_std_dev_kv_cache_utilization", kG, "name", "spread of KV cache usage over the endpoints"},
      {kStdDevQueue, "llm_d_epp_std_dev_queue_size", kG, "name", "spread of waiting requests over the endpoints"},
      {kStdDevRunning, "llm_d_epp_std_dev_running_requests", kG, "name", "spread of running requests over the endpoints"},
      {kReadyEndpoints, "llm_d_epp_ready_endpoints", kG, "name", "endpoints that can take requests", {},
       "inference_pool_ready_pods", "name"},
      {kEndpointQueue, "llm_d_epp_per_endpoint_queue_size", kG, "name model_server_endpoint", "requests waiting at an endpoint", {},
       "inference_pool_per_pod_queue_size", "name model_server_pod=model_server_endpoint"},
      {kEndpointUp, "llm_d_epp_endpoint_up", kG, "endpoint_name", "1 if the endpoint can take requests"},
      {kInflightRequests, "llm_d_epp_inflight_requests", kG, kInflight, "requests of ours on an endpoint"},
      {kInflightTokens, "llm_d_epp_inflight_tokens", kG, kInflight, "prompt tokens of ours an endpoint has still to compute"},
      {kPrefillPressure, "llm_d_epp_prefill_pressure", kG, "inference_pool", "mean seconds of queued prompt work"},
      {kDecodePressure, "llm_d_epp_decode_pressure", kG, "inference_pool", "mean share of KV and streams in use"},
      {kRoleFlip, "llm_d_epp_role_flip_proposed", kG, "inference_pool",
       "1 if another role for one worker would even out the stages"},
  };
}

std::vector<MetricRow> decision_rows() {
  return {
      {kScheduling, "llm_d_epp_scheduler_e2e_duration_seconds", kH, "", "time of one decision", kScheduler,
       "inference_extension_scheduler_e2e_duration_seconds"},
      {kAttempts, "llm_d_epp_scheduler_attempts", kC, "status target_model_name endpoint_name namespace port",
       "decisions by result", {}, "inference_extension_scheduler_attempts",
       "status target_model_name pod_name=endpoint_name namespace port"},
      {kPlugin, "llm_d_epp_plugin_duration_seconds", kH, "extension_point plugin_type plugin_name", "time of one run of a plugin",
       kScheduler, "inference_extension_plugin_duration_seconds", "extension_point plugin_type plugin_name"},
      {kRequestProcessing, "llm_d_epp_request_processing_duration_seconds", kH, "",
       "body complete to decision, waiting included", kProcessing},
      {kResponseProcessing, "llm_d_epp_response_processing_duration_seconds", kH, "",
       "a stream: our work on its chunks; else first to last byte of the answer", kAnswering},
      {kInfo, "llm_d_epp_info", kG, "commit build_ref", "1; which build this is", {}, "inference_extension_info",
       "commit build_ref"},
      {kRewrites, "llm_d_epp_model_rewrite_decisions", kC, "model_rewrite_name model_name target_model", "rewritten model names",
       {}, "inference_extension_model_rewrite_decisions", "model_rewrite_name model_name target_model"},
      {kDisaggDecisions, "llm_d_epp_disagg_decision", kC, kDecided,
       "decisions: decode-only, prefill-decode, encode-decode, encode-prefill-decode", {},
       "llm_d_inference_scheduler_disagg_decision", "model_name decision_type"},
      {kPdDecisions, "llm_d_epp_pd_decision", kC, kDecided, "the same under its older name", {},
       "llm_d_inference_scheduler_pd_decision", "model_name decision_type"},
      {kPrefixSize, "llm_d_epp_prefix_indexer_size", kG, kPlugged, "blocks the prefix index remembers", {},
       "inference_extension_prefix_indexer_size"},
      {kPrefixHitRatio, "llm_d_epp_prefix_indexer_hit_ratio", kH, kPlugged, "part of the prompt the chosen endpoint holds", kRatio,
       "inference_extension_prefix_indexer_hit_ratio"},
      {kPrefixHitBytes, "llm_d_epp_prefix_indexer_hit_bytes", kH, kPlugged, "prompt bytes the chosen endpoint holds",
       growing(16, 1 << 24, 4), "inference_extension_prefix_indexer_hit_bytes"},
      {kEncoderQueries, "llm_d_epp_encoder_cache_queries", kC, "plugin_type plugin_name modality", "media of requests, by kind"},
      {kEncoderHits, "llm_d_epp_encoder_cache_hits", kC, "plugin_type plugin_name pod modality",
       "media that the worker was sent before, by kind"},
      {kEncoderHitRatio, "llm_d_epp_encoder_cache_hit_ratio", kH, "plugin_type plugin_name",
       "part of a request's media that its worker was sent before", kRatio},
  };
}

std::vector<MetricRow> data_rows() {
  return {
      {kPollErrors, "llm_d_epp_datalayer_poll_errors", kC, "source_type", "endpoints that could not be asked", {},
       "llm_d_inference_scheduler_datalayer_poll_errors", "source_type"},
      {kExtractErrors, "llm_d_epp_datalayer_extract_errors", kC, "source_type extractor_type",
       "answers of endpoints without the wanted numbers", {}, "llm_d_inference_scheduler_datalayer_extract_errors",
       "source_type extractor_type"},
      {kScrapeFaults, "llm_d_epp_datalayer_scrape_faults", kC, "reason",
       "endpoints' numbers that could not be read, by whose fault"},
      {kDiscoverySynced, "baton_discovery_synced", kG, "", "1 once pool and pods were read from the Kubernetes API"},
      {kDiscoveryAge, "baton_discovery_age_seconds", kG, "",
       "since every watch last heard from the Kubernetes API; -1 = never yet"},
      {kDiscoveryLists, "baton_discovery_lists", kC, "", "lists asked of the Kubernetes API"},
      {kDiscoveryWatches, "baton_discovery_watches", kC, "", "watches begun at the Kubernetes API"},
      {kDiscoveryEvents, "baton_discovery_events", kC, "", "changes the Kubernetes API told"},
      {kDiscoveryErrors, "baton_discovery_errors", kC, "", "attempts at the Kubernetes API that failed"},
      {kDiscoveryDenied, "baton_discovery_denied", kC, "", "of these, what the cluster's rules forbid (RBAC)"},
  };
}

std::vector<MetricRow> flow_rows() {
  return {
      {kQueueDuration, "llm_d_epp_flow_control_request_queue_duration_seconds", kH,
       "fairness_id priority outcome inference_pool model_name target_model_name",
       "time a request waited for the pool to have room", kWaiting,
       "inference_extension_flow_control_request_queue_duration_seconds",
       "fairness_id priority outcome inference_pool model_name target_model_name"},
      {kDispatchCycle, "llm_d_epp_flow_control_dispatch_cycle_duration_seconds", kH, "", "time of one round of dispatching",
       kScheduler, "inference_extension_flow_control_dispatch_cycle_duration_seconds"},
      {kEnqueueDuration, "llm_d_epp_flow_control_request_enqueue_duration_seconds", kH, "fairness_id priority outcome",
       "time until a request stood in its queue, or was refused there", kScheduler,
       "inference_extension_flow_control_request_enqueue_duration_seconds", "fairness_id priority outcome"},
      {kQueueSize, "llm_d_epp_flow_control_queue_size", kG, kQueued, "requests that wait", {},
       "inference_extension_flow_control_queue_size", kQueued},
      {kQueueBytes, "llm_d_epp_flow_control_queue_bytes", kG, kQueued, "their bodies", {},
       "inference_extension_flow_control_queue_bytes", kQueued},
      {kSaturation, "llm_d_epp_flow_control_pool_saturation", kG, "inference_pool stage",
       "1 = no room; stage prefill, decode, effective (the larger, with what was dispatched since the last look)", {},
       "inference_extension_flow_control_pool_saturation", "inference_pool stage"},
      {kStaleEndpoints, "llm_d_epp_flow_control_stale_endpoints", kG, "detector",
       "endpoints whose numbers are too old for the detector"},
      {kBandRequests, "llm_d_epp_flow_control_capacity_utilization_requests", kG, "priority inference_pool",
       "waiting requests of a priority band, of the most it takes"},
      {kBandBytes, "llm_d_epp_flow_control_capacity_utilization_bytes", kG, "priority inference_pool",
       "waiting bytes of a priority band, of the most it takes"},
      {kGlobalRequests, "llm_d_epp_flow_control_global_capacity_utilization_requests", kG, "inference_pool",
       "waiting requests of all bands, of maxRequests; absent without such a limit"},
      {kGlobalBytes, "llm_d_epp_flow_control_global_capacity_utilization_bytes", kG, "inference_pool",
       "waiting bytes of all bands, of maxBytes; absent without such a limit"},
      {kFlowRequests, "llm_d_epp_flow_control_requests", kC, "outcome priority inference_pool",
       "requests by how their wait ended"},
      {kRevocationsIssued, "llm_d_epp_flow_control_revocations_issued", kC, "priority inference_pool",
       "running requests told to end for the sake of waiting ones"},
      {kRevocations, "llm_d_epp_flow_control_revocations", kC, "outcome inference_pool",
       "what became of them: confirmed (ended), timed_out"},
      {kReclaimTarget, "llm_d_epp_flow_control_reclaim_target", kG, "inference_pool",
       "saturation above the waiting band's ceiling, when last looked for requests to end"},
      {kPendingReclaim, "llm_d_epp_flow_control_pending_reclaim", kG, "inference_pool",
       "saturation that requests on their way out will give back"},
      {kRevocationConfirmed, "llm_d_epp_flow_control_revocation_confirmation_seconds", kH, "inference_pool",
       "from telling a running request to end until it had", kConfirming},
      {kJainIndex, "llm_d_epp_program_aware_jains_fairness_index", kG, "",
       "1 = all programs attained equal service (program-aware-fairness)"},
      {kProgramWait, "llm_d_epp_program_aware_avg_wait_time_milliseconds", kG, "program_id", "mean wait of a program's requests"},
      {kProgramService, "llm_d_epp_program_aware_attained_service_tokens", kG, "program_id",
       "service a program attained, decayed"},
  };
}

std::vector<MetricRow> prediction_rows() {
  return {
      {kLatencyGauge, "llm_d_epp_inference_request_metric", kG, "plugin_name plugin_type model_name target_model_name type",
       "the latest request's ttft, predicted_ttft, tpot, predicted_tpot, ttft_slo_threshold, tpot_slo_threshold (s), "
       "ttft_slo_violation, tpot_slo_violation (1 = yes)",
       {}, "inference_objective_inference_request_metric", "model_name target_model_name type"},
      {kPredictedTtft, "llm_d_epp_request_predicted_ttft_seconds", kH, kPredicted, "TTFT predicted for the chosen endpoint",
       kGeneral, "inference_objective_request_predicted_ttft_seconds", kModels},
      {kPredictedTpot, "llm_d_epp_request_predicted_tpot_seconds", kH, kPredicted, "TPOT predicted for the chosen endpoint",
       kTpotBounds, "inference_objective_request_predicted_tpot_seconds", kModels},
      {kTtftPrediction, "llm_d_epp_request_ttft_prediction_duration_seconds", kH, kPredicted,
       "time to predict for all endpoints, TTFT and TPOT together", kPredicting,
       "inference_objective_request_ttft_prediction_duration_seconds", kModels},
      {kTpotPrediction, "llm_d_epp_request_tpot_prediction_duration_seconds", kH, kPredicted,
       "the same: both are predicted at once", kPredicting, "inference_objective_request_tpot_prediction_duration_seconds",
       kModels},
      {kSloViolations, "llm_d_epp_request_slo_violation", kC, "plugin_name plugin_type model_name target_model_name type",
       "requests slower than their SLO header asked: ttft, tpot", {}, "inference_objective_request_slo_violation",
       "model_name target_model_name type"},
  };
}

std::vector<MetricRow> kv_rows() {
  return {
      {kKvAdmissions, "llm_d_epp_kv_cache_index_admissions", kC, "", "blocks the engines told to have stored", {},
       "kvcache_index_admissions"},
      {kKvEvictions, "llm_d_epp_kv_cache_index_evictions", kC, "", "blocks the engines told to have removed", {},
       "kvcache_index_evictions"},
      {kKvLookups, "llm_d_epp_kv_cache_index_lookup_requests", kC, "", "prompts looked up", {}, "kvcache_index_lookup_requests"},
      {kKvLookupHits, "llm_d_epp_kv_cache_index_lookup_hits", kC, "", "leading blocks the best endpoint of each prompt held", {},
       "kvcache_index_lookup_hits"},
      {kKvMaxPodHits, "llm_d_epp_kv_cache_index_max_pod_hit_count", kC, "", "the same, under its older name", {},
       "kvcache_index_max_pod_hit_count"},
      {kKvLookupLatency, "llm_d_epp_kv_cache_index_lookup_latency_seconds", kH, "", "time of one look-up", kConfirming,
       "kvcache_index_lookup_latency_seconds"},
      {kKvRemovedSuppressed, "llm_d_epp_kv_cache_events_dedup_removed_hashes_suppressed", kC, "",
       "removals of blocks that the engine stored more than once and still holds", {},
       "kvcache_kvevents_dedup_removed_hashes_suppressed"},
      {kKvRemovedForwarded, "llm_d_epp_kv_cache_events_dedup_removed_hashes_forwarded", kC, "",
       "removals after which the engine holds the block no more", {}, "kvcache_kvevents_dedup_removed_hashes_forwarded"},
      {kKvSubscribers, "llm_d_epp_kv_cache_events_active_subscribers", kG, "", "endpoints listened to"},
      {kKvMessages, "llm_d_epp_kv_cache_events_messages_received", kC, "pod_identifier", "messages of an endpoint"},
      {kKvSocketErrors, "llm_d_epp_kv_cache_events_zmq_errors", kC, "pod_identifier operation",
       "sockets that failed: connect of an endpoint, poll of all"},
      {kKvQueueDepth, "llm_d_epp_kv_cache_events_pool_queue_depth", kG, "", "messages that wait for a replay to end"},
      {kKvQueueCapacity, "llm_d_epp_kv_cache_events_pool_capacity", kG, "", "messages that may wait so, over all endpoints"},
      {kKvLost, "llm_d_epp_kv_cache_events_lost", kC, "", "messages that were missed and could not be replayed"},
  };
}

std::vector<MetricRow> door_rows() {
  return {
      {kStreamsInflight, "llm_d_epp_extproc_streams_inflight", kG, "", "ext_proc streams open"},
      {kStreamDuration, "llm_d_epp_extproc_stream_duration_seconds", kH, "", "life of an ext_proc stream", kStreamLife},
      {kStreams, "llm_d_epp_extproc_streams", kC, "code", "ext_proc streams by how they ended"},
      {kBodyTimeouts, "baton_epp_body_timeout", kC, "", "requests whose client stopped sending its body"},
      {kMalformed, "baton_epp_malformed", kC, "", "calls that sent no ext_proc"},
      {kConfigReloads, "baton_epp_config_reloads", kC, "", "new configurations put in force"},
      {kConfigRefused, "baton_epp_config_refused", kC, "", "new configurations that were wrong; the old one stayed"},
      {kGatewayRunning, "baton_gateway_running_requests", kG, "", "requests being answered"},
      {kGatewayRequests, "baton_gateway_requests", kC, "pool code", "requests by pool and status"},
      {kGatewayRejected, "baton_gateway_rejected", kC, "reason", "requests answered with an error before any worker was asked"},
      {kGatewayDecisions, "baton_gateway_decisions", kC, "pool why", "decisions by reason"},
      {kGatewayPicks, "baton_gateway_picks", kC, "pool endpoint role", "requests sent to an endpoint"},
      {kGatewayRetries, "baton_gateway_retries", kC, "reason", "attempts given up, by reason"},
      {kGatewayResumed, "baton_gateway_resumed_streams", kC, "result",
       "streams that lost their worker, by what became of them"},
      {kGatewayFirstByte, "baton_gateway_first_byte_seconds", kH, "model_name", "arrival to first answer byte", kFirstByte},
      {kGatewayEndpointUp, "baton_gateway_endpoint_up", kG, "endpoint pool",
       "1 if the endpoint can take requests; pool only where there are several"},
      {kGatewayInflightRequests, "baton_gateway_endpoint_inflight_requests", kG, "endpoint pool",
       "our requests on an endpoint; pool only where there are several"},
      {kGatewayInflightTokens, "baton_gateway_endpoint_inflight_tokens", kG, "endpoint pool",
       "our prompt tokens an endpoint has still to compute; pool only where there are several"},
      {kSpans, "baton_trace_spans", kC, "", "spans recorded"},
      {kSpansDropped, "baton_trace_spans_dropped", kC, "", "of these, lost: the queue was full, or the collector did not take them"},
      {kSpanExports, "baton_trace_exports", kC, "result", "batches sent to the collector: ok, failed"},
  };
}

std::vector<MetricRow> all_rows() {
  std::vector<MetricRow> out;
  for (auto make : {request_rows, pool_rows, decision_rows, data_rows, flow_rows, prediction_rows, kv_rows, door_rows}) {
    for (MetricRow& row : make()) out.push_back(std::move(row));
  }
  BATON_CHECK(out.size() == static_cast<size_t>(kCount));
  for (size_t i = 0; i < out.size(); ++i) BATON_CHECK(out[i].id == static_cast<MetricId>(i));
  return out;
}

Labels labels_of(std::string_view names, LabelValues values) {
  Labels out;
  size_t i = 0;
  for (const std::string_view name : label_names(names)) out.emplace(name, values[i++]);
  BATON_CHECK(i == values.size());
  return out;
}

Labels twin_labels_of(const MetricRow& row, const Labels& now) {
  Labels out;
  for (const std::string_view name : label_names(row.twin_labels)) {
    const size_t equals = name.find('=');
    const auto from = now.find(std::string(equals == std::string_view::npos ? name : name.substr(equals + 1)));
    BATON_CHECK(from != now.end());
    out.emplace(name.substr(0, equals), from->second);
  }
  return out;
}

}  // namespace

std::string_view metric_type_name(MetricType type) {
  return type == kC ? "counter" : type == kG ? "gauge" : "histogram";
}

std::span<const MetricRow> metric_rows() {
  static const std::vector<MetricRow> kRows = all_rows();
  return kRows;
}

const MetricRow& metric_row(MetricId id) { return metric_rows()[static_cast<size_t>(id)]; }

std::vector<std::string_view> label_names(std::string_view labels) {
  std::vector<std::string_view> out;
  while (!labels.empty()) {
    const size_t blank = std::min(labels.find(' '), labels.size());
    out.push_back(labels.substr(0, blank));
    labels.remove_prefix(std::min(blank + 1, labels.size()));
  }
  return out;
}

TwinCounter counter_of(Metrics& metrics, MetricId id, LabelValues values) {
  const MetricRow& row = metric_row(id);
  const Labels labels = labels_of(row.labels, values);
  TwinCounter out{&metrics.counter(row.name, row.help, labels)};
  if (!row.twin.empty()) out.old = &metrics.counter(row.twin, row.help, twin_labels_of(row, labels));
  return out;
}

TwinGauge gauge_of(Metrics& metrics, MetricId id, LabelValues values) {
  const MetricRow& row = metric_row(id);
  const Labels labels = labels_of(row.labels, values);
  TwinGauge out{&metrics.gauge(row.name, row.help, labels)};
  if (!row.twin.empty()) out.old = &metrics.gauge(row.twin, row.help, twin_labels_of(row, labels));
  return out;
}

TwinHistogram histogram_of(Metrics& metrics, MetricId id, LabelValues values) {
  const MetricRow& row = metric_row(id);
  const Labels labels = labels_of(row.labels, values);
  TwinHistogram out{&metrics.histogram(row.name, row.help, row.bounds, labels)};
  if (!row.twin.empty()) out.old = &metrics.histogram(row.twin, row.help, row.bounds, twin_labels_of(row, labels));
  return out;
}

void drop_series(Metrics& metrics, MetricId id, LabelValues values) {
  const MetricRow& row = metric_row(id);
  const Labels labels = labels_of(row.labels, values);
  const auto drop = [&](std::string_view name, const Labels& of) {
    row.type == kC ? metrics.remove_counter(name, of) : metrics.remove_gauge(name, of);
  };
  drop(row.name, labels);
  if (!row.twin.empty()) drop(row.twin, twin_labels_of(row, labels));
}

std::string metric_docs() {
  std::string out =
      "# Metrics of baton-router\n\nGenerated from `src/picker/metric_table.cc`; do not edit (`BATON_WRITE_DOCS=1 picker_test "
      "--gtest_filter='MetricTable*'`). The names are llm-d's;\nwhere llm-d still emits a deprecated name with the same number, so "
      "do we. Values of labels that a client chooses (models, tenants) are\ncapped at 1000 each, then `other`. Histograms of seconds "
      "and bytes have llm-d's buckets. The engine's and the sidecar's metrics are their own:\nsee `/metrics` there.\n\n"
      "Not emitted, because nothing here could count it: `plugin_data_scope_violations_total` (our plugins are functions of typed "
      "values),\n`kv_cache_events_stores_skipped_total` and `removals_skipped_total` (no cache kind is skipped), "
      "`kv_cache_events_subscriber_reconnections_total`\n(ZeroMQ reconnects below us), `disaggregatedset_*`.\n\n"
      "| metric | type | labels | what | deprecated twin |\n|---|---|---|---|---|\n";
  for (const MetricRow& row : metric_rows()) {
    const auto shown = [&](std::string_view name) { return cat("`", name, row.type == kC ? "_total`" : "`"); };
    const auto list = [](std::string_view labels) {
      std::string text;
      for (const std::string_view name : label_names(labels)) text += cat(text.empty() ? "" : ", ", name.substr(0, name.find('=')));
      return text;
    };
    out += cat("| ", shown(row.name), " | ", metric_type_name(row.type), " | ", list(row.labels), " | ", row.help, " | ");
    if (!row.twin.empty()) out += cat(shown(row.twin), row.twin_labels.empty() ? "" : cat(" {", list(row.twin_labels), "}"));
    out += " |\n";
  }
  return out;
}

}  // namespace baton::picker
