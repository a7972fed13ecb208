#pragma once
// What the producer and consumer halves of one node share. Set up before the thread starts; then only `emit` leaves the thread.
#include <array>
#include <bit>
#include <functional>
#include <string>

#include "base/prng.h"
#include "kv/shard.h"
#include "transfer/loop.h"
#include "transfer/socket.h"
#include "transfer/stats.h"
#include "transfer/transfer.h"
#include "transfer/transport.h"
#include "transfer/ucx/fabric.h"

namespace baton::transfer {

using Dial = std::function<Result<Fd>(const Address&)>;
using RandomBytes = std::function<void(std::span<unsigned char>)>;

struct Context {
  Loop& loop;
  NodeOptions options;
  std::vector<kv::KvShard> ranks = {};  // of our engine; at least this one
  kv::KvShard shard = {};               // ranks[options.rank]: what our blocks hold
  uint64_t incarnation = 0;
  std::string boot_id = {};
  BlockArray pool;
  int pool_fd = -1;
  Stats& stats;
  std::function<void(Event)> emit;  // thread-safe
  ucx::Fabric* fabric = nullptr;    // null: no UCX here
  // A simulated world brings its own of these.
  Dial dial = tcp_connect;
  RandomBytes random = secure_random_bytes;
  size_t probe_bytes = kProbeBytesMax;
  bool listens = true;  // false: connections come through adopt() alone
  uint64_t random_u64() const {
    std::array<unsigned char, 8> bytes{};
    random(bytes);
    return std::bit_cast<uint64_t>(bytes);
  }
  const kv::KvLayout& layout() const { return shard.layout; }
  RankFields rank_fields() const { return {shard, static_cast<uint16_t>(options.rank), static_cast<uint16_t>(ranks.size())}; }
  int heartbeat_ms() const { return std::max(options.lease_ms / kHeartbeatsPerLease, 5); }
  int silence_ms() const { return std::max(kMissedHeartbeats * heartbeat_ms(), kSilenceMinMs); }
};

}  // namespace baton::transfer
