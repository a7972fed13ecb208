#pragma once
// simulate(): a pool of SimWorkers behind the picker's own decide(), prefix index and in-flight accounts, on virtual time. What the
// picker sees is what it would see: numbers scraped every `scrape_ms`, its own counts at once. Prefill elsewhere: the prompt is
// computed there, its KV moves over the link, the first token travels with it. With `ratio` workers change roles. Deterministic: equal arguments, equal Report.
// Not modelled: failures, HTTP, tokenisation beyond `dispatch_us`. Source: docs/adr/0008; facts sheet "performance" 5.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cost/cost.h"
#include "route/decide.h"
#include "sched/scheduler.h"
#include "sim/ratio.h"
#include "sim/workload.h"

namespace baton::sim {

struct WorkerSpec {
  route::Role role = route::Role::kBoth;
  cost::WorkerCost cost;
  int32_t kv_blocks = 4'096;
};

struct SimConfig {
  std::vector<WorkerSpec> workers;
  cost::LinkCost link;
  sched::SchedulerConfig scheduler{.max_num_batched_tokens = 8'192, .max_num_seqs = 256, .max_model_len = 131'072};
  std::shared_ptr<const route::Plan> plan;
  std::optional<RatioConfig> ratio;  // workers change their role; none of them may do both
  double scrape_ms = 50, dispatch_us = 1'000;
  double horizon_s = 100'000;  // virtual; what is not done by then counts as unfinished
  uint64_t seed = 1;
};

struct Percentiles {
  double p50 = 0, p95 = 0, p99 = 0, mean = 0;
};
Percentiles percentiles(std::vector<double> values);

struct SimReport {
  int requests = 0, refused = 0, unfinished = 0, remote = 0;
  double duration_s = 0;
  double output_tokens_per_s = 0, requests_per_s = 0;
  Percentiles ttft_ms, tpot_ms, e2e_ms;
  double hit_rate = 0;      // prompt tokens found in the prefix cache of the worker that prefilled them, of all
  int64_t computed_tokens = 0;  // prompt tokens computed, again after a preemption included
  double imbalance = 0;     // busiest worker's busy time over the mean of those with its role
  int max_streams = 0;
  int role_changes = 0;
};

SimReport simulate(const SimConfig& config, const std::vector<Session>& workload);

}  // namespace baton::sim
