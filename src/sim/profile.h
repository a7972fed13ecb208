#pragma once
// Profiles: what a simulated worker costs, each fitted to published or measured figures that its row names. To add one: a row.
// Units: us, bytes. Source of the H100 row: facts sheet "performance" 4.2 (decode 5.55 + 0.100 b ms at a context of 1,500;
// prefill of 1,000 tokens 28.8 ms). Of the CPU row: bench/README.md, model_bench.
#include <span>
#include <string_view>

#include "cost/cost.h"

namespace baton::sim {

struct Profile {
  std::string_view name, what;
  cost::WorkerCost worker;
  cost::LinkCost link;
  int32_t kv_blocks = 0;  // of 16 tokens
};

std::span<const Profile> profiles();
const Profile* find_profile(std::string_view name);  // nullptr if there is none

}  // namespace baton::sim
