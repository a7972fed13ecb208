#pragma once
// MetricsScanner: the few numbers the picker needs, straight from an engine's Prometheus text; everything else is skipped line by
// line. One scanner per engine kind: rows of a table (vllm, sglang, trtllm-serve, triton-tensorrt-llm, triton), whose names a
// configuration may replace, with label filters: `name{label="value"}`. Several series of one name (data-parallel ranks) are
// aggregated: queues and blocks are summed, KV usage is averaged; of the LoRA series the latest value (a time) wins.
// Untrusted text: never fails, absent or unusable values stay nullopt. Immutable; any thread. Source: facts sheet "epp" 5.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "route/plan.h"

namespace baton::picker {

struct ScannedLora {
  int32_t max = 0;
  std::vector<std::string> running, waiting;
  bool operator==(const ScannedLora&) const = default;
};

struct Scanned {
  std::optional<int32_t> waiting, running;
  std::optional<float> kv_usage, kv_usage_max;  // 0..1: mean and largest over the ranks
  std::optional<int32_t> block_tokens;
  std::optional<int64_t> blocks_total;
  std::optional<ScannedLora> lora;
  bool complete() const { return waiting && running && kv_usage; }
  bool any() const { return waiting || running || kv_usage; }
};

class MetricsScanner {
 public:
  // engine: a row's name; unknown names are the default row, vllm. custom: empty fields keep the row's.
  // Errors: a custom name that is no metric name with optional label filters.
  static Result<MetricsScanner> make(std::string_view engine, const route::SourceParams::Engine& custom = {});
  Scanned scan(std::string_view text) const;
  // Query that asks prometheus_client for these families alone ("name[]=a&name[]=b"); others ignore it.
  const std::string& query() const { return query_; }

 private:
  enum class Field : uint8_t { kWaiting, kRunning, kKvUsage, kLora, kCacheInfo, kBlockTokens, kBlocksTotal };
  struct Wanted {
    std::string name;
    std::vector<std::pair<std::string, std::string>> filters;
    Field field = Field::kWaiting;
  };
  struct Tally;
  Result<> want(std::string_view spec, Field field);
  void finish();
  void take(const Wanted& wanted, std::string_view rest, Tally& tally) const;

  std::vector<Wanted> wanted_;
  std::string prefix_;                    // of all names
  std::string size_label_, count_label_;  // of the cache info series
  bool next_[256] = {};                   // characters that may follow the prefix
  std::string query_;
};

}  // namespace baton::picker
