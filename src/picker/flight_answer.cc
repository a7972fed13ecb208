// The answer: when its first byte came, what it cost, how it ended; and what the picker learns from that.
#include <algorithm>

#include "picker/flight.h"

namespace baton::picker {
namespace {

// llm-d's names for the error_code label.
std::string_view error_code(int status) {
  switch (status) {
    case 400:
      return "BadRequest";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "NotFound";
    case 412:
      return "PreconditionFailed";
    case 413:
      return "RequestEntityTooLarge";
    case 429:
      return "ResourceExhausted";
    case 499:
      return "ClientCanceled";
    case 503:
      return "ServiceUnavailable";
    default:
      return status >= 500 ? "Internal" : "Unknown";
  }
}

}  // namespace

bool FlightImpl::wants_answer() const { return plan_.needs.answer_usage || rewritten_; }

void FlightImpl::answer_head(int status, std::string_view content_type) {
  head_ns_ = core_.clock.now_ns();
  status_ = status;
  streaming_ = content_type.starts_with("text/event-stream");
  answered_ = true;
  answer_ = AnswerReader({.stream = streaming_,
                          .usage = plan_.needs.answer_usage,
                          .served = rewritten_ ? target_ : std::string(),
                          .asked = rewritten_ ? reader_.facts().model : std::string()});
  if (!wants_answer()) first_byte(head_ns_);
}

// The prompt is computed: its tokens are nobody's work any more, and the prefill worker is done with it.
void FlightImpl::first_byte(int64_t now_ns) {
  if (first_ns_ != 0) return;
  first_ns_ = last_ns_ = now_ns;
  const EndpointState* computed = on_prefill_.state() != nullptr ? on_prefill_.state() : on_primary_.state();
  if (computed != nullptr && status_ == 200) {
    const double us = static_cast<double>(now_ns - decided_ns_ - waited_ns_) * 1e-3;
    core_.predictor.prefilled(*const_cast<EndpointState*>(computed), queued_tokens_, uncached_tokens_, cached_tokens_, us);
  }
  on_prefill_.release();
  on_primary_.release_tokens();
  core_.admission.poke();
  if (status_ != 200 || series_ == nullptr || std::exchange(ttft_told_, true)) return;
  const double seconds = static_cast<double>(now_ns - start_ns_) * 1e-9;
  series_->first_byte(streaming_, seconds);
  if (plan_.needs.predictions) series_->measured(live_->times->latency, "ttft", seconds, ttft_slo_ms_ * 1e-3);
}

std::string_view FlightImpl::answer_bytes(std::string_view bytes, bool last) {
  const int64_t now = core_.clock.now_ns();
  response_bytes_ += static_cast<int64_t>(bytes.size());
  const std::string_view out = wants_answer() ? answer_.pass(bytes, last) : bytes;
  if (first_ns_ == 0) {
    // Not streamed: the first byte says nothing about when the prompt was computed, but it is the end of that in any case.
    if (!bytes.empty() || last) first_byte(now);
  } else if (streaming_ && answer_.events() > 0) {
    series_->observe(MetricId::kItl, static_cast<double>(now - last_ns_) * 1e-9);
    last_ns_ = now;
  }
  if (streaming_) answering_ns_ += core_.clock.now_ns() - now;
  return out;
}

void FlightImpl::set_served(std::string_view served) {
  served_ = served;
  if (plan_.served_verifier) answer_headers_.emplace_back("x-conformance-test-served-endpoint", served_);
}

void FlightImpl::learn() {
  if (status_ != 200 || first_ns_ == 0 || !streaming_) return;
  const int64_t tokens = output_tokens() - tokens_before_;
  if (tokens < 2 || last_ns_ <= first_ns_) return;
  const double tpot_us = static_cast<double>(last_ns_ - first_ns_) * 1e-3 / static_cast<double>(tokens - 1);
  series_->observe(MetricId::kTpot, tpot_us * 1e-6);
  if (plan_.needs.predictions) series_->measured(live_->times->latency, "tpot", tpot_us * 1e-6, tpot_slo_ms_ * 1e-3);
  if (on_primary_.state() != nullptr) {
    const int running = std::max(1, (running_then_ + on_primary_.state()->inflight_requests.load(std::memory_order_relaxed)) / 2);
    const double context = static_cast<double>(prompt_tokens_) + static_cast<double>(tokens) / 2;
    core_.predictor.decoded(*on_primary_.state(), running, context, tpot_us);
  }
}

void FlightImpl::finish(int status) {
  if (std::exchange(finished_, true) || series_ == nullptr) return;
  status_ = status;
  const int64_t now = core_.clock.now_ns();
  const double seconds = static_cast<double>(now - start_ns_) * 1e-9;
  series_->count_request();
  if (counted_running_) series_->running(-1);
  if (status >= 400) series_->count_error(answered_ && status != 499 ? "ModelServerError" : error_code(status));
  series_->observe(MetricId::kDuration, seconds);
  series_->observe(MetricId::kRequestBytes, static_cast<double>(request_bytes_));
  if (answered_) {
    series_->observe(MetricId::kResponseBytes, static_cast<double>(response_bytes_));
    core_.metrics.observe(MetricId::kResponseProcessing,
                          static_cast<double>(streaming_ ? answering_ns_ : now - head_ns_) * 1e-9);
  }
  const Usage& usage = answer_.usage();
  const int64_t input = usage.prompt > 0 ? usage.prompt : prompt_tokens_;
  const int64_t output = usage.completion > 0 ? usage.completion : answer_.events_total();  // of all workers that answered
  series_->observe(MetricId::kInputTokens, static_cast<double>(input));
  if (output > 0) {
    series_->observe(MetricId::kOutputTokens, static_cast<double>(output));
    series_->observe(MetricId::kNtpot, seconds / static_cast<double>(output));
  }
  if (usage.cached_seen) series_->observe(MetricId::kCachedTokens, static_cast<double>(usage.cached));
  learn();
  trace_.finish({.status = status,
                 .input_tokens = input,
                 .output_tokens = output > 0 ? output : -1,
                 .cached_tokens = usage.cached_seen ? usage.cached : -1,
                 .ttft_s = first_ns_ > 0 ? static_cast<double>(first_ns_ - start_ns_) * 1e-9 : -1,
                 .destination = choice_.destination});
  if (waiter_ && answered_) core_.admission.served(*waiter_, input, output);
}

}  // namespace baton::picker
