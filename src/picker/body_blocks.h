#pragma once
// BodyBlocks: cuts a stream of prompt bytes into blocks and keeps one content id a block. An id depends on its block's bytes alone,
// so ids can be made before it is known what the chain starts from. Any split gives the same ids.
// extend_chain(): h_i = mix(id_i, h_{i-1}). Threads: one at a time.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

namespace baton::picker {

uint64_t block_id(const char* data, size_t n);  // xxh3
uint64_t mix_chain(uint64_t id, uint64_t parent);

class BodyBlocks {
 public:
  void start(size_t block_bytes, size_t blocks_max) {
    block_bytes_ = std::max<size_t>(block_bytes, 4);
    blocks_max_ = blocks_max;
  }
  void feed(std::string_view bytes) {
    if (bytes.size() < block_bytes_ - held_ && partial_ != nullptr) {  // the common short piece
      std::memcpy(partial_.get() + held_, bytes.data(), bytes.size());
      held_ += bytes.size();
    } else {
      feed_blocks(bytes);
    }
  }
  const std::vector<uint64_t>& ids() const { return ids_; }
  // Appends one hash a full block to chain, up to blocks_max in it, and returns the last. fold_rest: the bytes behind the last full
  // block go into the returned hash as well, because another section follows.
  uint64_t extend_chain(std::vector<uint64_t>& chain, uint64_t parent, bool fold_rest) const;

 private:
  void feed_blocks(std::string_view bytes);
  size_t block_bytes_ = 64, blocks_max_ = 0, held_ = 0;
  std::unique_ptr<char[]> partial_;  // of block_bytes_, once needed
  std::vector<uint64_t> ids_;
};

// Hash of an asset's URL or data, in pieces.
class AssetHash {
 public:
  AssetHash();
  ~AssetHash();
  AssetHash(const AssetHash&) = delete;
  AssetHash& operator=(const AssetHash&) = delete;
  void reset();
  void feed(std::string_view bytes);
  uint64_t value() const;
  size_t bytes() const { return bytes_; }

 private:
  struct State;
  std::unique_ptr<State> state_;  // made with the first bytes
  size_t bytes_ = 0;
};

}  // namespace baton::picker
