#include "cost/cost.h"

namespace baton::cost {

double ttft_us(const WorkerCost& cost, const WorkerLoad& load, int64_t prompt_tokens, int64_t cached_tokens) {
  const int64_t own = prompt_tokens > cached_tokens ? prompt_tokens - cached_tokens : 1;  // the last token is always computed
  const double context = static_cast<double>(cached_tokens) + static_cast<double>(own) / 2;
  const double queued = load.queued_tokens > 0 ? cost.prefill.step_us(load.queued_tokens, load.mean_context) : 0;
  return queued + cost.prefill.step_us(own, context);
}

double tpot_us(const WorkerCost& cost, const WorkerLoad& load, int extra) {
  return cost.decode.step_us(load.running + extra, load.mean_context);
}

}  // namespace baton::cost
