#pragma once
// Every maximum of net/ that is not a field of ServerOptions or Call, with what happens beyond it.
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace baton::net {

inline constexpr int kListenBacklog = 4096;            // the kernel drops SYNs beyond it; clients retry
inline constexpr int kHeaderFieldsMax = 256;           // 431
inline constexpr size_t kPipelineBytesMax = 64 << 10;  // bytes a client may send ahead of its answer; beyond it we stop reading
inline constexpr size_t kReadBytes =
    64 << 10;  // one recv(): the default loopback and data-centre socket buffer drains in few calls
inline constexpr size_t kBufferKeptBytes = 16 << 10;          // a larger buffer of a quiet TLS connection is given back
inline constexpr size_t kChunkOverheadMax = 16 << 10;         // one chunk-size line with extensions, or all trailers: 400
inline constexpr int kInterimResponsesMax = 16;               // 1xx answers before the real one: kInternal
inline constexpr size_t kResponseHeaderBytesMax = 256 << 10;  // of an upstream: kInternal
// Read and dropped after an early answer, so that a reset does not eat the answer. A proxy has some 10 MB in socket buffers before
// it looks for one, and what it was told to send it sends: enough for a body twice as large as any that is served.
inline constexpr size_t kLingerBytesMax = 256u << 20;
inline constexpr std::chrono::milliseconds kLingerTimeout{5'000};
inline constexpr int kTurnedAwayMax = 64;  // connections over connections_max that get their 503 so; more are closed at once
// A peer whose machine vanished sends no FIN: probe after 30 s of silence, give up after three unanswered probes.
inline constexpr int kKeepAliveIdleS = 30, kKeepAliveIntervalS = 10, kKeepAliveProbes = 3;
inline constexpr std::chrono::milliseconds kAcceptPause{50};  // after EMFILE and the like: let connections end
inline constexpr std::chrono::seconds kPooledIdleMax{90};     // a pooled upstream connection older than this is not used again
inline constexpr size_t kSseEventBytesMax = 16u << 20;        // one server-sent event: kResourceExhausted

// HTTP/2. A peer that breaks one of these gets GOAWAY(ENHANCE_YOUR_CALM) and is closed, unless another answer is named.
inline constexpr uint32_t kH2WindowStreams = 16;        // a connection's receive window, in windows of one stream
inline constexpr size_t kH2ReadBytes = 256 << 10;       // one recv(), into a buffer that the connections of a thread share
inline constexpr size_t kH2SendBytes = 256 << 10;       // one send(): as much as a socket buffer commonly takes
inline constexpr size_t kH2ReferBytes = 1 << 10;        // a smaller payload is cheaper to copy than to name in an iovec
inline constexpr size_t kH2KeptBytes = 2 << 10;         // a quiet stream gives back a larger queue; 32,000 of them stay small
inline constexpr size_t kH2AnswerBytesMax = 256 << 10;  // queued of one answer; beyond it the stream's request is not read on
inline constexpr uint32_t kH2CreditShare = 4;           // a receive window is reopened by quarters
inline constexpr size_t kSparesMax = 32, kSpareBytesMax = 8u << 20;  // drained queues a thread keeps; the rest is freed
inline constexpr size_t kSpareLentMin = 16 << 10;                    // a smaller one goes to any queue, a larger to one that fills a quarter
inline constexpr int kH2ControlsBurst = 10'000;         // PING, SETTINGS and empty DATA: clients that measure bandwidth ping
inline constexpr int kH2ControlsPerS = 10'000;          // once a round trip, thousands a second on loopback
inline constexpr int kGrpcResetsBurst = 20'000;         // a proxy resets the calls of all clients that left at once
inline constexpr int kGrpcResetsPerS = 10'000;
inline constexpr int kHttp2ResetsBurst = 1'000, kHttp2ResetsPerS = 100;  // of requests that had no answer yet
inline constexpr uint32_t kHttp2StreamsMax = 1'000;     // of Server, a connection: REFUSED_STREAM
inline constexpr size_t kHttp2QueueBytes = 256 << 10;   // of one answer; write() waits beyond it
inline constexpr size_t kHttp2UnsentBytesMax = 512u << 20;  // a connection's: closed
inline constexpr size_t kHttp2BodiesMax = 8;            // times body_bytes_max: incomplete requests of a connection: 503
inline constexpr size_t kH2HeaderOverrun = 4;           // times header_bytes_max: up to it 431, beyond it closed
inline constexpr size_t kH2ContinuationsMax = 8;        // frames of one header block: closed
inline constexpr std::chrono::milliseconds kH2PrefaceTimeout{10'000};  // TLS handshake included: closed
inline constexpr std::chrono::milliseconds kH2StallTimeout{60'000};    // a full socket that takes nothing: closed
inline constexpr size_t kTlsReadBytes = 128 << 10;       // ciphertext of one recv(), a buffer a thread
inline constexpr size_t kPemBytesMax = 1u << 20;         // a certificate or key file: refused
inline constexpr std::chrono::seconds kCertificateLookEvery{3};  // reload: at most so often, and only as connections come
inline constexpr size_t kGrpcPartialBytesMax = 256u << 20;  // messages begun and not complete, a connection: RESOURCE_EXHAUSTED
inline constexpr size_t kGrpcPostedMax = 1u << 20;          // functions posted to a thread and not run: our bug, checked

}  // namespace baton::net
