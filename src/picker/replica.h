#pragma once
// Replica: connects the replicas of one picker (replica_ledger.h) over ZeroMQ PUB/SUB: each binds one port and listens to all
// others, given as a list or as a headless Service's name, asked again every few seconds. Every interval the counts that changed
// go out, every second and whenever somebody joins all of them; prompts go out as they are recorded, bounded, and what does not
// fit is dropped. One that starts asks another for what it knows of prompts, and gets it an endpoint at a time, a part each
// interval: bounded per endpoint, newest first, put behind what it learnt itself. The other's look-ups do not wait for that. Not
// encrypted: the token keeps strangers' mistakes out, a network policy keeps strangers out. Requires: the same hash seed on all
// replicas (BodyReader::chain). Guarantees: hooks run on the Replica's thread and never after stop(). Threads: its own, and one
// that asks DNS; recorded() and counts() from any. Source: facts sheet "epp" 9 item 7.
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "picker/replica_ledger.h"

namespace baton::picker {

struct ReplicaOptions {
  std::string name;  // unique among the replicas: the pod's
  std::string bind = "tcp://*:9004";
  std::vector<std::string> peers{};  // "host:port", "[v6]:port"; itself among them does no harm
  std::string dns{};                 // "service:port": every address of it is a peer
  std::string token{};
  int64_t interval_ms = 20, snapshot_ms = 1'000, ttl_ms = 3'000, dns_ms = 5'000;
  size_t queue_hashes_max = 1u << 20;         // recorded and not yet sent
  size_t held_hashes_max = 65'536;            // told of one endpoint to a replica that joins
  int64_t want_ms = 1'000, join_ms = 60'000;  // between two askings; how long after the start they are tried
};

struct ReplicaHooks {
  std::function<std::vector<ReplicaCount>()> local;           // what this replica has in flight now
  std::function<void(std::span<const ReplicaCount>)> remote;  // the sum over the others; whoever is not named has 0
  std::function<void(std::string_view address, std::span<const uint64_t> hashes)> prefix;  // one of them sent this there
  // For a replica that joins: the endpoints, what one of them holds, newest first; and the same on the side that asked.
  std::function<std::vector<std::string>()> endpoints{};
  std::function<std::vector<uint64_t>(std::string_view address, size_t max)> held{};
  std::function<void(std::string_view address, std::span<const uint64_t> hashes)> older{};
};

struct ReplicaCounts {
  uint64_t sent = 0, received = 0, refused = 0, gaps = 0, prefixes_dropped = 0, socket_errors = 0;
  uint64_t parts_sent = 0, parts_received = 0;  // of what is known of prompts, to and from a replica that joins
  size_t peers = 0;
};

class Replica {
 public:
  Replica(ReplicaOptions options, ReplicaHooks hooks, const Clock& clock);
  ~Replica();
  Result<> start();
  void stop();
  // A prompt goes to this endpoint; its first `known` blocks were sent there before, so the others know them.
  void recorded(std::string_view address, std::span<const uint64_t> chain, size_t known);
  ReplicaCounts counts() const;
  std::string endpoint() const;  // what bind became, with the port the system chose

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::picker
