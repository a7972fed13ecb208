#pragma once
// SimNet: the network of the simulation. Every connection between two nodes is a pair of socket pairs with this relay between
// them, which reads whole frames, holds them for a latency, and can do one armed fault at a time to what passes: lose, double or
// swap frames, flip a bit, cut (also in the middle of a frame), or hold everything back for a while. Virtual time; one thread;
// nothing waits. Not simulated: the unix socket that hands out shared memory, which is the kernel's own.
#include <poll.h>

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/prng.h"
#include "transfer/frame.h"
#include "transfer/loop.h"

namespace baton::transfer::testing {

struct SimFault {
  enum class Kind : uint8_t { kDrop, kDouble, kSwap, kFlip, kCut, kCutInside, kHold } kind{};
  enum class What : uint8_t { kAny, kControl, kBlocks } what{};
  bool to_consumer = false;
  int64_t hold_ms = 0;
};
std::string describe(const SimFault& fault);

// A connection. Numbers are not used again.
struct SimWire {
  int consumer = 0, producer = 0;  // node numbers
  uint64_t number = 0;
};

// What the simulation wants to know of what passes.
class SimObserver {
 public:
  virtual ~SimObserver() = default;
  virtual void sent(const SimWire& wire, FrameType type, std::span<const std::byte> body) = 0;
  // To the consumer: what shows that the producer is at these operations, perhaps only a part of the frame.
  virtual void delivered(const SimWire& wire, std::span<const uint64_t> ops) = 0;
  virtual void closed(const SimWire& wire, uint64_t op) = 0;  // CLOSE is with the producer
  virtual void disturbed(int consumer, int producer) = 0;
  virtual void damaged(const SimWire& wire) = 0;  // frames were lost, doubled or changed
};

class SimNet {
 public:
  SimNet(const Clock& clock, Prng& prng, SimObserver& observer) : clock_(clock), prng_(prng), observer_(observer) {}
  // {the consumer's end, the producer's end}
  std::pair<Fd, Fd> connect(int consumer, int producer);
  void pump();  // reads what was sent, delivers what is due
  size_t size() const { return wires_.size(); }
  bool serves(uint64_t wire) const;       // its producer still has it open
  bool arm(SimFault fault, size_t wire);  // false: no such wire
  void set_latency(size_t wire, int64_t ms) { wires_[wire]->latency_ms = ms; }
  void heal();  // disarms everything, ends every hold, latency 1 ms
  int faults_done = 0;

 private:
  struct Packet {
    std::string bytes;
    int64_t due_ms = 0;
    FrameType type{};
    std::vector<uint64_t> ops;  // that it is about
  };
  struct Direction {
    Fd* from = nullptr;
    Fd* to = nullptr;
    bool to_consumer = false;
    std::string partial;  // of a frame
    std::deque<Packet> queue;
    std::optional<SimFault> fault;
    bool swap_next = false, ended = false, cut = false;
  };
  struct Wire {
    SimWire id;
    Fd consumer_end, producer_end;
    std::array<Direction, 2> directions;
    int64_t latency_ms = 1, hold_until_ms = 0;
    bool dead = false;
    // The consumer lost a frame of an operation, which may show only when that one's producer has computed more, much later.
    bool unnoticed = false;
  };
  void read(Wire& wire, Direction& d);
  void split(Wire& wire, Direction& d);
  void pass(Wire& wire, Direction& d, std::string frame, FrameType type);
  void deliver(Wire& wire, Direction& d);

  const Clock& clock_;
  Prng& prng_;
  SimObserver& observer_;
  uint64_t next_wire_ = 1;
  std::vector<std::unique_ptr<Wire>> wires_;
  std::vector<pollfd> polled_;
};

}  // namespace baton::transfer::testing
