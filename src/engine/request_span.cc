#include "engine/request_span.h"

namespace baton::engine {
namespace {

SpanAttribute::Value seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

}  // namespace

RequestSpan::RequestSpan(Tracer* tracer, const net::Request& request, int64_t arrived_ns) : arrived_ns_(arrived_ns) {
  if (tracer == nullptr) return;
  span_ = tracer->begin("llm_request", SpanKind::kServer, parse_traceparent(request.headers.get(kTraceparent).value_or("")),
                        arrived_ns);
}

void RequestSpan::first_token(const Waterfall& waterfall, int64_t now_ns) {
  if (first_ns_ >= 0 || !span_.on()) return;
  first_ns_ = now_ns;
  waterfall_ = waterfall;
}

void RequestSpan::done(const std::string& id, const wire::GenerateFields& fields, const std::string& model,
                       const wire::Usage& usage, int64_t now_ns) {
  if (!span_.on()) return;
  span_.set("gen_ai.response.model", model);
  span_.set("gen_ai.request.id", id);
  if (fields.temperature) span_.set("gen_ai.request.temperature", SpanAttribute::Value(*fields.temperature));
  if (fields.top_p) span_.set("gen_ai.request.top_p", SpanAttribute::Value(*fields.top_p));
  if (fields.max_tokens) span_.set("gen_ai.request.max_tokens", *fields.max_tokens);
  span_.set("gen_ai.request.n", fields.n);
  span_.set("gen_ai.usage.prompt_tokens", SpanAttribute::Value(usage.prompt_tokens));
  span_.set("gen_ai.usage.completion_tokens", SpanAttribute::Value(usage.completion_tokens));
  if (usage.cached_tokens) span_.set("gen_ai.usage.cached_tokens", SpanAttribute::Value(*usage.cached_tokens));
  span_.set("gen_ai.latency.e2e", seconds(now_ns - arrived_ns_));
  if (first_ns_ < 0) return span_.fail("no token");
  const int64_t queue = waterfall_.queue_us * 1'000;
  span_.set("gen_ai.latency.time_in_queue", seconds(queue));
  span_.set("gen_ai.latency.time_to_first_token", seconds(first_ns_ - arrived_ns_));
  span_.set("gen_ai.latency.time_in_model_prefill", seconds(first_ns_ - arrived_ns_ - queue));
  span_.set("gen_ai.latency.time_in_model_decode", seconds(now_ns - first_ns_));
  span_.set("gen_ai.latency.time_in_model_inference", seconds(now_ns - arrived_ns_ - queue));
  if (waterfall_.kv_bytes > 0) {
    span_.set("baton.kv.bytes", SpanAttribute::Value(waterfall_.kv_bytes));
    span_.set("baton.kv.transport", waterfall_.kv_transport);
    span_.set("baton.kv.transfer_seconds", seconds(waterfall_.transfer_us * 1'000));
  }
  span_.end(now_ns);
}

}  // namespace baton::engine
