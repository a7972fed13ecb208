#include "tensor/ref/ref.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace baton::tensor::ref {

std::vector<double> linear(std::span<const double> w, std::span<const double> x, int64_t rows, int64_t cols, int64_t m) {
  std::vector<double> out(static_cast<size_t>(m * rows));
  for (int64_t r = 0; r < m; ++r)
    for (int64_t n = 0; n < rows; ++n)
      for (int64_t k = 0; k < cols; ++k) out[r * rows + n] += w[n * cols + k] * x[r * cols + k];
  return out;
}

std::vector<double> rms_norm(std::span<const double> x, std::span<const double> weight, double eps) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  std::vector<double> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * weight[i];
  return out;
}

std::vector<double> gate_mul(GatedUnit unit, std::span<const double> gate, std::span<const double> up) {
  const auto one = [&](double g, double u) {
    switch (unit) {
      case GatedUnit::kSilu:
        return g / (1 + std::exp(-g)) * u;
      case GatedUnit::kGeluTanh:
        return 0.5 * g * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (g + 0.044715 * g * g * g))) * u;
      case GatedUnit::kSwigluClamped:
        g = std::min(g, 7.0);
        return g / (1 + std::exp(-1.702 * g)) * (std::clamp(u, -7.0, 7.0) + 1);
    }
    return 0.0;
  };
  std::vector<double> out(gate.size());
  for (size_t i = 0; i < gate.size(); ++i) out[i] = one(gate[i], up[i]);
  return out;
}

double soft_cap(double x, double cap) { return cap * std::tanh(x / cap); }

std::vector<double> attend(std::span<const double> q, std::span<const double> k, std::span<const double> v, int64_t tokens,
                           const AttendOptions& options) {
  const size_t dims = q.size();
  std::vector<double> weight(static_cast<size_t>(tokens));
  for (size_t t = 0; t < weight.size(); ++t) {
    for (size_t i = 0; i < dims; ++i) weight[t] += q[i] * k[t * dims + i] * options.scale;
    if (options.cap > 0) weight[t] = soft_cap(weight[t], options.cap);
  }
  double top = *std::max_element(weight.begin(), weight.end());
  if (options.sink) top = std::max(top, *options.sink);
  double total = options.sink ? std::exp(*options.sink - top) : 0;
  for (double& w : weight) total += w = std::exp(w - top);
  std::vector<double> out(dims);
  for (size_t t = 0; t < weight.size(); ++t)
    for (size_t i = 0; i < dims; ++i) out[i] += weight[t] / total * v[t * dims + i];
  return out;
}

}  // namespace baton::tensor::ref
