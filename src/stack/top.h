#pragma once
// `baton top`: a router's pools, roles, queues, caches, requests in flight, decisions and why, drawn anew every second.
// Keys: q, Esc or Ctrl-C ends. --once prints one picture and ends, for scripts. Blocking; command-line use only.
#include "base/config.h"
#include "base/result.h"

namespace baton::stack {

struct TopConfig {
  std::string url = "http://127.0.0.1:8000";
  std::string api_key;
  bool once = false;
  int64_t interval_ms = 1'000;
  std::string color = "auto";
};
Options top_options(TopConfig& config);
Result<> top(const TopConfig& config);

}  // namespace baton::stack
