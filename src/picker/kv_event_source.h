#pragma once
// KvEventSource: keeps a route::KvEventIndex fed from the engines' ZeroMQ publishers: one SUB socket an endpoint (or one for all),
// topics kv@<pod>@<model>, an 8-byte sequence, a MessagePack batch. Missed sequences are asked for over the replay socket, and on
// connecting everything the engine still has; meanwhile newer messages wait. A sequence that goes back is an engine that restarted:
// what was known of it is forgotten. A flood fills ZeroMQ's queue, the engine's side drops, and the gap is replayed like any other;
// what cannot be replayed is counted as lost. Decode errors are counted and skipped.
// Requires: start() once; index and clock outlive it. Threads: its own; all functions may be called from any. stop() joins.
// Source: facts sheet "epp" 4.7, 9 item 12.
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "route/kv_event_index.h"

namespace baton::picker {

struct KvEndpoint {
  int slot = 0;
  std::string host{};           // IPv6 without brackets
  int port = 0;                 // of the publisher: the socket port + rank
  int replay_port = 0;          // 0 = none
  int rank = 0;
  std::string model{};          // when the topic has none
  std::string name{}, address{};  // "<namespace>/<pod>-rank-<i>" and host:port of the HTTP server: what a shared topic may say
  bool operator==(const KvEndpoint&) const = default;
};

struct KvSourceOptions {
  std::string topic_filter = "kv@";
  std::string shared_endpoint{};     // KvEventsParams::zmq_endpoint: one socket for all; "tcp://*:p" is bound, else connected
  int queue_messages = 10'000;       // per endpoint, in ZeroMQ
  size_t waiting_messages_max = 4096;  // per endpoint, while a replay runs
  int64_t replay_timeout_ms = 5'000;
  // Tells that messages of a slot were applied; runs on the source's thread.
  std::function<void(int slot)> on_applied{};
};

struct KvSourceCounts {
  uint64_t messages = 0, applied = 0, decode_errors = 0, socket_errors = 0, unknown_pods = 0;
  uint64_t gaps = 0, replays = 0, replay_failures = 0, lost = 0, restarts = 0, dropped = 0;
  size_t subscribers = 0;
  size_t waiting = 0, waiting_max = 0;  // messages, now and at most
  // By endpoint, "host:port" of its HTTP server; only those listened to now.
  std::map<std::string, uint64_t> messages_of, connect_errors_of;
};

class KvEventSource {
 public:
  KvEventSource(KvSourceOptions options, route::KvEventIndex& index, const Clock& clock);
  ~KvEventSource();
  Result<> start();
  void stop();
  // The endpoints to listen to, all of them; those that are gone are forgotten in the index.
  void set_endpoints(std::vector<KvEndpoint> endpoints);
  KvSourceCounts counts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::picker
