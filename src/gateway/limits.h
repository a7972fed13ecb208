#pragma once
// Limits of the gateway beside those of its configuration (config.h) and of the HTTP server, and the answer at each.
#include <cstddef>

namespace baton::gateway {

inline constexpr size_t kFailureBodyBytesMax = 64u << 10;  // of a 502/503 kept in case no other worker answers; the rest is cut
inline constexpr size_t kResumeEventBytesMax = 1u << 20;   // one event of a stream we could resume; over it it is only passed on
inline constexpr size_t kResumeTextBytesMax = 1u
                                              << 20;    // text of an answer kept to continue it elsewhere; over it: not continued
inline constexpr size_t kResumeIdsBodyBytesMax =
    kResumeEventBytesMax / 8;                           // of a request whose token ids are asked for, so that the
                                                        // event with its prompt's is no longer; over it: not
inline constexpr size_t kResumeIdsMax = 1u << 20;       // tokens of an answer; over it they are counted by their text
inline constexpr size_t kResumeContextIds = 16;         // of a prompt, before an answer's ids that are read back as text
inline constexpr int kResumeLegsMax = 8;                // workers lost under one stream; then one clear error
inline constexpr int kTokenizeTimeoutMs = 2'000;        // counting what a lost stream had sent; then events are counted instead
inline constexpr size_t kTokenizeBytesMax = 16u << 20;  // the same
inline constexpr size_t kKeysMax = 10'000;              // a key file with more is refused, the old keys stay
inline constexpr size_t kKeyNameBytesMax = 128;         // the same
inline constexpr size_t kKeyFileBytesMax = 4u << 20;    // the same
inline constexpr size_t kAccessLogBytesMax = 8u << 20;  // lines that wait for the disk; further ones are dropped and counted
inline constexpr int kAccessLogFlushMs = 100;
inline constexpr int kFilesEveryMs = 1'000;             // how often key and configuration files are looked at
inline constexpr int kIdleConnectionsMax = 4'096;       // connections beside those of the requests; over it: 503 and closed
inline constexpr int kDescriptorsBeside = 512;          // files beside the streams: listeners, probes, logs
inline constexpr int kPoolsMax = 64;                    // a pools file with more is refused
inline constexpr size_t kPoolsFileBytesMax = 1u << 20;  // the same
inline constexpr int kPrefillCandidatesMax = 8, kAttemptsMax = 8;

}  // namespace baton::gateway
