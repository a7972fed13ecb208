#pragma once
// Bounds of the local stack and its downloads; what happens at each is said beside it.
#include <cstddef>
#include <cstdint>

namespace baton::stack {

constexpr int kWorkersMax = 64;                    // prefill + decode; more is refused: one machine is not a cluster
constexpr int64_t kDownloadBytesMax = 64LL << 30;  // a model file; larger is refused
constexpr size_t kIndexBytesMax = 16u << 20;       // a package index page; larger is refused
constexpr int kDownloadTries = 4;                  // then the error is final; each try resumes where the last one ended
constexpr int kRestartBackoffMsMin = 500;          // first restart of a worker that died
constexpr int kRestartBackoffMsMax = 10'000;       // doubled up to here
constexpr int kDrainMs = 30'000;                   // Ctrl-C: then SIGKILL
constexpr int kHealthTimeoutMs = 500;              // one probe
constexpr int kTopTimeoutMs = 2'000;               // `baton top`: one look at the router
constexpr size_t kTopBytesMax = 32u << 20;         // its state or metrics; larger is refused
constexpr size_t kTopDecisionsMax = 12;            // of each pool, newest first
constexpr size_t kLogLineBytesMax = 16u << 10;     // longer lines of a worker are cut
constexpr size_t kWorkersFileBytesMax = 64u << 10;  // what `baton up` wrote of its processes; larger is refused

}  // namespace baton::stack
