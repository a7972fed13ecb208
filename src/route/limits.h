#pragma once
// Limits of the picker, and what happens at each.
#include <cstddef>

namespace baton::route {

// Endpoints in one pool. Decisions use stack arrays of this size, so no allocation grows with the pool. More: discovery keeps the
// first of them and logs the rest as ignored. Derivation: ten times llm-d's largest published pool (100 pods).
inline constexpr int kEndpointsMax = 1024;
// Ranked alternatives in a decision. A gateway that tried this many has met a broken pool, and answers 503.
inline constexpr int kRankedMax = 8;
// Hashes per prompt, as llm-d's maxPrefixBlocksToMatch; what lies behind them does not affect the choice.
inline constexpr size_t kPrefixBlocksMax = 2048;
// Distinct blocks remembered over all endpoints, where nobody says; then an arbitrary one goes. 24 to 48 bytes each, taken as used.
inline constexpr size_t kIndexBlocksMax = 4u << 20;
// Blocks remembered per endpoint: llm-d's lruCapacityPerServer; and the most that may be asked for.
inline constexpr size_t kEndpointBlocks = 31'250, kEndpointBlocksMax = 1u << 20;

// An EndpointPickerConfig: text, values in it (aliases count each time they are used), plugins, profiles, plugins of a profile.
// Beyond: refused with one error. A chart's file has under 4 KiB and 10 plugins.
inline constexpr size_t kConfigBytesMax = 1 << 20;
inline constexpr size_t kConfigNodesMax = 20'000;
inline constexpr int kConfigDepthMax = 32;
inline constexpr size_t kConfigPluginsMax = 256, kConfigProfilesMax = 32, kConfigProfilePluginsMax = 64;
// Errors and warnings of one load; the rest is counted, not told.
inline constexpr size_t kConfigMessagesMax = 100;
// Flows (tenants) with state in one priority band of the flow queue; a new one beyond is answered 429.
inline constexpr size_t kFlowsMax = 16'384;

}  // namespace baton::route
