#pragma once
// What a decision says besides the choice: which alternatives, and why there is, or is no, remote prefill.
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "route/limits.h"

namespace baton::route {

// Why there is, or is no, remote prefill.
enum class Why : uint8_t {
  kRemotePrefill,  // the decider wants it and a worker is there
  kDeciderNever,
  kCachedOrShort,      // too few uncached tokens to pay for a hand-over
  kNoPrefillEndpoint,  // decode prefills by itself
  kDecodeServesBoth,   // no dedicated prefill worker, and the decode worker is an aggregated one
  kPrefillServesAll,   // no decode worker lives: a prefill worker answers whole requests
  kSingle,             // the plan knows no stages
  kNotAllowed,         // the client or the door forbade remote prefill
  kCheaperLocal,       // by the cost model
  kSplit,              // remote, but decode computes the prompt's tail itself
};
std::string_view why_name(Why why);

struct Ranked {
  std::array<uint16_t, kRankedMax> index{};
  int count = 0;
  std::span<const uint16_t> all() const { return {index.data(), static_cast<size_t>(count)}; }
};

}  // namespace baton::route
