#include "transfer/checksum.h"

#define XXH_STATIC_LINKING_ONLY  // the state as a value
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // AVX2 or AVX-512 where the CPU has them
#else
#include <xxhash.h>
#endif

namespace baton::transfer {

uint64_t checksum(std::span<const std::byte> bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

struct Checksum::State {
  XXH3_state_t xxh;
};

Checksum::Checksum() : state_(std::make_unique<State>()) { XXH3_64bits_reset(&state_->xxh); }
Checksum::~Checksum() = default;

void Checksum::update(std::span<const std::byte> bytes) { XXH3_64bits_update(&state_->xxh, bytes.data(), bytes.size()); }

void Checksum::copy(std::byte* to, std::span<const std::byte> from) {
  constexpr size_t kPiece = 16u << 10;
  for (size_t at = 0; at < from.size(); at += kPiece) {
    auto n = std::min(kPiece, from.size() - at);
    std::memcpy(to + at, from.data() + at, n);
    update({to + at, n});
  }
}

uint64_t Checksum::value() const { return XXH3_64bits_digest(&state_->xxh); }

}  // namespace baton::transfer
