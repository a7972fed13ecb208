#pragma once
// Repetition: whether a text goes round in circles, as vLLM's repetition_detection defines it: its last `length` tokens, of some
// length from min_pattern to max_pattern, stand there min_count times in a row. Pure.
// Source: vLLM 0.32, v1/core/sched/utils.py.
#include <cstdint>
#include <span>

namespace baton::engine {

struct RepetitionLimits {
  int32_t max_pattern = 0;  // tokens; 0 = off
  int32_t min_pattern = 1;
  int32_t min_count = 2;
};

bool ends_in_repetition(std::span<const int32_t> tokens, const RepetitionLimits& limits);

}  // namespace baton::engine
