// What strangers send: traceparent, and whatever of a request gets into a log line. What is read is written back the same; a line's
// fields are members of a JSON object whatever they are.
#include "base/json.h"
#include "base/log_json.h"
#include "base/trace.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto context = parse_traceparent(text)) {
    const auto again = parse_traceparent(traceparent(*context));
    BATON_CHECK(context->valid() && again && again->trace_id == context->trace_id && again->span_id == context->span_id &&
                again->sampled == context->sampled);
  }
  BATON_CHECK(parse_json("{\"a\":0" + json_fields(text) + "}").has_value());
  return 0;
}
