#include "engine/repetition.h"

#include <algorithm>

namespace baton::engine {

bool ends_in_repetition(std::span<const int32_t> tokens, const RepetitionLimits& limits) {
  const int64_t n = std::ssize(tokens), count = limits.min_count;
  if (count < 2) return false;
  for (int64_t length = std::max(limits.min_pattern, 1); length <= limits.max_pattern && length * count <= n; ++length) {
    // Each token of the repeated part equals the one a pattern earlier.
    const auto last = tokens.last(static_cast<size_t>(length * count));
    if (last.back() != last[last.size() - 1 - static_cast<size_t>(length)]) continue;  // most lengths end here
    if (std::equal(last.begin() + length, last.end(), last.begin())) return true;
  }
  return false;
}

}  // namespace baton::engine
