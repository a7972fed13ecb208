#include "model/logit_peak.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/prng.h"

namespace baton::model {
namespace {

LogitPeak plainly(std::span<const float> x) {
  LogitPeak out;
  for (size_t i = 0; i < x.size(); ++i) {
    out.nan |= x[i] != x[i];
    if (x[i] > out.value) out.value = x[i], out.at = static_cast<int32_t>(i);
  }
  return out;
}

void expect_same(const LogitPeak& a, const LogitPeak& b) {
  EXPECT_EQ(a.value, b.value);
  EXPECT_EQ(a.at, b.at);
  EXPECT_EQ(a.nan, b.nan);
}

// Rows with ties, what is masked and what is not a number, looked at whole and in parts that are joined in any order.
TEST(LogitPeak, IsTheFirstOfTheGreatestInAnyParts) {
  Prng prng(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<float> row(prng.below(5000));
    const uint64_t values = 1 + prng.below(40);
    const bool masked = prng.chance(0.2), nans = prng.chance(0.3);
    for (float& v : row) {
      v = static_cast<float>(prng.below(values)) - 20;
      if (masked && prng.chance(0.9)) v = -std::numeric_limits<float>::infinity();
      if (nans && prng.chance(0.01)) v = std::numeric_limits<float>::quiet_NaN();
    }
    const LogitPeak whole = plainly(row);
    expect_same(peak_of(row), whole);
    std::vector<LogitPeak> parts;
    for (size_t at = 0; at < row.size();) {
      const size_t n = std::min<size_t>(1 + prng.below(1500), row.size() - at);
      parts.push_back(peak_of(std::span(row).subspan(at, n), static_cast<int32_t>(at)));
      at += n;
    }
    for (size_t i = parts.size(); i > 1; --i) std::swap(parts[i - 1], parts[prng.below(i)]);
    LogitPeak joined;
    for (const LogitPeak& part : parts) joined.join(part);
    expect_same(joined, whole);
  }
}

TEST(LogitPeak, OfNothingIsNothing) {
  EXPECT_EQ(peak_of({}).at, -1);
  const std::vector<float> masked(100, -std::numeric_limits<float>::infinity());
  EXPECT_EQ(peak_of(masked).at, -1);
}

}  // namespace
}  // namespace baton::model
