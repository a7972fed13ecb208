// Any bytes as a /metrics answer: values in range, and the same again when unrelated lines are put around.
#include <cstdlib>
#include <string>

#include "gateway/metrics_scan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto got = baton::gateway::scan_metrics(text);
  if (got.waiting && *got.waiting < 0) std::abort();
  if (got.running && *got.running < 0) std::abort();
  if (got.kv_usage && !(*got.kv_usage >= 0 && *got.kv_usage <= 1)) std::abort();
  if (got.block_size && *got.block_size <= 0) std::abort();
  const auto again = baton::gateway::scan_metrics("# HELP vllm:num_requests_waiting x\nother 3\n" + text + "\nother 4\n");
  if (again.waiting != got.waiting || again.running != got.running || again.kv_usage != got.kv_usage) std::abort();
  return 0;
}
