#pragma once
// Stats: the metrics of one node. vllm:nixl_* are the names and buckets of existing dashboards (facts sheet "kv_transfer" 2.9),
// the kv_* ones are ours (8.9). Handles live as long as the Metrics. Any thread.
#include <string>
#include <string_view>

#include "base/metrics.h"
#include "base/result.h"
#include "transfer/frame.h"

namespace baton::transfer {

class Stats {
 public:
  Stats(Metrics& metrics, const Labels& labels);

  // Consumer.
  Histogram &xfer_seconds, &post_seconds, &bytes, &descriptors;
  Counter &failed_transfers, &failed_notifications, &integrity_errors, &received_bytes;
  void failure(Code code);
  void moved(Path path, size_t bytes, double seconds, size_t descriptors);  // a whole fetch
  void peer(const std::string& address, int state);                         // 1 connected, 0 connecting, -1 refused
  void path(const std::string& address, Path path, double bytes_per_s, bool slow);
  // Producer.
  Counter &expired_requests, &lease_expired;
  Gauge &computing, &offered, &reading, &revoking, &retained_bytes;

 private:
  Metrics& metrics_;
};

}  // namespace baton::transfer
