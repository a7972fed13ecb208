#include "engine/draft_policy.h"

#include <algorithm>

namespace baton::engine {

void StepCost::observe(int32_t rows, double seconds) {
  for (double* sum : {&n_, &x_, &y_, &xx_, &xy_}) *sum *= kStepMemory;
  const double x = rows;
  n_ += 1;
  x_ += x;
  y_ += seconds;
  xx_ += x * x;
  xy_ += x * seconds;
}

double StepCost::price(int32_t rows) const {
  const double spread = n_ * xx_ - x_ * x_;
  if (n_ < 2 || spread < 1e-6 * n_ * n_) return kPriceMin;  // all steps had as many rows: nothing is known of another one
  const double b = std::max(0.0, (n_ * xy_ - x_ * y_) / spread);
  const double a = std::max(0.0, (y_ - b * x_) / n_);
  const double step = a + b * rows;
  return step > 0 ? std::clamp(b * rows / step, kPriceMin, 1.0) : kPriceMin;
}

int32_t DraftPace::length(double price, int32_t most) {
  int32_t n = 0;
  for (double right = rate_; n < most && right > price; right *= rate_) ++n;
  if (n == 0 && ++since_ >= kProbeTokens) n = std::min(1, most);
  return n;
}

void DraftPace::learn(int32_t drafted, int32_t accepted) {
  since_ = 0;
  for (int32_t i = 0; i < accepted; ++i) rate_ = 1 - (1 - rate_) * kRateMemory;
  if (accepted < drafted) rate_ *= kRateMemory;
}

}  // namespace baton::engine
