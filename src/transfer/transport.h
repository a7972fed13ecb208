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
#include "transfer/conn.h"
#include "transfer/frame.h"

namespace baton::transfer {

// Our own pool as equal blocks.
struct BlockArray {
  std::span<std::byte> bytes;
  size_t block_bytes = 0;
  int32_t count() const { return static_cast<int32_t>(bytes.size() / block_bytes); }
  bool has(int32_t block) const { return block >= 0 && block < count(); }
  std::span<std::byte> operator[](int32_t block) const {
    return bytes.subspan(static_cast<size_t>(block) * block_bytes, block_bytes);
  }
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual Path path() const = 0;
  // True: the consumer reads the producer's memory itself, so a revoked grant's blocks are free only when it said that it
  // stopped.
  virtual bool reader_touches_pool() const = 0;

  // Producer: hashes the blocks into head.checksum and puts them on their way.
  virtual void send(Conn& conn, ChunkHead head, std::span<const int32_t> blocks) = 0;

  // Consumer: where the payload of a chunk for `to` goes, or why that payload cannot be right.
  virtual Result<Landing> landing(std::span<const int32_t> to, size_t payload_bytes) = 0;
  // Consumer: makes `to` hold the chunk; the checksum of what they hold now.
  virtual Result<uint64_t> receive(std::span<const std::byte> collected, std::span<const int32_t> to) = 0;
};

}  // namespace baton::transfer
