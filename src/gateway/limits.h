#pragma once
// Limits of the gateway beside those of its configuration (config.h) and of the HTTP server, and the answer at each.
#include <cstddef>

namespace baton::gateway {

inline constexpr size_t kScrapeBytesMax = 8u << 20;   // one /metrics or /v1/models answer; over it the numbers count as stale
inline constexpr size_t kModelsPerEndpointMax = 256;  // further ones of that endpoint are not offered
inline constexpr size_t kModelNameBytesMax = 1024;    // 400
inline constexpr size_t kRequestIdBytesMax = 256;     // longer or unprintable: replaced by our own
inline constexpr size_t kFailureBodyBytesMax = 64u << 10;  // of a 502/503 kept in case no other worker answers; the rest is cut
inline constexpr size_t kResumeEventBytesMax = 1u << 20;   // one event of a stream we could resume; over it it is only passed on
inline constexpr size_t kResumeTextBytesMax = 1u << 20;    // text of an answer kept to continue it elsewhere; over it: not continued
inline constexpr int kResumeLegsMax = 8;                   // workers lost under one stream; then one clear error
inline constexpr int kProbeTimeoutMs = 2'000;  // one probe; a busy engine answers /health from its I/O thread in microseconds
inline constexpr int kProbeTimeoutsMax = 2;    // probes in a row without an answer until an endpoint counts as down
inline constexpr int kHealthEveryMs = 1'000;   // /health, while /metrics is asked more often
inline constexpr int kModelsEveryMs = 30'000;  // /v1/models of a healthy endpoint
inline constexpr int kProbeIdleMs = 1'000;     // between probes of an endpoint without requests of ours
inline constexpr int kProbeDownMs = 200;       // of an endpoint that is down: how soon it is used again

}  // namespace baton::gateway
