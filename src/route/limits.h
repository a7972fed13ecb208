#pragma once
// Limits of the picker, and what happens at each.
#include <cstddef>

namespace baton::route {

// Endpoints in one pool. Decisions use stack arrays of this size, so no allocation grows with the pool. More: discovery keeps the
// first 256 and logs the rest as ignored. Derivation: llm-d's largest published pool is 100.
inline constexpr int kEndpointsMax = 256;
// Ranked alternatives in a decision. A gateway that tried this many has met a broken pool, and answers 503.
inline constexpr int kRankedMax = 8;
// Hashes per prompt, as llm-d's maxPrefixBlocksToMatch; what lies behind them does not affect the choice.
inline constexpr size_t kPrefixBlocksMax = 2048;
// Blocks remembered over all endpoints (least recently routed goes first): 512 Ki * 64 bytes = 32 MiB.
inline constexpr size_t kIndexBlocksMax = 512 * 1024;

}  // namespace baton::route
