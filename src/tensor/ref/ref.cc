#include "tensor/ref/ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
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

double kv_element(KvFormat format, uint8_t byte) {
  if (format == KvFormat::kI8Scaled) return static_cast<int8_t>(byte);
  const double sign = byte & 0x80 ? -1 : 1;
  if (format == KvFormat::kE5m2) {
    const int exponent = byte >> 2 & 31, fraction = byte & 3;
    if (exponent == 31) return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
    return sign * (exponent == 0 ? std::ldexp(fraction, -16) : std::ldexp(4 + fraction, exponent - 17));
  }
  const int exponent = byte >> 3 & 15, fraction = byte & 7;
  if (exponent == 15 && fraction == 7) return std::nan("");
  return sign * (exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10));
}

uint8_t kv_nearest(KvFormat format, double x) {
  x = std::clamp(x, -65536.0, 65536.0);  // beyond every format: differences of huge numbers would all be equal
  int best = -1;
  double least = 0;
  for (int b = 0; b < 256; ++b) {
    const double value = kv_element(format, static_cast<uint8_t>(b)), off = std::abs(value - x);
    if (!std::isfinite(value) || std::signbit(value) != std::signbit(x)) continue;
    if (best < 0 || off < least || (off == least && b % 2 == 0)) best = b, least = off;
  }
  return static_cast<uint8_t>(best);
}

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
