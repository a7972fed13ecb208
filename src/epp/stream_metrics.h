#pragma once
// StreamMetrics: llm_d_epp_extproc_* of the ext_proc server, there only with --enable-grpc-stream-metrics, and what only this
// door sees: requests it ended by itself. Any thread. Source: facts sheet "epp" 7.
#include <array>
#include <cstdint>

#include "base/result.h"
#include "picker/metric_table.h"

namespace baton::epp {

class StreamMetrics {
 public:
  StreamMetrics(Metrics& metrics, bool per_stream);
  void opened();
  void closed(Code code, int64_t nanoseconds);
  void stalled() { stalled_.inc(); }
  void malformed() { malformed_.inc(); }

 private:
  Metrics& metrics_;
  picker::TwinGauge inflight_;
  picker::TwinHistogram duration_;
  picker::TwinCounter stalled_, malformed_;
};

}  // namespace baton::epp
