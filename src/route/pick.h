#pragma once
// pick(): the one decision of which worker decodes and whether, and where, another worker prefills. Pure: equal arguments and
// equal Prng state give the equal Decision, so gateway, ext_proc and simulator share it and a bad choice is a seed. Order: filter
// (health, model, subset, already failed, role) -> weighted sum of scorers -> picker; decode first, then the P/D decider, then
// prefill. When a role is missing the request is still served: see Why. Guarantees: no allocation; never an unhealthy or excluded
// endpoint; prefill != decode. Source: facts sheet "epp" sections 3.6, 4.2-4.6.
#include <array>
#include <bitset>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/prng.h"
#include "base/result.h"
#include "route/endpoint.h"
#include "route/prefix_index.h"
#include "route/scorer.h"
#include "route/verdict.h"

namespace baton::route {

struct WeightedScorer {
  const Scorer* scorer = nullptr;
  float weight = 1;
};
using Profile = std::vector<WeightedScorer>;

enum class PickerKind : uint8_t { kMaxScore, kRandom, kWeightedRandom };
enum class DeciderKind : uint8_t { kAlways, kNever, kPrefixBased };

struct RouteConfig {
  Profile decode, prefill;
  PickerKind picker = PickerKind::kMaxScore;
  DeciderKind decider = DeciderKind::kAlways;  // what `threshold: 0` of the charts in use means
  int64_t non_cached_tokens = 0;               // kPrefixBased: remote prefill from this many uncached prompt tokens on; 0 = never
  int64_t prompt_tokens_min = 0;               // kPrefixBased: and from this prompt length on
  int64_t stale_after_ms = 2'000;
  int block_tokens = 16;           // one hash block, = vLLM's usual KV block
  bool prefill_may_decode = true;  // no decode worker lives: let a prefill worker serve whole requests
  static RouteConfig defaults();   // llm-d's weights, and in-flight requests to break its ties
};

// "queue-scorer=2,kv-cache-utilization-scorer=2,prefix-cache-scorer=3"; the weight defaults to 1.
Result<Profile> parse_profile(std::string_view text);
std::string profile_text(const Profile& profile);

struct RouteRequest {
  std::string_view model;               // empty = any
  int64_t prompt_tokens = 0;            // estimate
  std::span<const uint64_t> chain;      // ChainHasher's
  bool subset_given = false;            // then only endpoints whose host is in `subset`; empty = none
  std::span<const std::string> subset;  // hosts, or host:port of which the port is ignored (as llm-d does)
  std::bitset<kEndpointsMax> excluded;  // by index: tried before and failed
};

struct Decision {
  int decode = -1;                       // index into the snapshot
  int prefill = -1;                      // -1 = decode does everything
  Ranked decode_ranked, prefill_ranked;  // best first, the chosen one included
  Why why = Why::kRemotePrefill;
  float decode_score = 0, prefill_score = 0;
  int64_t decode_cached_tokens = 0, prefill_cached_tokens = 0;  // by the prefix index
};

// Errors: kNotFound no endpoint serves the model; kUnavailable none of those that do is usable now.
Result<Decision> pick(const Snapshot& snapshot, const RouteRequest& request, const PrefixMatch& match, const RouteConfig& config,
                      Prng& prng);

}  // namespace baton::route
