#pragma once
// scan_metrics(): the five numbers the picker needs, straight from a worker's Prometheus text; everything else is skipped line by
// line. Several series of one name (data-parallel ranks) are aggregated: queues are summed, KV usage is averaged. Untrusted text:
// never fails, absent or unusable values stay nullopt. Source: facts sheets "engine" 2.1, "epp" 5.
#include <cstdint>
#include <optional>
#include <string_view>

namespace baton::gateway {

struct Scraped {
  std::optional<int32_t> waiting, running;
  std::optional<float> kv_usage;  // 0..1
  std::optional<int32_t> block_size;
};

Scraped scan_metrics(std::string_view text);

}  // namespace baton::gateway
