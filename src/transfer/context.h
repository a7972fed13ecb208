#pragma once
// What the producer and consumer halves of one node share. Set up before the thread starts; then only `emit` leaves the thread.
#include <functional>
#include <string>

#include "kv/layout.h"
#include "transfer/loop.h"
#include "transfer/stats.h"
#include "transfer/transfer.h"
#include "transfer/transport.h"

namespace baton::transfer {

struct Context {
  Loop& loop;
  NodeOptions options;
  kv::KvLayout layout;
  std::string layout_id;
  uint64_t incarnation = 0;
  std::string boot_id;
  BlockArray pool;
  int pool_fd = -1;
  Stats& stats;
  std::function<void(Event)> emit;  // thread-safe
  int heartbeat_ms() const { return std::max(options.lease_ms / kHeartbeatsPerLease, 5); }
  int silence_ms() const { return std::max(kMissedHeartbeats * heartbeat_ms(), kSilenceMinMs); }
};

}  // namespace baton::transfer
