#include "epp/stream_metrics.h"

namespace baton::epp {

StreamMetrics::StreamMetrics(Metrics& metrics, bool per_stream)
    : metrics_(metrics),
      stalled_(metrics.counter("baton_epp_body_timeout", "Requests whose client stopped sending its body")),
      malformed_(metrics.counter("baton_epp_malformed", "Calls that sent no ext_proc")) {
  if (!per_stream) return;
  inflight_ = &metrics.gauge("llm_d_epp_extproc_streams_inflight", "ext_proc streams open");
  duration_ = &metrics.histogram("llm_d_epp_extproc_stream_duration_seconds", "Life of an ext_proc stream",
                                 {.005, .025, .05, .1, .2, .4, .8, 1.5, 3, 6, 10, 30, 60, 120, 300, 600, 1800, 3600});
}

void StreamMetrics::opened() {
  if (inflight_ != nullptr) inflight_->add(1);
}

void StreamMetrics::closed(Code code, int64_t nanoseconds) {
  if (inflight_ == nullptr) return;
  inflight_->add(-1);
  duration_->observe(static_cast<double>(nanoseconds) * 1e-9);
  metrics_.counter("llm_d_epp_extproc_streams", "ext_proc streams by how they ended", {{"code", std::string(code_name(code))}})
      .inc();
}

}  // namespace baton::epp
