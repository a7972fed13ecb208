#pragma once
// Shared memory on one host: the chunk's payload is the producer's block numbers (u32 each); the consumer copies those blocks out
// of its read-only mapping of the producer's pool and hashes what it copied. A block that was reused meanwhile has another
// checksum. Security: the mapping covers the whole pool, so an authenticated peer on this host could read all of it (as with RDMA
// keys). Hence same user, same boot, and the key that only the handshake gives.
#include "transfer/transport.h"

namespace baton::transfer {

// A peer's pool, mapped read-only.
class PeerPool {
 public:
  static Result<PeerPool> map(const Fd& fd, uint64_t pool_bytes);
  PeerPool(PeerPool&& o) noexcept : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}
  ~PeerPool();
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  PeerPool() = default;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Any path whose consumer reads blocks by number.
std::unique_ptr<Transport> make_shm_producer(BlockArray pool, Path path);
std::unique_ptr<Transport> make_shm_consumer(BlockArray pool, PeerPool peer, size_t peer_block_bytes);

}  // namespace baton::transfer
