#pragma once
// Every maximum of epp/ that is no flag, with what happens beyond it.
#include <chrono>
#include <cstddef>

namespace baton::epp {

inline constexpr size_t kPieceBytes = 62'000;         // of a body in one message, as llm-d's: proxies take 64 KiB
inline constexpr size_t kBodyAheadBytes = 256 << 10;  // of a body queued to a proxy, four of Envoy's windows; the rest waits
inline constexpr size_t kStreamedBytes = 16 << 10;    // of a body looked at where its head waits for us: half of Envoy's buffer
inline constexpr int kHeadersMax = 1'000;             // of a request or answer: the call ends with INVALID_ARGUMENT
inline constexpr size_t kSubsetMax = 10'000;          // endpoints of a hint; the rest is not looked at
inline constexpr std::chrono::milliseconds kSweep{250};  // how often stalled bodies are looked for
inline constexpr std::chrono::milliseconds kStopGrace{
    10'000};  // streams still open when we end are cut after it; the proxy retries
inline constexpr std::chrono::milliseconds kConfigPoll{1'000};  // how often the configuration file is looked at
inline constexpr size_t kConfigBytesMax = 1 << 20;              // of the configuration file: refused
inline constexpr size_t kUnsentBytesMax = 512u << 20;           // of one proxy connection that does not read: closed

}  // namespace baton::epp
