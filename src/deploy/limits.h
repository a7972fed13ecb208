#pragma once
// Bounds of `baton deploy`; beyond one, the command says so and ends, or the check that asked fails.
#include <cstddef>
#include <cstdint>

namespace baton::deploy {

inline constexpr size_t kModelConfigBytesMax = 4u << 20;  // config.json
inline constexpr int64_t kNumberMax = 1'000'000'000;      // any one size in it
inline constexpr int kDevicesMax = 100'000;               // of a plan
inline constexpr int64_t kTokensMax = 10'000'000;         // prompt, output, context
inline constexpr size_t kHelmBytesMax = 64u << 20;        // what helm writes
inline constexpr int kHelmMs = 120'000;                   // then it is killed
inline constexpr size_t kValuesBytesMax = 1u << 20;       // a values file of the guides
inline constexpr size_t kListBytesMax = 32u << 20;        // one list of the API server
inline constexpr size_t kMetricsBytesMax = 16u << 20;     // one pod's metrics
inline constexpr int kListObjectsMax = 500;               // asked for of each kind; a namespace of a stack has some dozen
inline constexpr int kAnswerMs = 15'000;                  // of the API server
inline constexpr int kScrapeConnectMs = 1'000;               // of a model server, by the ratio controller
inline constexpr int kScrapeAnswerMs = 5'000;
inline constexpr int kScrapeSilentMax = 3;                // of a role in one look; the others are not asked then
inline constexpr size_t kNamedMax = 3;                    // pods, routes, ... named in one line; the rest is counted

}  // namespace baton::deploy
