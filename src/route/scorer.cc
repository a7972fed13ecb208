#include "route/scorer.h"

#include <algorithm>
#include <array>

namespace baton::route {
namespace {

const Load& load_of(const ScoreInput& in, size_t k) { return in.snapshot.loads[in.candidates[k]]; }

bool fresh(const ScoreInput& in, const Load& load) { return load.age_ms >= 0 && load.age_ms <= in.stale_after_ms; }

// (max - v) / (max - min) over the fresh candidates; all equal = 1; stale = 0.
template <class ValueOf>
void least_is_best(const ScoreInput& in, std::span<float> out, ValueOf value_of) {
  double lo = 0, hi = 0;
  bool any = false;
  for (size_t k = 0; k < out.size(); ++k) {
    const Load& load = load_of(in, k);
    if (!fresh(in, load)) continue;
    const double v = value_of(load);
    lo = any ? std::min(lo, v) : v;
    hi = any ? std::max(hi, v) : v;
    any = true;
  }
  for (size_t k = 0; k < out.size(); ++k) {
    const Load& load = load_of(in, k);
    out[k] = !fresh(in, load) ? 0.0f : hi == lo ? 1.0f : static_cast<float>((hi - value_of(load)) / (hi - lo));
  }
}

void queue(const ScoreInput& in, std::span<float> out) { least_is_best(in, out, effective_waiting); }

void running(const ScoreInput& in, std::span<float> out) {
  least_is_best(in, out, [](const Load& load) { return load.running; });
}

void kv_utilization(const ScoreInput& in, std::span<float> out) {
  for (size_t k = 0; k < out.size(); ++k) out[k] = fresh(in, load_of(in, k)) ? 1.0f - load_of(in, k).kv_usage : 0.0f;
}

void load_aware(const ScoreInput& in, std::span<float> out) {
  constexpr float kThreshold = 128;  // llm-d's default
  for (size_t k = 0; k < out.size(); ++k) {
    const auto waiting = static_cast<float>(effective_waiting(load_of(in, k)));
    out[k] = fresh(in, load_of(in, k)) ? 0.5f * (1.0f - std::min(waiting, kThreshold) / kThreshold) : 0.0f;
  }
}

void prefix(const ScoreInput& in, std::span<float> out) {
  for (size_t k = 0; k < out.size(); ++k) {
    const int slot = in.snapshot.endpoints[in.candidates[k]].slot;
    out[k] = in.blocks_total == 0 ? 0.0f : static_cast<float>(in.match[slot]) / static_cast<float>(in.blocks_total);
  }
}

// Our own counts, never stale: what spreads a burst that arrives between two scrapes.
void active_request(const ScoreInput& in, std::span<float> out) {
  int32_t most = 0;
  for (size_t k = 0; k < out.size(); ++k) most = std::max(most, load_of(in, k).inflight_requests);
  for (size_t k = 0; k < out.size(); ++k) {
    const int32_t n = load_of(in, k).inflight_requests;
    out[k] = n <= 0 ? 1.0f : static_cast<float>(most - n) / static_cast<float>(most);
  }
}

void token_load(const ScoreInput& in, std::span<float> out) {
  constexpr double kThreshold = 4'194'304;  // llm-d's queueThresholdTokens
  for (size_t k = 0; k < out.size(); ++k) {
    const int64_t hit = in.match[in.snapshot.endpoints[in.candidates[k]].slot] * in.block_tokens;
    const auto tokens = static_cast<double>(load_of(in, k).inflight_tokens + std::max<int64_t>(0, in.prompt_tokens - hit));
    out[k] = static_cast<float>(1.0 - std::min(tokens / kThreshold, 1.0));
  }
}

constexpr std::array<Scorer, 7> kScorers = {{
    {"queue-scorer", queue},
    {"kv-cache-utilization-scorer", kv_utilization},
    {"prefix-cache-scorer", prefix},
    {"active-request-scorer", active_request},
    {"running-requests-size-scorer", running},
    {"load-aware-scorer", load_aware},
    {"token-load-scorer", token_load},
}};

}  // namespace

int32_t effective_waiting(const Load& load) {
  return load.waiting + std::max(0, load.inflight_requests - load.running - load.waiting);
}

std::span<const Scorer> scorers() { return kScorers; }

const Scorer* find_scorer(std::string_view name) {
  for (const Scorer& row : kScorers) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

}  // namespace baton::route
