#pragma once
// Limits of the picker beside those of its options and of route/limits.h, and what happens at each.
#include <cstddef>
#include <cstdint>

namespace baton::picker {

// Probes.
inline constexpr size_t kScrapeBytesMax = 8u << 20;    // one /metrics or /v1/models answer; over it the numbers count as stale
inline constexpr size_t kModelsPerEndpointMax = 256;   // further ones of that endpoint are not offered
inline constexpr size_t kLorasPerEndpointMax = 1'024;  // further adapters are not seen
inline constexpr int kProbeTimeoutMs = 2'000;   // one probe; a busy engine answers /health from its I/O thread in microseconds
inline constexpr int kScrapeTimeoutMs = 1'000;  // as llm-d's poller
inline constexpr int kProbeTimeoutsMax = 2;     // probes in a row without an answer until an endpoint counts as down
inline constexpr int kHealthEveryMs = 1'000;    // /health, while /metrics is asked more often
inline constexpr int kModelsEveryMs = 30'000;   // /v1/models of a healthy endpoint
inline constexpr int kProbeIdleMs = 1'000;      // between probes of an endpoint without requests
inline constexpr int kProbeDownMs = 200;        // of an endpoint that is down: how soon it is used again
inline constexpr int kIdleLookMs = 200;         // how soon an idle endpoint that got work is scraped
inline constexpr int kGatherMs = 3;             // answers of a group are handled together, so much after the first
inline constexpr int kBeatMs = 10;              // endpoints are probed in groups so far apart

// Requests.
inline constexpr size_t kHeaderValueBytesMax = 4'096;  // objective, fairness id, session id: longer is taken as absent
inline constexpr size_t kLabelValuesMax = 1'000;       // distinct values of a label a client controls; then "other", as llm-d
inline constexpr size_t kLabelBytesMax = 256;          // longer: "other"
inline constexpr size_t kSeriesMax = 2'000;            // combinations of the default labels (30 KiB each); then all "other"
inline constexpr size_t kBodyBelieved = 8;  // a body gets memory for so many times what has come, if its length claims that much
inline constexpr size_t kMediaItemsMax = 2'048;        // images and the like remembered per endpoint; the one not sent longest goes
inline constexpr size_t kSessionsMax = 100'000;        // remembered sessions; the one not used longest is forgotten
// Prompts whose tokens are asked for (token_source.h). Over the first two a prompt is matched approximately.
inline constexpr size_t kTokenizerWaitingMax = 1'024;
inline constexpr size_t kTokenizerWaitingBytesMax = 256u << 20;
inline constexpr size_t kTokensKeptMax = 4u << 20;            // ids of answers kept, 16 MiB
inline constexpr size_t kTokensAnswerBytesMax = 64u << 20;    // one render or tokenize answer; over it the call failed
inline constexpr int64_t kTokenizerThreadsMax = 64;
inline constexpr int kTokenizerConnectionsMax = 64;           // kept open
inline constexpr size_t kTokenizersMax = 64;                  // models with a tokenizer of their own; further ones have none
inline constexpr int64_t kTokenizerRetryMs = 10'000;          // a file that could not be used is tried again
inline constexpr int64_t kTokenizerWarnMs = 10'000;           // between two log lines about prompts without tokens
inline constexpr int64_t kTokenizerTickMs = 20;               // how late a timeout may be seen
inline constexpr size_t kDecisionsKept = 64;           // in /debug

}  // namespace baton::picker
