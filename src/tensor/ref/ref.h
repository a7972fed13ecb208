#pragma once
// The readable reference: each operation as its definition says, in double, on plain row-major data. It judges the backends in
// tests.
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tensor/ops.h"

namespace baton::tensor::ref {

// out[m][n] = sum over k of w[n][k] * x[m][k]; all row-major.
std::vector<double> linear(std::span<const double> w, std::span<const double> x, int64_t rows, int64_t cols, int64_t m);
std::vector<double> rms_norm(std::span<const double> x, std::span<const double> weight, double eps);
std::vector<double> gate_mul(GatedUnit unit, std::span<const double> gate, std::span<const double> up);
double soft_cap(double x, double cap);
// The value of a byte of an 8-bit cache, its scale left out; and the byte whose value is the nearest finite one, ties to even.
double kv_element(KvFormat format, uint8_t byte);
uint8_t kv_nearest(KvFormat format, double x);
// One query over keys and values [tokens][head_dim]. cap 0: none. sink: a score that takes part in the softmax and adds no value.
struct AttendOptions {
  double scale = 1, cap = 0;
  std::optional<double> sink;
};
std::vector<double> attend(std::span<const double> q, std::span<const double> k, std::span<const double> v, int64_t tokens,
                           const AttendOptions& options);

}  // namespace baton::tensor::ref
