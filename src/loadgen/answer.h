#pragma once
// Outcome: what one request did, in times and tokens. AnswerReader makes it from the pieces of a streamed answer, each with the
// time it was read; the rules are vllm bench serve's: the first event with choices is the first token, every further one is a
// gap, usage counts win over events. Pure; the clock is the caller's.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "net/sse.h"

namespace baton::loadgen {

struct Outcome {
  bool ok = false;
  std::string error;
  int64_t intended_ns = 0, sent_ns = 0, first_ns = 0, last_ns = 0;  // last: of the last event with choices
  std::vector<double> itl_s;
  int prompt_tokens = 0, output_tokens = 0;
  int index = 0;
  std::string text;
  std::string worker, ttft_stages;  // x-baton-worker, x-baton-ttft
  double ttft_s() const { return static_cast<double>(first_ns - sent_ns) * 1e-9; }
  double latency_s() const { return static_cast<double>(last_ns - sent_ns) * 1e-9; }
  double queue_s() const { return static_cast<double>(sent_ns - intended_ns) * 1e-9; }
};

class AnswerReader {
 public:
  explicit AnswerReader(Outcome& out) : out_(out) {}
  Result<> feed(std::string_view bytes, int64_t now_ns);
  Result<> finish();  // at the clean end of the body
 private:
  Result<> event(const std::string& data, int64_t now_ns);
  Outcome& out_;
  net::SseParser parser_;
  std::vector<net::SseEvent> events_;
  int chunks_ = 0;
  bool done_ = false;
};

}  // namespace baton::loadgen
