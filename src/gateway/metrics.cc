#include "gateway/metrics.h"

#include <vector>

#include "base/json.h"

namespace baton::gateway {
namespace {

const std::vector<double> kGeneralBounds = {.005, .025, .05, .1,  .2,  .4,  .6,  .8,   1,    1.25, 1.5, 2,
                                            3,    4,    5,   6,   8,   10,  15,  20,   30,   45,   60,  120,
                                            180,  240,  300, 360, 480, 600, 900, 1200, 1800, 2700, 3600};
const std::vector<double> kSchedulerBounds = {.00001, .00002, .00005, .0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1};
const std::vector<double> kSizeBounds = {64,      256,     1024,     4096,     16384,     65536,     262144,
                                         1048576, 4194304, 16777216, 67108864, 268435456, 1073741824};
const std::vector<double> kTokenBounds = {1,    8,    16,    32,    64,    128,    256,    512,    1024,   2048,
                                          4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576};

Labels model_labels(std::string_view model) {
  return {{"model_name", std::string(model)}, {"target_model_name", std::string(model)}};
}

}  // namespace

GatewayMetrics::GatewayMetrics(std::string pool_name)
    : pool_name_(std::move(pool_name)),
      running_(metrics_.gauge("inference_objective_running_requests", "requests being answered")) {}

void GatewayMetrics::decided(std::string_view model, const View& view, const route::Decision& decision, double seconds) {
  metrics_.histogram("inference_extension_scheduler_e2e_duration_seconds", "time of one decision", kSchedulerBounds)
      .observe(seconds);
  metrics_.counter("inference_extension_scheduler_attempts", "decisions by result", {{"status", "success"}}).inc();
  const bool remote = decision.prefill >= 0;
  metrics_
      .counter("llm_d_inference_scheduler_pd_decision", "decisions by kind",
               {{"model_name", std::string(model)}, {"decision_type", remote ? "prefill-decode" : "decode-only"}})
      .inc();
  metrics_.counter("baton_gateway_decisions", "decisions by reason", {{"why", std::string(route::why_name(decision.why))}}).inc();
  auto picked = [&](int index, const char* role) {
    metrics_
        .counter("baton_gateway_picks", "requests sent to an endpoint",
                 {{"endpoint", view.endpoints[index].address}, {"role", role}})
        .inc();
  };
  picked(decision.decode, "decode");
  if (remote) picked(decision.prefill, "prefill");
}

void GatewayMetrics::undecided() {
  metrics_.counter("inference_extension_scheduler_attempts", "decisions by result", {{"status", "failure"}}).inc();
}

void GatewayMetrics::first_byte(std::string_view model, double seconds) {
  metrics_.histogram("baton_gateway_first_byte_seconds", "arrival to first answer byte", kGeneralBounds, model_labels(model))
      .observe(seconds);
}

void GatewayMetrics::finished(std::string_view model, int status, double seconds, size_t request_bytes, size_t response_bytes,
                              int64_t input_tokens) {
  const Labels labels = model_labels(model);
  metrics_.counter("inference_objective_request", "requests", labels).inc();
  if (status >= 400) {
    Labels with_code = labels;
    with_code["error_code"] = std::to_string(status);
    metrics_.counter("inference_objective_request_error", "requests that failed", with_code).inc();
  }
  metrics_.histogram("inference_objective_request_duration_seconds", "arrival to last byte", kGeneralBounds, labels)
      .observe(seconds);
  metrics_.histogram("inference_objective_request_sizes", "request body", kSizeBounds, labels)
      .observe(static_cast<double>(request_bytes));
  metrics_.histogram("inference_objective_response_sizes", "response body", kSizeBounds, labels)
      .observe(static_cast<double>(response_bytes));
  metrics_.histogram("inference_objective_input_tokens", "prompt tokens, estimated from bytes", kTokenBounds, labels)
      .observe(static_cast<double>(input_tokens));
}

void GatewayMetrics::rejected(std::string_view reason) {
  metrics_
      .counter("baton_gateway_rejected", "requests answered with an error before any worker was asked",
               {{"reason", std::string(reason)}})
      .inc();
}

// Gauges per endpoint are written here and not registered: an endpoint that is gone must leave no series behind.
std::string GatewayMetrics::text(const Pool& pool) {
  const auto view = pool.view();
  std::string out;
  const std::string name = json_string(pool_name_);
  auto per_endpoint = [&](std::string_view metric, std::string_view help, std::string_view label, auto value_of) {
    out += cat("# HELP ", metric, " ", help, "\n# TYPE ", metric, " gauge\n");
    for (const auto& state : view->states) out += cat(metric, "{", label, "=\"", state->address, "\"} ", value_of(*state), "\n");
  };
  per_endpoint("inference_pool_per_pod_queue_size", "requests waiting at an endpoint", cat("name=", name, ",model_server_pod"),
               [](const EndpointState& s) { return s.waiting.load(); });
  per_endpoint("baton_gateway_endpoint_up", "1 if the endpoint can take requests", "endpoint",
               [](const EndpointState& s) { return s.healthy ? 1 : 0; });
  per_endpoint("baton_gateway_endpoint_inflight_requests", "our requests on an endpoint", "endpoint",
               [](const EndpointState& s) { return s.inflight_requests.load(); });
  per_endpoint("baton_gateway_endpoint_inflight_tokens", "our prompt tokens an endpoint has still to compute", "endpoint",
               [](const EndpointState& s) { return s.inflight_tokens.load(); });
  double ready = 0, waiting = 0, running = 0, kv = 0;
  for (const auto& state : view->states) {
    if (!state->healthy) continue;
    ready += 1, waiting += state->waiting, running += state->running, kv += static_cast<double>(state->kv_usage.load());
  }
  const Labels labels = {{"name", pool_name_}};
  const double n = ready > 0 ? ready : 1;
  metrics_.gauge("inference_pool_ready_pods", "endpoints that can take requests", labels).set(ready);
  metrics_.gauge("inference_pool_average_queue_size", "mean of waiting requests", labels).set(waiting / n);
  metrics_.gauge("inference_pool_average_running_requests", "mean of running requests", labels).set(running / n);
  metrics_.gauge("inference_pool_average_kv_cache_utilization", "mean of KV cache usage, 0 to 1", labels).set(kv / n);
  metrics_.gauge("inference_extension_prefix_indexer_size", "blocks the prefix index remembers")
      .set(static_cast<double>(pool.prefix_blocks()));
  return metrics_.text() + out;
}

}  // namespace baton::gateway
