#pragma once
// A node without a thread, in a world that its caller makes: clock, connections and randomness. For the simulation, which runs
// many of them on virtual time in one thread (testing/sim.h); it is the node that engines run, only turned by hand.
#include "transfer/context.h"

namespace baton::transfer {

struct Surroundings {
  const Clock& clock;
  Dial dial;
  RandomBytes random;
  size_t probe_bytes = kProbeBytesMax;  // of the self-test of a connection
};

class DrivenNode : public TransferNode {
 public:
  virtual void turn() = 0;            // one round of its loop; never waits
  virtual void adopt(Fd socket) = 0;  // a consumer's connection, instead of a TCP listener
};

// Options are taken as they are; port is the one that grants name. All calls, turn() too, from one thread.
Result<std::unique_ptr<DrivenNode>> drive(NodeOptions options, kv::KvLayout layout, PoolMemory& pool, Metrics& metrics,
                                          Surroundings surroundings);

}  // namespace baton::transfer
