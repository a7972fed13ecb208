#pragma once
// The sidecar's metrics (facts sheet "kv_transfer" 8.9). Any thread.
#include "base/metrics.h"

namespace baton::sidecar {

class SidecarMetrics {
 public:
  Histogram& seconds(std::string_view leg);  // "prefill", "decode" (to the end of the answer)
  void prefill_status(int code);             // every attempt; 502 = no connection or a broken answer, 504 = too late
  void fallback(std::string_view policy);    // what was done about a failed prefill: "local" or "next"
  std::string text() const { return metrics_.text(); }

 private:
  Metrics metrics_;
};

}  // namespace baton::sidecar
