#pragma once
// Checksums of the data path: XXH3-64, over frames and over the bytes of chunks. They catch accidents and races (a block reused
// under a reader), not forgers: those are kept out by the handshake. 20+ GB/s a core, so verifying costs less than the copy.
#include <cstdint>
#include <memory>
#include <span>

namespace baton::transfer {

uint64_t checksum(std::span<const std::byte> bytes, uint64_t seed = 0);

// A chunk is several blocks that lie apart: their bytes are hashed in order.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  Checksum(const Checksum&) = delete;
  void update(std::span<const std::byte> bytes);
  // memcpy(to, from) and update(to), in pieces that stay in the L1/L2 cache. The hash is of what was written, not of what is
  // still there to read, so a source that changed meanwhile cannot pass.
  void copy(std::byte* to, std::span<const std::byte> from);
  uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace baton::transfer
