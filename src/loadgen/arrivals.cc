#include "loadgen/arrivals.h"

#include <cmath>
#include <numbers>

#include "base/prng.h"

namespace baton::loadgen {
namespace {

double positive_uniform(Prng& prng) { return 1.0 - prng.uniform(); }  // (0, 1]

double normal(Prng& prng) {  // Box and Muller
  return std::sqrt(-2.0 * std::log(positive_uniform(prng))) * std::cos(2.0 * std::numbers::pi * prng.uniform());
}

// Marsaglia and Tsang, "A simple method for generating gamma variables" (2000); shape below 1 through shape + 1.
double gamma(double shape, Prng& prng) {
  if (shape == 1.0) return -std::log(positive_uniform(prng));
  if (shape < 1.0) {
    const double boost = std::pow(positive_uniform(prng), 1.0 / shape);
    return gamma(shape + 1.0, prng) * boost;
  }
  const double d = shape - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = normal(prng);
    const double v = std::pow(1.0 + c * x, 3);
    if (v > 0 && std::log(positive_uniform(prng)) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

}  // namespace

std::vector<double> arrival_times(size_t n, double rate, double burstiness, uint64_t seed) {
  std::vector<double> times(n, 0.0);
  if (std::isinf(rate)) return times;
  Prng prng(Prng::at(seed, 0xa771'7a15));
  double at = 0;
  for (double& t : times) t = at += gamma(burstiness, prng);
  const double scale = at > 0 ? static_cast<double>(n) / rate / at : 0;
  for (double& t : times) t *= scale;
  return times;
}

}  // namespace baton::loadgen
