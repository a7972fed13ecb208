#pragma once
// TopView: what `baton top` shows, made of a router's /debug/plugins/state and /metrics. Pure: texts in, lines out, so that it
// can be tested without a terminal. Rates and percentiles are those between two looks; the first look has none. Lines are at most
// `width` cells wide; colours and cursor movement only with `color`. Source: facts sheet "epp" 7.
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace baton::stack {

struct TopEndpoint {
  std::string role, address, name;
  bool healthy = false;
  int64_t age_ms = -1, waiting = 0, running = 0, inflight_requests = 0, inflight_tokens = 0, sent = 0;
  double kv_usage = 0;
};

struct TopDecision {
  int64_t age_ms = 0, prompt_tokens = 0, cached_tokens = 0, prefill_cached_tokens = 0;
  std::string model, destination, prefill, why;
  double waited_ms = 0, decide_us = 0;
  bool again = false;
};

struct TopPool {
  std::string name;
  bool synced = true;
  int64_t prefix_blocks = 0, waiting = 0;
  double saturation = 0;
  std::vector<TopEndpoint> endpoints;
  std::vector<TopDecision> decisions;  // newest first
};

struct TopState {
  std::vector<TopPool> pools;
  int64_t requests = 0;  // in flight
  bool draining = false;
  double at_s = 0;
  double answered = 0, failed = 0, retries = 0, resumed = 0, rejected = 0;  // counters
  std::map<double, double> first_byte;                                      // histogram, cumulative, by upper bound in seconds
};

// state: one picker's object, or the gateway's with all of them. metrics may be "".
Result<TopState> read_top(std::string_view state, std::string_view metrics, double at_s);

struct TopLook {
  size_t width = 100, height = 0;  // height 0 = no limit
  bool color = false, ascii = false;
};
std::vector<std::string> draw_top(const TopState& now, const TopState* before, std::string_view title, const TopLook& look);

}  // namespace baton::stack
