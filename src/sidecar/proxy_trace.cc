#include "sidecar/proxy_trace.h"

#include <algorithm>

namespace baton::sidecar {

void ProxyTrace::begin(Tracer* tracer, const net::Request& request, std::string_view request_id, std::string_view connector) {
  if (tracer == nullptr) return;
  forward_ = tracer->begin("forward_request", SpanKind::kServer,
                           parse_traceparent(request.headers.get(kTraceparent).value_or("")), request.arrived_ns);
  forward_.set("llm_d.pd_proxy.request_id", request_id);
  forward_.set("llm_d.pd_proxy.request_path", request.path);
  forward_.set("llm_d.pd_proxy.connector", connector);
}

Span ProxyTrace::leg(std::string_view name, std::vector<std::pair<std::string, std::string>>& headers) const {
  Span span = forward_.child(name, SpanKind::kClient);
  if (span.exists()) headers.emplace_back(kTraceparent, traceparent(span.context()));
  return span;
}

void ProxyTrace::end(const Outcome& outcome) {
  if (forward_.on()) {
    const auto ms = [&](std::string_view key, double value) { forward_.set(key, SpanAttribute::Value(value)); };
    const bool remote = outcome.prefiller != "-";
    forward_.set("llm_d.pd_proxy.disaggregation_used", SpanAttribute::Value(remote));
    if (remote) forward_.set("llm_d.pd_proxy.prefill_target", outcome.prefiller);
    forward_.set("llm_d.pd_proxy.reason", outcome.note.empty() ? (remote ? "prefill_header" : "no_prefill_header") : outcome.note);
    forward_.set("http.response.status_code", outcome.status);
    ms("llm_d.pd_proxy.prefill_duration_ms", outcome.prefill_ms);
    ms("llm_d.pd_proxy.true_ttft_ms", outcome.first_byte_ms);
    ms("llm_d.pd_proxy.total_duration_ms", outcome.total_ms);
    if (outcome.status >= 500) forward_.fail("status " + std::to_string(outcome.status));
  }
  forward_.end();
}

}  // namespace baton::sidecar
