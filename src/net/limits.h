#pragma once
// Every maximum of net/ that is not a field of ServerOptions or Call, with what happens beyond it.
#include <chrono>
#include <cstddef>

namespace baton::net {

inline constexpr int kListenBacklog = 4096;            // the kernel drops SYNs beyond it; clients retry
inline constexpr int kHeaderFieldsMax = 256;           // 431
inline constexpr size_t kPipelineBytesMax = 64 << 10;  // bytes a client may send ahead of its answer; beyond it we stop reading
inline constexpr size_t kReadBytes =
    64 << 10;  // one recv(): the default loopback and data-centre socket buffer drains in few calls
inline constexpr size_t kBufferKeptBytes = 16 << 10;          // an idle connection gives back a larger read buffer
inline constexpr size_t kChunkOverheadMax = 16 << 10;         // one chunk-size line with extensions, or all trailers: 400
inline constexpr int kInterimResponsesMax = 16;               // 1xx answers before the real one: kInternal
inline constexpr size_t kResponseHeaderBytesMax = 256 << 10;  // of an upstream: kInternal
inline constexpr size_t kLingerBytesMax =
    8u << 20;  // read and dropped after an early answer, so that a reset does not eat the answer
inline constexpr std::chrono::milliseconds kLingerTimeout{2'000};
// A peer whose machine vanished sends no FIN: probe after 30 s of silence, give up after three unanswered probes.
inline constexpr int kKeepAliveIdleS = 30, kKeepAliveIntervalS = 10, kKeepAliveProbes = 3;
inline constexpr std::chrono::milliseconds kAcceptPause{50};  // after EMFILE and the like: let connections end
inline constexpr std::chrono::seconds kPooledIdleMax{90};     // a pooled upstream connection older than this is not used again
inline constexpr size_t kSseEventBytesMax = 16u << 20;        // one server-sent event: kResourceExhausted

}  // namespace baton::net
