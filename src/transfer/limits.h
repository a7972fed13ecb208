#pragma once
// Every bound of the transfer layer, and what happens beyond it. A peer is a stranger until its HELLO was accepted, and a suspect
// after.
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace baton::transfer {

// Wire. Beyond any of these the connection is closed: the peer is broken or lying, and nothing after a bad length can be trusted.
constexpr size_t kControlBodyMax =
    64u << 10;  // every frame but CHUNK; the largest is a heartbeat of kGrantsPerHeartbeatMax tokens
constexpr size_t kChunkPayloadMax = 256u << 20;  // one block of a 126-layer, 8-head, 128-dim bf16 model is 8 MiB
constexpr size_t kFabricBlobMax = 8u << 10;      // a UCX address or key; some hundred bytes for each device of a host
constexpr size_t kStringMax = 1024;              // ids, fingerprints, error texts: longer ones are cut by the sender
constexpr size_t kGrantsPerHeartbeatMax = 2048;  // 32 KiB of tokens; more grants go into several frames

constexpr size_t kControlQueueBytes = 4u << 20;  // our own frames waiting for a peer that asks and asks but does not read

// Abstract unix sockets that a consumer may be told to ask: no other program's can be named.
constexpr std::string_view kShmNamePrefix = "baton-kv-";

// Producer.
constexpr size_t kSessionsMax = 1024;         // further connections are closed at accept
constexpr size_t kReadsPerSessionMax = 1024;  // further fetches fail with kResourceExhausted
constexpr size_t kGrantsMax = 65'536;         // a further offer expires at once
constexpr size_t kAwaitsPerSessionMax = 512;  // readers that came before their grant; further ones fail with kResourceExhausted
constexpr size_t kAwaitsMax = 4096;           // of all sessions
constexpr int kAwaitMs = 10'000;              // so long such a reader waits: a prefill request that is not here by then is lost
constexpr size_t kEndedTokensMax = 8192;      // remembered, so that a late or second use of a token is refused at once
constexpr size_t kSendQueueBytes = 8u << 20;  // chunks are queued on a connection only below this
constexpr int kUcxProbesMax = 4;              // self-tests of one connection that do not pass through its send queue
constexpr size_t kProbeBytesMax = 8u << 20;   // what a self-test may ask for: 64 ms on 1 Gbit/s, 1-3 ms on one host

constexpr size_t kRanksMax = 1024;         // of one engine
constexpr size_t kReadersMax = kRanksMax;  // ranks of one engine that may read one grant

// Consumer.
constexpr size_t kPeersMax = 1024;            // further set_peers entries are dropped with a warning
constexpr size_t kAdHocPeersMax = 64;         // peers learnt from grants alone; beyond it such a fetch only fails
constexpr size_t kPendingPushesMax = 1024;    // pushes that wait for one peer's handshake; further ones fail at once
constexpr size_t kPendingDeclinesMax = 4096;  // declines kept for a peer that is not connected; the lease covers what is dropped
constexpr int kChunksInFlight = 4;            // credit of one fetch: hides the producer's hashing and one round trip
constexpr size_t kStagingBytes = 128u << 20;  // what UCX may have received that is not verified yet; more waits at its sender
constexpr size_t kChunkBytesMin = 64u << 10;  // smaller chunks cost more per frame than they gain

// Time. Durations only; clocks never cross the wire.
constexpr int kHandshakeMs = 5'000;  // connect, HELLO to READY and self-test
constexpr int kUcxProbeMs = 4'000;   // a UCX path that did not pass its self-test by then is none
constexpr int kBackoffFirstMs = 50;  // reconnect delays double from here
constexpr int kBackoffMaxMs = 5'000;
constexpr int kBackoffRefusedMs = 5'000;  // a refusal (fingerprint, layout, version) changes only by a restart of one side
constexpr int kHeartbeatsPerLease = 6;    // vLLM's numbers: renew every lease/6 ...
constexpr int lease_extension_ms(int lease_ms) { return 2 * lease_ms / 3; }  // ... by 2/3 lease
constexpr int kMissedHeartbeats = 3;                                         // silence of so many intervals ends a connection ...
constexpr int kSilenceMinMs = 1'000;  // ... but a loaded machine may stall a thread for a while
constexpr int kAcceptPauseMs = 100;   // out of descriptors: accept again after this
constexpr int kLeaseMinMs = 60, kLeaseMaxMs = 3'600'000;

// Below these a path is logged and counted as slow: a quarter of what the slowest machine we know gives. The default path of
// other stacks falls to 0.5 GB/s without anyone noticing (facts 7.14).
constexpr double kSlowShmGigabytesPerS = 2;
constexpr double kSlowUcxGigabytesPerS = 1;
constexpr double kSlowTcpGigabytesPerS = 0.5;

}  // namespace baton::transfer
