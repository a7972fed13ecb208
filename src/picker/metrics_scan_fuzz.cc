// Any bytes as a /metrics answer, and as a custom metric name: values in range, and the same again when unrelated lines are put
// around.
#include <cstdlib>
#include <string>

#include "picker/metrics_scan.h"

namespace {

void check(const baton::picker::MetricsScanner& scanner, const std::string& text) {
  const auto got = scanner.scan(text);
  if (got.waiting && *got.waiting < 0) std::abort();
  if (got.running && *got.running < 0) std::abort();
  if (got.kv_usage && !(*got.kv_usage >= 0 && *got.kv_usage <= 1 && *got.kv_usage <= *got.kv_usage_max + 1e-6f)) std::abort();
  if (got.block_tokens && *got.block_tokens <= 0) std::abort();
  if (got.blocks_total && *got.blocks_total <= 0) std::abort();
  const auto again = scanner.scan("# HELP vllm:num_requests_waiting x\nother 3\n" + text + "\nother 4\n");
  if (again.waiting != got.waiting || again.running != got.running || again.kv_usage != got.kv_usage || again.lora != got.lora)
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  constexpr const char* kEngines[] = {"vllm", "sglang", "trtllm-serve", "triton-tensorrt-llm", "triton"};
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  check(*baton::picker::MetricsScanner::make(kEngines[data[0] % 5]), text);
  baton::route::SourceParams::Engine custom;
  custom.waiting = text.substr(0, text.find('\n'));
  if (const auto scanner = baton::picker::MetricsScanner::make("vllm", custom)) (void)scanner->scan(text);
  return 0;
}
