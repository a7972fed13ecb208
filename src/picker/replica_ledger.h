#pragma once
// ReplicaLedger: what replicas of one picker tell each other, and what this one knows of the others: in-flight requests and
// tokens by endpoint address, and prompts sent. Counts are absolute, so a lost message is repaired by the next one that names the
// endpoint, or by the next snapshot; a replica that is silent for ttl_ms, or came back as another incarnation, counts for
// nothing.
//   message: "BRD1" | token digest 8 | incarnation 8 | sequence 8 | kind 1 | name | body     numbers behind that: LEB128, hashes
//   le64
// Pure; the clock is the caller's. Untrusted bytes in; bounded by kReplica*. Threads: one at a time.
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace baton::picker {

inline constexpr size_t kReplicaMessageBytesMax = 4u << 20;  // larger ones are refused by the socket
inline constexpr size_t kReplicaPeersMax = 16;               // names; a further one is refused until one falls silent
inline constexpr size_t kReplicaTextBytesMax = 256;          // per name and address
inline constexpr size_t kReplicaCountsMax = 4096;            // endpoints per peer: any pool, and the ones that just left it
inline constexpr size_t kReplicaHashesMax = 65'536;          // per message

struct ReplicaCount {
  std::string address;
  int64_t requests = 0, tokens = 0;
  bool operator==(const ReplicaCount&) const = default;
};
struct ReplicaPrefix {
  std::string address;
  std::vector<uint64_t> hashes;  // part of a chain, in its order
  bool operator==(const ReplicaPrefix&) const = default;
};

// A replica that joins asks one that is there for what it knows of prompts; that one answers in parts, to it alone.
struct ReplicaNews {
  std::vector<std::string> wanted_by;  // who asks us
  std::vector<ReplicaPrefix> older;    // parts of the answer to us
  bool part = false, last = false;     // some came; the last of them
};

class ReplicaLedger {
 public:
  // incarnation: random per process. token: shared by the replicas, "" = none; the others' messages are refused.
  ReplicaLedger(std::string name, uint64_t incarnation, std::string_view token, int64_t ttl_ms);

  // Out. delta(): what changed since the last delta or snapshot; "" if nothing.
  std::string snapshot(std::span<const ReplicaCount> now);
  std::string delta(std::span<const ReplicaCount> now);
  std::string prefixes(std::span<const ReplicaPrefix> prefixes);
  std::string want(std::string_view of);                                                  // asks that replica
  std::string part(std::string_view to, std::span<const ReplicaPrefix> held, bool last);  // hashes newest first

  // In. Appends prefixes to learn. True if counts changed. Our own messages are ignored.
  Result<bool> receive(std::string_view message, int64_t now_ms, std::vector<ReplicaPrefix>& learnt, ReplicaNews* news = nullptr);
  std::vector<std::string> names() const;    // of the replicas heard
  bool expire(int64_t now_ms);               // true if a replica's counts went
  std::vector<ReplicaCount> totals() const;  // of all others, by address; none that is 0
  size_t peers() const { return peers_.size(); }
  uint64_t gaps() const { return gaps_; }

 private:
  struct Peer {
    uint64_t incarnation = 0, sequence = 0;
    int64_t heard_ms = 0;
    std::map<std::string, ReplicaCount, std::less<>> counts;
  };
  std::string head(uint8_t kind);

  const std::string name_;
  const uint64_t incarnation_;
  uint64_t token_, sequence_ = 0, gaps_ = 0;
  const int64_t ttl_ms_;
  std::map<std::string, ReplicaCount, std::less<>> said_;
  std::map<std::string, Peer, std::less<>> peers_;
};

}  // namespace baton::picker
