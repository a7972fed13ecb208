#pragma once
// Limits of the exporter of spans (otlp.h). A batch is tried so often, a little later each time, then dropped; stop() waits so
// long for the last ones.
#include <chrono>
#include <cstddef>

namespace baton::net {

inline constexpr int kOtlpAttempts = 3;
inline constexpr std::chrono::milliseconds kOtlpRetryAfter{500}, kOtlpFlush{2'000};
inline constexpr size_t kOtlpAnswerBytesMax = 64 << 10;  // of a collector: the export counts as failed
inline constexpr size_t kOtelPairsMax = 64;              // headers, resource attributes: refused at start

}  // namespace baton::net
