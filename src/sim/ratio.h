#pragma once
// The ratio controller's decision on virtual time: a fixed number of workers, each of one device, that change their role as
// cost::ratio_step() says by what the simulated workers did in the last window. A worker that changes is picked no more, ends
// what it has, is away for start_s, and comes back with nothing cached. Pure.
#include <deque>

#include "cost/ratio.h"
#include "cost/workers.h"

namespace baton::sim {

struct RatioConfig {
  cost::RatioPolicy policy;  // devices: all workers
  cost::LoadTargets targets;
  cost::WorkerCost worker;
  double interval_s = 15, window_s = 60, start_s = 60;
};

// Since the beginning, and now.
struct RatioCounts {
  double at_s = 0, prompts = 0, computed_tokens = 0, answers = 0, answer_tokens = 0;
  double prompts_waiting = 0, streams_waiting = 0, context = 0;
};

class RatioSim {
 public:
  explicit RatioSim(const RatioConfig& config) : config_(config) {}
  // Workers that are to do each from now on. prefill, decode: those that do, or are on their way to.
  cost::RatioStep look(const RatioCounts& now, cost::RoleNow prefill, cost::RoleNow decode);

 private:
  const RatioConfig& config_;
  std::deque<RatioCounts> window_;
  cost::RatioMemory memory_;
};

}  // namespace baton::sim
