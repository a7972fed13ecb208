#pragma once
// `baton up` and `baton down`: start a plan's processes, show what they do, restart what dies, stop all in order.
// One thread, one poll loop. Blocking; command-line use only.
#include "stack/plan.h"

namespace baton::stack {

// Runs until Ctrl-C, SIGTERM, or a start that cannot succeed. With config.detach it returns once the stack is ready.
Result<> up(StackConfig config);

struct DownConfig {
  int port = 8000;
  std::string state_dir;
};
Options down_options(DownConfig& config);
Result<> down(const DownConfig& config);

std::string default_state_dir();

}  // namespace baton::stack
