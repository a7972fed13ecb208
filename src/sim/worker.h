#pragma once
// SimWorker: one model server on virtual time: production's own scheduler and block pool, and the cost model where the arithmetic
// would be. Pure: the caller owns time and calls back. A step of prefill chunks and decoding streams together costs the prefill
// tokens plus each stream's own part; the weights are read once.
//   add() -> start() says how long the step takes -> (that time passes) -> finish_step() -> start() ...
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "cost/cost.h"
#include "sched/scheduler.h"

namespace baton::sim {

class SimWorker {
 public:
  using TokenOf = std::function<int32_t(sched::RequestId, int position)>;  // position in prompt + output
  struct Callbacks {
    TokenOf token_of;
    std::function<void(sched::RequestId, int output)> on_token;       // the output-th (1..) token of a request exists
    std::function<void(const sched::RemoteFetch&)> on_fetch;          // begin this transfer; answer with fetched()
    std::function<void(sched::RequestId)> on_done;                    // the last token was sampled
  };
  SimWorker(const cost::WorkerCost& cost, int32_t blocks, const sched::SchedulerConfig& config, Callbacks callbacks);

  Result<> add(sched::NewRequest request);
  void fetched(sched::RequestId id, int32_t tokens, int32_t first_token);
  void release(sched::RequestId id) { scheduler_.release_retained(id); }
  // Plans the next step if none runs and there is work; its duration, or nullopt if there is nothing to compute now.
  std::optional<double> start_us();
  void finish_step();

  int waiting() const { return scheduler_.num_waiting(); }
  int running() const { return scheduler_.num_running(); }
  double kv_usage() const { return scheduler_.pool().usage(); }
  double busy_us() const { return busy_us_; }
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t cached_tokens() const { return cached_tokens_; }    // of those, found in this worker's prefix cache
  int64_t computed_tokens() const { return computed_tokens_; }  // prompt tokens computed here

 private:
  double step_us(const sched::StepPlan& plan);
  void end(sched::RequestId id);

  struct Live {
    int prompt = 0, output = 0, output_max = 0;
    bool counted = false;
  };
  cost::WorkerCost cost_;
  Callbacks callbacks_;
  sched::Scheduler scheduler_;
  std::unordered_map<sched::RequestId, Live> live_;
  std::optional<sched::StepPlan> step_;
  double busy_us_ = 0;
  int64_t prompt_tokens_ = 0, cached_tokens_ = 0, computed_tokens_ = 0;
};

}  // namespace baton::sim
