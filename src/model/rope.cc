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
  const auto dim_of = [&](double turns) {
    return c.head_dim * std::log(c.rope_original_context / (turns * kTurn)) / (2 * std::log(c.rope_theta));
  };
  const double low = std::max(0.0, std::floor(dim_of(c.yarn_beta_fast)));
  double high = std::min(c.head_dim - 1.0, std::ceil(dim_of(c.yarn_beta_slow)));
  if (high == low) high += 0.001;
  const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
  return f / c.rope_factor * ramp + f * (1 - ramp);
}

}  // namespace

Rope make_rope(const ModelConfig& c) {
  Rope rope;
  for (int i = 0; i < c.head_dim / 2; ++i) {
    double f = std::pow(c.rope_theta, -2.0 * i / c.head_dim);
    if (c.rope_scaling == RopeScaling::kLinear) f /= c.rope_factor;
    if (c.rope_scaling == RopeScaling::kLlama3) f = llama3(f, c);
    if (c.rope_scaling == RopeScaling::kYarn) f = yarn(f, i, c);
    if (!c.rope_divisors.empty()) f /= static_cast<double>(c.rope_divisors[static_cast<size_t>(i)]);
    rope.frequencies.push_back(static_cast<float>(f));
  }
  if (c.rope_scaling == RopeScaling::kYarn)
    rope.magnitude = static_cast<float>(c.rope_attention_factor > 0 ? c.rope_attention_factor
                                        : c.rope_factor > 1         ? 0.1 * std::log(c.rope_factor) + 1
                                                                    : 1.0);
  return rope;
}

void rope_row(const Rope& rope, int32_t position, float* cosine, float* sine) {
  for (size_t i = 0; i < rope.frequencies.size(); ++i) {
    const float angle = static_cast<float>(position) * rope.frequencies[i];
    cosine[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * rope.magnitude;
    sine[i] = static_cast<float>(std::sin(static_cast<double>(angle))) * rope.magnitude;
  }
}

}  // namespace baton::model
