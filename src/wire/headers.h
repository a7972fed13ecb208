#pragma once
// Header names that cross a process boundary, lower case as we send them (HTTP compares them without case).
// Source: facts sheet "kv_transfer" 1.4. Routing headers are stripped at the edge: a client must not choose our workers.
#include <string_view>

namespace baton::wire {

inline constexpr std::string_view kPrefillerHostPort = "x-prefiller-host-port";  // picker -> sidecar: one or several host:port
inline constexpr std::string_view kPrefillerUrl = "x-prefiller-url";             // its older form (sidecar v0.3.0)
inline constexpr std::string_view kEncoderHostsPorts = "x-encoder-hosts-ports";
inline constexpr std::string_view kDataParallelHostPort = "x-data-parallel-host-port";
inline constexpr std::string_view kKvCacheSourceHostPort = "x-kv-cache-source-host-port";
inline constexpr std::string_view kDataParallelRank = "x-data-parallel-rank";
inline constexpr std::string_view kGatewayDestination = "x-gateway-destination-endpoint";  // picker -> proxy: the decode worker
// Picker -> sidecar -> prefill and decode engine: the prompt's last N tokens are computed by the decode worker; the prefill worker
// computes and hands over those before them.
inline constexpr std::string_view kDecodeTail = "x-baton-decode-tail-tokens";
inline constexpr std::string_view kRequestId = "x-request-id";

// Where the time to the first token went: comma list of name=milliseconds, each hop adds its own ("queue=0.4,prefill_leg=12.3").
inline constexpr std::string_view kTtft = "x-baton-ttft";
// What was handed over for this answer: "bytes=917504,tokens=40,transport=shm".
inline constexpr std::string_view kKv = "x-baton-kv";
// Of an engine's /health answer: what it can do beyond vLLM's interface, comma list ("kv-push").
inline constexpr std::string_view kCapabilities = "x-baton-capabilities";
inline constexpr std::string_view kCapabilityPush = "kv-push";
// Who did it: "decode=host:port,prefill=host:port".
inline constexpr std::string_view kWorker = "x-baton-worker";

// What only our own hops may say.
inline constexpr std::string_view kRoutingHeaders[] = {kPrefillerHostPort,    kPrefillerUrl,          kEncoderHostsPorts,
                                                       kDataParallelHostPort, kKvCacheSourceHostPort, kDataParallelRank,
                                                       kGatewayDestination,   kDecodeTail};

}  // namespace baton::wire
