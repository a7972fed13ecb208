#pragma once
// Every maximum of the sidecar that no flag sets, with what happens beyond it.
#include <chrono>
#include <cstddef>

namespace baton::sidecar {

inline constexpr size_t kRequestHeaderBytesMax = 1 << 20;      // 431; llm-d's sidecar takes as much
inline constexpr int kConnectionsMax = 32'768;                 // of clients, a rank: 503 and close
inline constexpr size_t kPrefillResponseBytesMax = 64u << 20;  // counts as a failed prefill: one token and block ids are small
inline constexpr size_t kRewriteBytesMax = 64u << 20;          // a longer JSON answer is passed on as it is
inline constexpr size_t kHeldLineBytesMax = 1 << 20;           // a longer SSE line is passed on as it is
inline constexpr size_t kJudgedBytesMax = 1 << 20;             // of an answer's beginning; what is undecided then is sent
inline constexpr size_t kLoggedIdBytesMax = 128;               // of a client's x-request-id in log lines
// A stream whose chunks keep coming faster than this is read once in it: a chunk alone costs a wake-up, a read and a write, and
// nobody reads a thousand tokens a second. Its first chunks pass at once.
inline constexpr std::chrono::milliseconds kStreamPace{1};
inline constexpr int kQuickReadsUnpaced = 8;
inline constexpr size_t kHostsMax = 16;                      // of one routing header: further ones are ignored
inline constexpr int kRanksMax = 256;                        // --data-parallel-size
inline constexpr size_t kEncoderItemsMax = 256;              // images and the like of one request: 400
inline constexpr size_t kEncoderAnswerBytesMax = 64u << 20;  // counts as a failed encoder
inline constexpr size_t kChunkAnswerBytesMax = 64u << 20;    // of one call of chunked decode: 502
inline constexpr int kChunkedCallsMax = 100'000;             // of one chunked decode: it ends there
inline constexpr size_t kMooncakePrefillersMax = 1024;       // whose engine ids are remembered; the oldest is asked again
inline constexpr size_t kPushTargetsMax = 4096;              // prefillers known to push; beyond it all are learnt anew
inline constexpr size_t kBootstrapBytesMax = 1 << 20;        // of a bootstrap server's answer: 502
inline constexpr std::chrono::milliseconds kBootstrapTimeout{5'000};  // llm-d's
// Engine ids change when a prefiller restarts; asking again is a round trip that one request in this long pays.
inline constexpr std::chrono::milliseconds kEngineIdsFresh{2'000};
inline constexpr std::chrono::milliseconds kPoolSyncWait{30'000};     // at start, for the API server; later is fine too
inline constexpr size_t kConfigurationBytesMax = 1 << 20;             // --configuration-file: refused
inline constexpr size_t kAddressesMax = 64;                           // kept of one resolved name
inline constexpr std::chrono::milliseconds kConnectTimeout{2'000};    // to a prefiller or the engine: 502 or 503
inline constexpr std::chrono::milliseconds kHealthTimeout{2'000};     // one look at the engine's /health
inline constexpr std::chrono::milliseconds kHealthPeriod{1'000};      // between looks while it is well
inline constexpr std::chrono::milliseconds kHealthPeriodUnwell{100};  // and while it is not: a started engine is seen soon

}  // namespace baton::sidecar
