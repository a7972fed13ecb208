#include "cost/cost.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace baton::cost {
namespace {

constexpr size_t kTerms = 3, kSamplesMin = 8;
using Row = std::array<double, kTerms>;

// Gauss with pivoting on the normal equations of the terms in `use`; false if they do not determine the coefficients.
bool solve(std::array<Row, kTerms> a, Row b, const std::array<bool, kTerms>& use, Row& out) {
  std::vector<size_t> terms;
  for (size_t i = 0; i < kTerms; ++i) {
    if (use[i]) terms.push_back(i);
  }
  out = {};
  for (size_t c = 0; c < terms.size(); ++c) {
    size_t pivot = c;
    for (size_t r = c + 1; r < terms.size(); ++r) {
      if (std::abs(a[terms[r]][terms[c]]) > std::abs(a[terms[pivot]][terms[c]])) pivot = r;
    }
    // Columns are scaled to length 1, so what is left of a term that others explain is near 0.
    if (std::abs(a[terms[pivot]][terms[c]]) < 1e-9) return false;
    if (pivot != c) {
      for (size_t k : terms) std::swap(a[terms[pivot]][k], a[terms[c]][k]);
      std::swap(b[terms[pivot]], b[terms[c]]);
    }
    for (size_t r = c + 1; r < terms.size(); ++r) {
      const double f = a[terms[r]][terms[c]] / a[terms[c]][terms[c]];
      for (size_t k = c; k < terms.size(); ++k) a[terms[r]][terms[k]] -= f * a[terms[c]][terms[k]];
      b[terms[r]] -= f * b[terms[c]];
    }
  }
  for (size_t c = terms.size(); c-- > 0;) {
    double x = b[terms[c]];
    for (size_t k = c + 1; k < terms.size(); ++k) x -= a[terms[c]][terms[k]] * out[terms[k]];
    out[terms[c]] = x / a[terms[c]][terms[c]];
  }
  return true;
}

}  // namespace

double ttft_us(const WorkerCost& cost, const WorkerLoad& load, int64_t prompt_tokens, int64_t cached_tokens) {
  const int64_t own = prompt_tokens > cached_tokens ? prompt_tokens - cached_tokens : 1;  // the last token is always computed
  const double context = static_cast<double>(cached_tokens) + static_cast<double>(own) / 2;
  const double queued = load.queued_tokens > 0 ? cost.prefill.step_us(load.queued_tokens, load.mean_context) : 0;
  return queued + cost.prefill.step_us(own, context);
}

double tpot_us(const WorkerCost& cost, const WorkerLoad& load, int extra) {
  return cost.decode.step_us(load.running + extra, load.mean_context);
}

LinearCost fit(std::span<const Sample> samples, const LinearCost& prior) {
  // Relative errors count: a sample is divided by its own time, so that long steps do not drown short ones.
  std::array<Row, kTerms> a{};
  Row b{}, scale{};
  size_t n = 0;
  auto usable = [](const Sample& s) {
    return s.new_tokens > 0 && s.mean_context >= 0 && std::isfinite(s.mean_context) && s.us > 0 && std::isfinite(s.us);
  };
  auto terms = [](const Sample& s) {
    const auto tokens = static_cast<double>(s.new_tokens);
    return Row{1 / s.us, tokens / s.us, tokens * s.mean_context / 1024 / s.us};
  };
  for (const Sample& s : samples) {
    if (!usable(s)) continue;
    ++n;
    const Row x = terms(s);
    for (size_t i = 0; i < kTerms; ++i) {
      scale[i] += x[i] * x[i];
      b[i] += x[i];
      for (size_t j = 0; j < kTerms; ++j) a[i][j] += x[i] * x[j];
    }
  }
  if (n < kSamplesMin) return prior;
  for (double& s : scale) s = s > 0 ? std::sqrt(s) : 1;
  for (size_t i = 0; i < kTerms; ++i) {
    b[i] /= scale[i];
    for (size_t j = 0; j < kTerms; ++j) a[i][j] /= scale[i] * scale[j];
  }
  // Non-negative least squares over three terms: the best of the seven sets of terms whose solution is not negative. Of two that
  // explain the same (a constant context, a constant batch) the smaller set comes first and stays.
  double best = 0;
  Row chosen{};
  bool found = false;
  for (unsigned set : {0b010u, 0b001u, 0b100u, 0b011u, 0b110u, 0b101u, 0b111u}) {
    const std::array<bool, kTerms> use = {(set & 1) != 0, (set & 2) != 0, (set & 4) != 0};
    Row x;
    if (!solve(a, b, use, x) || std::ranges::any_of(x, [](double c) { return !(c >= 0); })) continue;
    double gain = 0;  // fall of the squared error against predicting 0: 2 b x - x A x
    for (size_t i = 0; i < kTerms; ++i) {
      gain += 2 * b[i] * x[i];
      for (size_t j = 0; j < kTerms; ++j) gain -= x[i] * a[i][j] * x[j];
    }
    if (!found || gain > best + 1e-9 * static_cast<double>(n)) best = gain, chosen = x, found = true;
  }
  if (!found) return prior;
  return {chosen[0] / scale[0], chosen[1] / scale[1], chosen[2] / scale[2]};
}

}  // namespace baton::cost
