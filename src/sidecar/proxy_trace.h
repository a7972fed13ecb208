#pragma once
// ProxyTrace: a request's spans in the sidecar, under llm-d's names: forward_request > prefill, decode or chunked_decode, with
// llm_d.pd_proxy.* attributes. Each leg's worker is told its span, so that an engine's spans hang below it. Only with --tracing and
// a collector; else nothing happens and traceparent passes through. Owner: the Exchange; its thread.
// Source: facts sheet "kv_transfer" 1.12.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/trace.h"
#include "net/http.h"

namespace baton::sidecar {

class ProxyTrace {
 public:
  void begin(Tracer* tracer, const net::Request& request, std::string_view request_id, std::string_view connector);
  // A leg, named to its worker by `headers`.
  Span leg(std::string_view name, std::vector<std::pair<std::string, std::string>>& headers) const;
  struct Outcome {
    int status = 0;
    std::string_view prefiller{}, note{};  // "-" = none
    double prefill_ms = 0, first_byte_ms = 0, total_ms = 0;
  };
  void end(const Outcome& outcome);

 private:
  Span forward_;
};

}  // namespace baton::sidecar
