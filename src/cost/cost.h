#pragma once
// The one latency model, shared by picker, simulator and planner. Per worker and phase: a step takes
//   fixed_us + per_token_us * new tokens + per_ctx_us * new tokens * mean context / 1024
// which is what prefill (arithmetic, attention over the context) and decode (weights read once, KV read per stream) cost to first
// order. Pure; standard library alone. Source: docs/adr/0008; facts sheets "performance" 5, "engine" 5.
#include <cstdint>
#include <span>

namespace baton::cost {

struct LinearCost {
  double fixed_us = 0, per_token_us = 0, per_ctx_us = 0;
  bool operator==(const LinearCost&) const = default;
  double step_us(int64_t new_tokens, double mean_context) const {
    return fixed_us + static_cast<double>(new_tokens) * (per_token_us + per_ctx_us * mean_context / 1024.0);
  }
};

struct LinkCost {  // KV hand-over between two workers
  double latency_us = 0, bytes_per_us = 1e4;
  bool operator==(const LinkCost&) const = default;
  double transfer_us(int64_t bytes) const { return latency_us + static_cast<double>(bytes) / bytes_per_us; }
};

struct WorkerCost {
  LinearCost prefill, decode;
  int64_t kv_bytes_per_token = 0;
  bool operator==(const WorkerCost&) const = default;
};

struct WorkerLoad {
  int64_t queued_tokens = 0;  // prompt tokens it has still to compute before ours
  int32_t running = 0;        // streams being decoded
  double mean_context = 0;    // of those
};

// Time until a prompt of which `cached` tokens are held has its first token, on a worker under this load.
double ttft_us(const WorkerCost& cost, const WorkerLoad& load, int64_t prompt_tokens, int64_t cached_tokens);
// Time per output token with `extra` more streams.
double tpot_us(const WorkerCost& cost, const WorkerLoad& load, int extra);

struct Sample {
  int64_t new_tokens = 0;
  double mean_context = 0, us = 0;
};
// Least squares of the relative error with non-negative coefficients. Fewer than 8 usable samples keep `prior`; a term that the
// samples cannot tell from another (all of one size, all of one context) is 0 and the other has its share.
LinearCost fit(std::span<const Sample> samples, const LinearCost& prior);

}  // namespace baton::cost
