// The hash chain of block_pool.h. CBOR as RFC 8949 section 4.2.1 wants it: shortest heads, definite lengths.
#include <cstring>

#include "kv/block_pool.h"

namespace baton::kv {
namespace {

enum Major : uint8_t { kUnsigned = 0, kNegative = 1, kBytes = 2, kText = 3, kArray = 4 };
constexpr uint8_t kNull = 0xf6;

// Feeds CBOR items to SHA-256 through a small buffer: no allocation, few calls.
class CborSha256 {
 public:
  void head(Major major, uint64_t value) {
    if (used_ + 9 > sizeof buffer_) flush();
    int bytes = value < 24 ? 0 : value <= 0xff ? 1 : value <= 0xffff ? 2 : value <= 0xffffffff ? 4 : 8;
    constexpr uint8_t kInfo[9] = {0, 24, 25, 0, 26, 0, 0, 0, 27};
    put(static_cast<uint8_t>(major << 5 | (bytes == 0 ? value : kInfo[bytes])));
    for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) put(static_cast<uint8_t>(value >> shift));
  }
  void integer(int32_t v) {
    if (v >= 0) return head(kUnsigned, static_cast<uint64_t>(v));
    head(kNegative, static_cast<uint64_t>(-1 - int64_t{v}));
  }
  void text(std::string_view s) {
    head(kText, s.size());
    raw({reinterpret_cast<const uint8_t*>(s.data()), s.size()});
  }
  void bytes(std::span<const uint8_t> b) {
    head(kBytes, b.size());
    raw(b);
  }
  void null() {
    if (used_ == sizeof buffer_) flush();
    put(kNull);
  }
  BlockHash finish() {
    flush();
    return sha_.finish();
  }

 private:
  void put(uint8_t byte) { buffer_[used_++] = byte; }
  void raw(std::span<const uint8_t> b) {
    if (b.size() > sizeof buffer_ - used_) flush();
    if (b.size() > sizeof buffer_) {
      sha_.update(b);
      return;
    }
    if (!b.empty()) std::memcpy(buffer_ + used_, b.data(), b.size());
    used_ += b.size();
  }
  void flush() {
    sha_.update(std::span<const uint8_t>(buffer_, used_));
    used_ = 0;
  }

  Sha256 sha_;
  uint8_t buffer_[256];  // one block of 16 tokens takes about 100 bytes
  size_t used_ = 0;
};

}  // namespace

BlockHash root_hash(std::string_view seed) {
  CborSha256 out;
  out.text(seed);
  return out.finish();
}

BlockHash block_hash(const BlockHash& parent, std::span<const int32_t> tokens, std::span<const std::string_view> extra) {
  CborSha256 out;
  out.head(kArray, 3);
  out.bytes(parent);
  out.head(kArray, tokens.size());
  for (int32_t token : tokens) out.integer(token);
  if (extra.empty()) {
    out.null();
  } else {
    out.head(kArray, extra.size());
    for (std::string_view key : extra) out.text(key);
  }
  return out.finish();
}

std::vector<BlockHash> hash_chain(const BlockHash& root, std::span<const int32_t> tokens, int block_tokens,
                                  std::string_view salt, const Adapter* adapter) {
  std::vector<BlockHash> chain;
  size_t width = static_cast<size_t>(block_tokens);
  chain.reserve(tokens.size() / width);
  for (size_t at = 0; at + width <= tokens.size(); at += width) {
    const ExtraKeys extra(adapter, chain.empty() ? salt : std::string_view());
    chain.push_back(block_hash(chain.empty() ? root : chain.back(), tokens.subspan(at, width), extra));
  }
  return chain;
}

}  // namespace baton::kv
