#include "route/prefix_index.h"

#include <algorithm>
#include <cstring>

#include "base/prng.h"

namespace baton::route {
namespace {

// 64x64 -> 128 bit multiply folded to 64: one instruction a word, and every input bit reaches every output bit after mix64.
uint64_t fold(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t hash_bytes(uint64_t seed, const char* data, size_t n) {
  constexpr uint64_t kOdd = 0xa0761d6478bd642fULL;
  uint64_t h = seed ^ (n * kOdd);
  for (; n >= 8; data += 8, n -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    h = mix64(fold(h ^ word, kOdd) + word);
  }
  if (n > 0) {
    uint64_t word = 0;
    std::memcpy(&word, data, n);
    h = mix64(fold(h ^ word, kOdd) + word);
  }
  return mix64(h);
}

}  // namespace

ChainHasher::ChainHasher(uint64_t seed, std::string_view model, size_t block_bytes)
    : parent_(hash_bytes(seed, model.data(), model.size())), block_bytes_(block_bytes) {}

void ChainHasher::close_block(const char* block) {
  parent_ = hash_bytes(parent_, block, block_bytes_);
  chain_.push_back(parent_);
}

void ChainHasher::feed(std::string_view bytes) {
  bytes_ += bytes.size();
  if (chain_.size() >= kPrefixBlocksMax) return;
  if (!partial_.empty()) {
    const size_t n = std::min(bytes.size(), block_bytes_ - partial_.size());
    partial_ += bytes.substr(0, n);
    bytes.remove_prefix(n);
    if (partial_.size() < block_bytes_) return;
    close_block(partial_.data());
    partial_.clear();
  }
  while (bytes.size() >= block_bytes_ && chain_.size() < kPrefixBlocksMax) {
    close_block(bytes.data());
    bytes.remove_prefix(block_bytes_);
  }
  if (chain_.size() < kPrefixBlocksMax) partial_ = bytes;
}

}  // namespace baton::route
