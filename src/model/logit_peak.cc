#include "model/logit_peak.h"

#include <algorithm>

namespace baton::model {
namespace {

constexpr size_t kLanes = 16;    // the compiler makes vectors of them
constexpr size_t kBlock = 1024;  // 4 KiB, still in the first cache when it is looked through again

}  // namespace

LogitPeak peak_of(std::span<const float> x, int32_t first) {
  LogitPeak out;
  for (size_t at = 0; at < x.size(); at += kBlock) {
    const std::span<const float> block = x.subspan(at, std::min(kBlock, x.size() - at));
    float greatest[kLanes];
    int32_t nans[kLanes] = {};
    std::fill(greatest, greatest + kLanes, out.value);
    const size_t whole = block.size() / kLanes * kLanes;
    for (size_t i = 0; i < whole; i += kLanes) {
      for (size_t j = 0; j < kLanes; ++j) {
        const float v = block[i + j];
        greatest[j] = v > greatest[j] ? v : greatest[j];
        nans[j] |= v != v;
      }
    }
    float best = out.value;
    int32_t any = 0;
    for (size_t j = 0; j < kLanes; ++j) best = greatest[j] > best ? greatest[j] : best, any |= nans[j];
    for (size_t i = whole; i < block.size(); ++i) best = block[i] > best ? block[i] : best, any |= block[i] != block[i];
    out.nan |= any != 0;
    if (!(best > out.value)) continue;
    out.value = best;
    out.at = first + static_cast<int32_t>(at) + static_cast<int32_t>(std::ranges::find(block, best) - block.begin());
  }
  return out;
}

}  // namespace baton::model
