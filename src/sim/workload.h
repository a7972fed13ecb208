#pragma once
// Workloads of the simulator: seeded, so a run is its parameters. A Turn is one request; the next turn of a session extends the
// prompt by the previous answer and new user text, and comes `think_us` after that answer ended. Open loop: first turns arrive as
// a Poisson process. Pure.
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace baton::sim {

enum class Shape : uint8_t {
  kRandom,        // nothing shared
  kSharedPrefix,  // `groups` system prompts of `shared_tokens`, each request one of them and its own question
  kMultiTurn      // sessions of `turns` turns, each with its own growing history
};
Result<Shape> shape_from(std::string_view name);  // "random", "shared-prefix", "multi-turn"

struct WorkloadParams {
  Shape shape = Shape::kSharedPrefix;
  double rate = 10;  // requests a second, all turns counted
  int requests = 1'000;
  int groups = 150, turns = 5;
  int shared_tokens = 6'000, question_tokens = 1'200, output_tokens = 1'000;
  double spread = 0.3;  // lengths of question and answer are uniform within +-spread
  double think_s = 10;
  uint64_t seed = 1;
};

struct Turn {
  std::vector<int32_t> fresh;  // prompt tokens beyond the session's history
  int output_tokens = 1;
};
struct Session {
  double arrival_us = 0;
  double think_us = 0;
  std::vector<Turn> turns;
};

std::vector<Session> make_workload(const WorkloadParams& params);
// `next` begins when the last session of `first` has arrived.
std::vector<Session> one_after_the_other(std::vector<Session> first, std::vector<Session> next);

// The token a simulated model answers at a position of a session; any worker gives the same.
int32_t answer_token(uint64_t session, int position);

}  // namespace baton::sim
