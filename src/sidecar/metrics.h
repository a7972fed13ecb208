#pragma once
// The sidecar's metrics (facts sheet "kv_transfer" 8.9). Any thread.
#include "base/metrics.h"

namespace baton::sidecar {

class SidecarMetrics {
 public:
  SidecarMetrics();
  Histogram& seconds(std::string_view leg);  // "encode", "prefill", "decode" (to the end of the answer)
  void prefill_status(int code);             // every attempt; 502 = no connection or a broken answer, 504 = too late
  void fallback(std::string_view policy);    // what was done about a failed prefill: "local" or "next"
  void moriio_dns(std::string_view what);    // "reresolve", "ip_changed", "lookup_failures"
  // How a prompt came to the engine: "push" (while it was computed), "pull" (afterwards), "local" (the engine read it itself).
  void hand_over(std::string_view mode);
  std::string text() const { return metrics_.text(); }

 private:
  Metrics metrics_;
  // Of every request: looked up once.
  Histogram &prefill_seconds_, &decode_seconds_;
  Counter& prefill_ok_;
};

}  // namespace baton::sidecar
