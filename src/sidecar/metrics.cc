#include "sidecar/metrics.h"

namespace baton::sidecar {

Histogram& SidecarMetrics::seconds(std::string_view leg) {
  static const std::vector<double> kBounds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
  return metrics_.histogram("pd_request_duration_seconds", "Duration of one leg of a request.", kBounds,
                            {{"leg", std::string(leg)}});
}

void SidecarMetrics::prefill_status(int code) {
  metrics_.counter("pd_prefill_status", "Prefill attempts by HTTP status.", {{"code", std::to_string(code)}}).inc();
}

void SidecarMetrics::fallback(std::string_view policy) {
  metrics_.counter("pd_fallback", "Failed prefills by what was done instead.", {{"policy", std::string(policy)}}).inc();
}

}  // namespace baton::sidecar
