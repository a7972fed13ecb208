#pragma once
// The span of one generating request, as vLLM makes it: "llm_request", with gen_ai.* attributes, below whoever sent traceparent.
// Only with --otlp-traces-endpoint; else nothing. Thread: the request's.
#include <optional>

#include "base/trace.h"
#include "engine/request.h"
#include "net/http.h"
#include "wire/openai.h"
#include "wire/openai_response.h"

namespace baton::engine {

class RequestSpan {
 public:
  RequestSpan(Tracer* tracer, const net::Request& request, int64_t arrived_ns);
  void first_token(const Waterfall& waterfall, int64_t now_ns);  // the first one counts
  void done(const std::string& id, const wire::GenerateFields& fields, const std::string& model, const wire::Usage& usage,
            int64_t now_ns);

 private:
  Span span_;
  const int64_t arrived_ns_;
  int64_t first_ns_ = -1;
  Waterfall waterfall_;
};

}  // namespace baton::engine
