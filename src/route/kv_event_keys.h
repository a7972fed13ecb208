#pragma once
// Keys of prompt blocks, from token ids: what the precise index is asked by. Two schemes as llm-d's precise-prefix-cache-producer
// computes them, so that a seed and an algorithm mean the same thing here; they need not be the engine's own hashes.
//   cbor-fnv: init = fnv(seed); root = fnv(CBOR[init, null, model]); key = fnv(CBOR[parent, tokens, extra])     fnv = FNV-64a
//   xxh64:    init = xxh64(seed); over le64(parent), le32 tokens, each extra as le64 length and bytes; root: extras = {model}
// Pure. Source: facts sheet "epp" 4.7.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace baton::route {

// What stands at [offset, offset + length) of a prompt instead of text: an image, by the identifier the engine hashes it under.
struct MediaSpan {
  std::string hash;
  int64_t offset = 0, length = 0;  // tokens
  bool operator==(const MediaSpan&) const = default;
};
// What makes blocks with equal tokens differ: the media that reach into a block, and, in the first one, the request's cache_salt.
struct KvExtras {
  std::span<const MediaSpan> media{};  // in order of offset
  std::string_view salt{};
};

class KvKeys {
 public:
  KvKeys(std::string_view algorithm, std::string_view seed);  // anything but "xxh64" is cbor-fnv
  uint64_t root(std::string_view model) const;
  uint64_t next(uint64_t parent, std::span<const uint32_t> tokens, std::span<const std::string> extra = {}) const;
  // Full blocks of tokens, at most blocks_max.
  std::vector<uint64_t> chain(std::string_view model, std::span<const uint32_t> tokens, int block_tokens, size_t blocks_max,
                              const KvExtras& extras = {}) const;

 private:
  bool xxh_;
  uint64_t init_;
};

}  // namespace baton::route
