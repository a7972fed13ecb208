#pragma once
// Every maximum of the sidecar that no flag sets, with what happens beyond it.
#include <chrono>
#include <cstddef>

namespace baton::sidecar {

inline constexpr size_t kRequestHeaderBytesMax = 1 << 20;      // 431; llm-d's sidecar takes as much
inline constexpr size_t kPrefillResponseBytesMax = 64u << 20;  // counts as a failed prefill: one token and block ids are small
inline constexpr size_t kRewriteBytesMax = 64u << 20;          // a longer JSON answer is passed on as it is
inline constexpr size_t kHeldLineBytesMax = 1 << 20;           // a longer SSE line is passed on as it is
inline constexpr size_t kJudgedBytesMax = 1 << 20;             // of an answer's beginning; what is undecided then is sent
inline constexpr size_t kLoggedIdBytesMax = 128;               // of a client's x-request-id in log lines
inline constexpr size_t kPrefillHostsMax = 16;                 // further hosts of x-prefiller-host-port are ignored
inline constexpr std::chrono::milliseconds kConnectTimeout{2'000};    // to a prefiller or the engine: 502 or 503
inline constexpr std::chrono::milliseconds kHealthTimeout{2'000};     // one look at the engine's /health
inline constexpr std::chrono::milliseconds kHealthPeriod{1'000};      // between looks while it is well
inline constexpr std::chrono::milliseconds kHealthPeriodUnwell{100};  // and while it is not: a started engine is seen soon

}  // namespace baton::sidecar
