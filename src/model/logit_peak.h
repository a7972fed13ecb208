#pragma once
// LogitPeak: what a look at all logits of a row finds. Whoever computes logits looks at them while they are near: a vocabulary of
// 50,000 read again by one thread costs some 7 us a row.
#include <cstdint>
#include <limits>
#include <span>

namespace baton::model {

struct LogitPeak {
  float value = -std::numeric_limits<float>::infinity();
  int32_t at = -1;   // where the greatest value first stands; -1: nothing is above -inf
  bool nan = false;  // some value is not a number

  // What of two parts of a row, in any order, is found in both.
  void join(const LogitPeak& other) {
    nan |= other.nan;
    if (other.at < 0 || other.value < value || (other.value == value && at >= 0 && at < other.at)) return;
    value = other.value;
    at = other.at;
  }
};

// first: the index of x[0] in its row.
LogitPeak peak_of(std::span<const float> x, int32_t first = 0);

}  // namespace baton::model
