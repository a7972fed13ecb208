#pragma once
// DecisionLog: the last kDecisionsKept decisions and why, for /debug and `baton top`. Any thread; one short lock.
#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "picker/limits.h"
#include "route/limits.h"

namespace baton::picker {

struct DecisionRecord {
  int64_t at_ms = 0;  // Clock's
  std::string request_id, model, target, primary, prefill;
  std::string_view why;  // a literal
  std::string profile;
  int64_t priority = 0, prompt_tokens = 0, cached_tokens = 0, prefill_cached_tokens = 0;
  double waited_ms = 0, decide_us = 0, estimated_ttft_ms = -1;
  bool again = false;                                                   // a repick
  bool precise = false;                                                 // cached tokens are what the engines said
  std::array<std::pair<std::string, float>, route::kRankedMax> best{};  // with their scores, best first
  int best_count = 0;
};

class DecisionLog {
 public:
  // fill: writes a record in place, so that strings keep their memory.
  template <class Fill>
  void add(Fill fill) {
    std::lock_guard lock(mutex_);
    fill(ring_[next_++ % kDecisionsKept]);
  }
  void write(JsonWriter& w, int64_t now_ms) const;  // newest first

 private:
  mutable std::mutex mutex_;
  std::array<DecisionRecord, kDecisionsKept> ring_;
  uint64_t next_ = 0;
};

}  // namespace baton::picker
