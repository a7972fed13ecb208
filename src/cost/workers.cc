#include "cost/workers.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace baton::cost {

double prefill_busy_max(double step_us, double spare_us) {
  if (spare_us < 0 || step_us <= 0) return 0;
  return std::min(kPrefillBusyMax, 2 * spare_us / (2 * spare_us + step_us));  // M/D/1: wait = T busy / (2 (1 - busy)) <= spare
}

int streams_max(const WorkerCost& cost, double context, double tpot_us_max, int most) {
  const auto fits = [&](int n) {
    return tpot_us(cost, {.queued_tokens = 0, .running = n, .mean_context = context}, 0) <= tpot_us_max;
  };
  int low = 0, high = std::max(0, most);  // a step only grows with its streams
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

double decode_workers(const WorkerCost& cost, double tokens_s, double context, int streams) {
  const int n = std::max(1, streams);
  return tokens_s * tpot_us(cost, {.queued_tokens = 0, .running = n, .mean_context = context}, 0) / 1e6 / n;
}

Wanted wanted_workers(const WorkerCost& prefill, const WorkerCost& decode, const PoolLoad& load, const LoadTargets& targets) {
  Wanted out;
  const double catch_up_s = std::max(1.0, targets.catch_up_s);
  int most = targets.streams_max;
  const double room = load.context + 0.5 * load.answer_tokens;  // what a stream takes when it ends
  if (targets.kv_tokens > 0 && room > 0)
    most = static_cast<int>(std::min<double>(most, static_cast<double>(targets.kv_tokens) / room));
  most = std::max(1, most);
  int streams = streams_max(decode, load.context, targets.tpot_us, most);
  if (streams == 0) streams = most;
  const double tokens_s = load.answer_tokens_s + load.streams_waiting * std::max(1.0, load.answer_tokens) / catch_up_s;
  out.decode = decode_workers(decode, tokens_s, load.context, streams);

  const auto prompt = static_cast<int64_t>(std::llround(std::max(1.0, load.prompt_tokens)));
  const double step_us = ttft_us(prefill, {}, prompt, 0);
  const double first_us = tpot_us(decode, {.queued_tokens = 0, .running = streams, .mean_context = load.context}, 0);
  const double spare_us = std::max(0.5 * step_us, targets.ttft_us - step_us - targets.hand_over_us - first_us);
  const double allowed = prefill_busy_max(step_us, spare_us);
  const double rate = load.prompts_s + load.prompts_waiting / catch_up_s;
  if (allowed > 0) out.prefill = rate * step_us / 1e6 / allowed;
  return out;
}

LinearCost calibrated(const LinearCost& prior, std::span<const Sample> samples) {
  constexpr size_t kFactorsMin = 8;
  constexpr double kFactorMax = 8;
  std::vector<double> factors;
  for (const Sample& s : samples) {
    const double expected = prior.step_us(s.new_tokens, s.mean_context);
    if (s.new_tokens > 0 && expected > 0 && s.us > 0 && std::isfinite(s.us / expected)) factors.push_back(s.us / expected);
  }
  if (factors.size() < kFactorsMin) return prior;
  const auto middle = factors.begin() + static_cast<std::ptrdiff_t>(factors.size() / 2);
  std::ranges::nth_element(factors, middle);
  const double f = std::clamp(*middle, 1 / kFactorMax, kFactorMax);
  return {prior.fixed_us * f, prior.per_token_us * f, prior.per_ctx_us * f};
}

}  // namespace baton::cost
