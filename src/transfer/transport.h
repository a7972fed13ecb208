#pragma once
// Transport: what differs between the ways a chunk of blocks can travel. Handshake, grants, leases, credits, order and
// verification are the same for all of them and live in producer.cc and consumer.cc. A producer-side transport belongs to one
// session and may send(); a consumer-side one belongs to one connected peer and may receive. Threads: the node's. Neither side
// waits: send() queues, receive() copies at most one chunk.
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "transfer/blocks.h"
#include "transfer/conn.h"
#include "transfer/frame.h"

namespace baton::transfer {

// Consumer: what a chunk's blocks are to us. Where they look as ours do, `to` says which of our blocks each of them is; else it
// is empty, and they are wanted one after the other in a buffer.
struct Target {
  ChunkHead head{};
  std::span<const int32_t> to;
  size_t n_blocks = 0;
  Cut cut;  // of the producer's blocks
  size_t payload_max = 0;
};
struct Received {
  uint64_t checksum = 0;                   // of what `to` holds now
  std::span<const std::byte> staged = {};  // without `to`: where the blocks lie until the next call
  bool later = false;                      // neither: Fetches::on_arrival() will bring them
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual Path path() const = 0;
  // True: the consumer reads the producer's memory itself, so a revoked grant's blocks are free only when it said that it
  // stopped.
  virtual bool reader_touches_pool() const = 0;

  // Producer: hashes the blocks, cut, into head.checksum and puts them on their way.
  virtual void send(Conn& conn, ChunkHead head, std::span<const int32_t> blocks, const Cut& cut) = 0;

  // Consumer: where the payload of a chunk goes, or why that payload cannot be right.
  virtual Result<Landing> landing(const Target& target, size_t payload_bytes) = 0;
  // Consumer: the payload is there.
  virtual Result<Received> receive(std::span<const std::byte> collected, const Target& target) = 0;
};

}  // namespace baton::transfer
