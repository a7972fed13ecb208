#include "picker/body_blocks.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/prng.h"

namespace baton::picker {

uint64_t block_id(const char* data, size_t n) { return XXH3_64bits(data, n); }

uint64_t mix_chain(uint64_t id, uint64_t parent) {
  constexpr uint64_t kOdd = 0xa0761d6478bd642fULL;
  const unsigned __int128 product = static_cast<unsigned __int128>(id ^ parent * 0x9e3779b97f4a7c15ULL) * kOdd;
  return mix64(static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64) ^ id);
}

void BodyBlocks::feed_blocks(std::string_view bytes) {
  if (ids_.size() >= blocks_max_) return;
  if (partial_ == nullptr) {
    partial_ = std::make_unique_for_overwrite<char[]>(block_bytes_);
    ids_.reserve(std::min<size_t>(blocks_max_, 32));
  }
  if (held_ > 0) {
    const size_t n = std::min(bytes.size(), block_bytes_ - held_);
    std::memcpy(partial_.get() + held_, bytes.data(), n);
    bytes.remove_prefix(n);
    if ((held_ += n) < block_bytes_) return;
    ids_.push_back(block_id(partial_.get(), block_bytes_));
    held_ = 0;
  }
  while (bytes.size() >= block_bytes_ && ids_.size() < blocks_max_) {
    ids_.push_back(block_id(bytes.data(), block_bytes_));
    bytes.remove_prefix(block_bytes_);
  }
  if (ids_.size() >= blocks_max_) return;
  std::memcpy(partial_.get(), bytes.data(), bytes.size());
  held_ = bytes.size();
}

uint64_t BodyBlocks::extend_chain(std::vector<uint64_t>& chain, uint64_t parent, bool fold_rest) const {
  for (const uint64_t id : ids_) {
    if (chain.size() >= blocks_max_) return parent;
    chain.push_back(parent = mix_chain(id, parent));
  }
  if (fold_rest && held_ > 0) parent = mix_chain(block_id(partial_.get(), held_), parent);
  return parent;
}

struct AssetHash::State {
  XXH3_state_t xxh;
};

AssetHash::AssetHash() = default;
AssetHash::~AssetHash() = default;

void AssetHash::reset() {
  bytes_ = 0;
  if (state_ != nullptr) XXH3_64bits_reset(&state_->xxh);
}

void AssetHash::feed(std::string_view bytes) {
  if (state_ == nullptr) {
    state_ = std::make_unique<State>();
    XXH3_64bits_reset(&state_->xxh);
  }
  XXH3_64bits_update(&state_->xxh, bytes.data(), bytes.size());
  bytes_ += bytes.size();
}

uint64_t AssetHash::value() const { return state_ == nullptr ? 0 : XXH3_64bits_digest(&state_->xxh); }

}  // namespace baton::picker
