#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace baton::model {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;

// Long wavelengths are divided by the factor, short ones kept, those between blended.
double llama3(double f, const ModelConfig& c) {
  const double wavelength = kTurn / f;
  if (wavelength < c.rope_original_context / c.rope_high_freq_factor) return f;
  if (wavelength > c.rope_original_context / c.rope_low_freq_factor) return f / c.rope_factor;
  const double smooth =
      (c.rope_original_context / wavelength - c.rope_low_freq_factor) / (c.rope_high_freq_factor - c.rope_low_freq_factor);
  return (1 - smooth) * f / c.rope_factor + smooth * f;
}

double yarn(double f, int i, const ModelConfig& c) {
  const int dims = c.rotated();
  const auto dim_of = [&](double turns) {
    return dims * std::log(c.rope_original_context / (turns * kTurn)) / (2 * std::log(c.rope_theta));
  };
  const double first = dim_of(c.yarn_beta_fast), last = dim_of(c.yarn_beta_slow);
  const double low = std::max(0.0, c.yarn_truncate ? std::floor(first) : first);
  double high = std::min(dims - 1.0, c.yarn_truncate ? std::ceil(last) : last);
  if (high == low) high += 0.001;
  const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
  return f / c.rope_factor * ramp + f * (1 - ramp);
}

double magnitude(const ModelConfig& c) {
  if (c.rope_scaling != RopeScaling::kYarn && c.rope_scaling != RopeScaling::kLongRope) return 1;
  if (c.rope_attention_factor > 0) return c.rope_attention_factor;
  if (c.rope_factor <= 1) return 1;
  if (c.rope_scaling == RopeScaling::kYarn) return 0.1 * std::log(c.rope_factor) + 1;
  return std::sqrt(1 + std::log(c.rope_factor) / std::log(c.rope_original_context));
}

}  // namespace

Rope make_rope(const ModelConfig& c, LayerRope kind, int32_t context) {
  Rope rope;
  const int dims = kind == LayerRope::kNone ? 0 : c.rotated();
  rope.still = (c.head_dim - dims) / 2;
  if (kind != LayerRope::kGlobal) {
    for (int i = 0; i < dims / 2; ++i)
      rope.frequencies.push_back(static_cast<float>(std::pow(c.rope_local_theta, -2.0 * i / dims)));
    return rope;
  }
  const bool longrope = c.rope_scaling == RopeScaling::kLongRope;
  const std::vector<float>& divisors = !longrope                           ? c.rope_divisors
                                       : context > c.rope_original_context ? c.rope_long
                                                                           : c.rope_short;
  for (int i = 0; i < dims / 2; ++i) {
    double f = std::pow(c.rope_theta, -2.0 * i / dims);
    if (c.rope_scaling == RopeScaling::kLinear) f /= c.rope_factor;
    if (c.rope_scaling == RopeScaling::kLlama3) f = llama3(f, c);
    if (c.rope_scaling == RopeScaling::kYarn) f = yarn(f, i, c);
    if (!divisors.empty()) f /= static_cast<double>(divisors[static_cast<size_t>(i)]);
    rope.frequencies.push_back(static_cast<float>(f));
  }
  rope.magnitude = static_cast<float>(magnitude(c));
  return rope;
}

void rope_row(const Rope& rope, int32_t position, float* cosine, float* sine) {
  const size_t turning = rope.frequencies.size();
  for (size_t i = 0; i < turning; ++i) {
    const float angle = static_cast<float>(position) * rope.frequencies[i];
    cosine[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * rope.magnitude;
    sine[i] = static_cast<float>(std::sin(static_cast<double>(angle))) * rope.magnitude;
  }
  std::fill_n(cosine + turning, rope.still, 1.f);
  std::fill_n(sine + turning, rope.still, 0.f);
}

}  // namespace baton::model
