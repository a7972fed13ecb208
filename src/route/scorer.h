#pragma once
// Scorers: rows of one table, named as in llm-d's EndpointPickerConfig. To add one: write its function in scorer.cc, add its row.
// A scorer writes a score in [0, 1] for every candidate; pick() clamps, multiplies by the weight and adds up.
// Stale numbers (Load.age_ms over the limit, or never scraped) score 0 in the scorers that use them: an endpoint that no longer
// answers /metrics is likelier stuck than idle. When all are stale all are equal, so the picker fails open and in-flight counts
// decide.
#include <cstdint>
#include <span>
#include <string_view>

#include "route/endpoint.h"
#include "route/prefix_index.h"

namespace baton::route {

struct ScoreInput {
  const Snapshot& snapshot;
  const PrefixMatch& match;
  size_t blocks_total = 0;  // in the request's chain
  int64_t prompt_tokens = 0;
  int64_t block_tokens = 1;  // tokens a hash block stands for
  int64_t stale_after_ms = 0;
  std::span<const uint16_t> candidates;  // indices into the snapshot
};

struct Scorer {
  std::string_view name;
  void (*score)(const ScoreInput& in, std::span<float> out);  // out[k] belongs to candidates[k]
};

std::span<const Scorer> scorers();
const Scorer* find_scorer(std::string_view name);  // nullptr if there is none

// Requests that wait there as far as anyone can know: what the endpoint reported, and what we sent since and it cannot have
// counted.
int32_t effective_waiting(const Load& load);

}  // namespace baton::route
