#pragma once
// What a random life of a scheduler (test_world.h) is made of: how it is set up, its clients, and what is under way. For tests only.
#include <vector>

#include "sched/scheduler.h"

namespace baton::sched {

using kv::BlockId;

struct Setup {
  SchedulerConfig config;
  int32_t usable_blocks = 0;
  bool caching = true;
  size_t plans_ahead = 0;  // plans made that have not run yet
  double draft_rate = 0, draft_skill = 0;  // how often drafts are proposed, and how often one is right
  int32_t adapters = 0;  // different LoRA adapters that requests name
  double abort_rate = 0, remote_rate = 0, retain_rate = 0, fetch_failure_rate = 0, pin_rate = 0;
  int32_t prompt_max = 40, output_max = 12;
};

struct Client {  // what the engine knows of a request
  NewRequest request;
  uint64_t salt = 0;
  int64_t serial = 0;
  std::vector<int32_t> output;
  bool admitted = false, ended = false, exhausted = false;
  bool retained = false;
  bool wants_pin = false, pinned = false;  // a prefill leg that is read while it computes
};

struct Fetch {
  RemoteFetch plan;
  uint64_t step = 0;
  bool started = false;
};

struct Planned {
  StepPlan plan;
  std::vector<std::vector<BlockId>> blocks;  // the spans end with the next call, so a pipelined engine copies
  std::vector<std::vector<int32_t>> tokens;
};

}  // namespace baton::sched
