#pragma once
// SHA-256 (FIPS 180-4), for block hashes, prompt digests and file checksums. Uses the CPU's SHA instructions where it has them.
// The standard library alone, because kv/ must build anywhere. Values are plain: copy and compare freely.
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace baton {

using Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  Sha256& update(std::span<const uint8_t> bytes);
  Sha256& update(std::string_view text) { return update({reinterpret_cast<const uint8_t*>(text.data()), text.size()}); }
  Digest finish();  // the object is spent afterwards

 private:
  uint32_t h_[8];
  uint8_t buf_[64];
  uint64_t length_ = 0;
};

Digest sha256(std::span<const uint8_t> bytes);
std::string hex(const Digest& digest);

}  // namespace baton
