#include "sidecar/metrics.h"

#include "base/result.h"

namespace baton::sidecar {

namespace {

Histogram& leg_seconds(Metrics& metrics, std::string_view leg) {
  static const std::vector<double> kBounds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
  return metrics.histogram("pd_request_duration_seconds", "Duration of one leg of a request.", kBounds,
                           {{"leg", std::string(leg)}});
}

Counter& prefills(Metrics& metrics, int code) {
  return metrics.counter("pd_prefill_status", "Prefill attempts by HTTP status.", {{"code", std::to_string(code)}});
}

}  // namespace

SidecarMetrics::SidecarMetrics()
    : prefill_seconds_(leg_seconds(metrics_, "prefill")),
      decode_seconds_(leg_seconds(metrics_, "decode")),
      prefill_ok_(prefills(metrics_, 200)) {}

Histogram& SidecarMetrics::seconds(std::string_view leg) {
  return leg == "prefill" ? prefill_seconds_ : leg == "decode" ? decode_seconds_ : leg_seconds(metrics_, leg);
}

void SidecarMetrics::prefill_status(int code) { (code == 200 ? prefill_ok_ : prefills(metrics_, code)).inc(); }

void SidecarMetrics::hand_over(std::string_view mode) {
  metrics_.counter("pd_hand_over", "Requests with a prefiller, by how the prompt came to the engine.", {{"mode", std::string(mode)}})
      .inc();
}

void SidecarMetrics::fallback(std::string_view policy) {
  metrics_.counter("pd_fallback", "Failed prefills by what was done instead.", {{"policy", std::string(policy)}}).inc();
}

void SidecarMetrics::moriio_dns(std::string_view what) {
  metrics_.counter(cat("moriio_dns_", what), "Look-ups of --moriio-remote-hosts and --moriio-decode-hosts.").inc();
}

}  // namespace baton::sidecar
