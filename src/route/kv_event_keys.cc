#include "route/kv_event_keys.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace baton::route {
namespace {

// FNV-64a over canonical CBOR as it is written.
struct CborFnv {
  uint64_t h = 0xcbf29ce484222325ULL;
  void byte(uint64_t b) { h = (h ^ (b & 0xff)) * 0x100000001b3ULL; }
  void bytes(std::string_view s) {
    for (const char c : s) byte(static_cast<uint8_t>(c));
  }
  void head(unsigned major, uint64_t v) {
    const unsigned m = major << 5;
    if (v < 24) return byte(m | v);
    const int n = v <= 0xff ? 1 : v <= 0xffff ? 2 : v <= 0xffffffff ? 4 : 8;
    byte(m | (n == 1 ? 24u : n == 2 ? 25u : n == 4 ? 26u : 27u));
    for (int i = n - 1; i >= 0; --i) byte(v >> (8 * i));
  }
  void text(std::string_view s) {
    head(3, s.size());
    bytes(s);
  }
  void null() { byte(0xf6); }
};

}  // namespace

KvKeys::KvKeys(std::string_view algorithm, std::string_view seed) : xxh_(algorithm == "xxh64") {
  CborFnv fnv;
  fnv.bytes(seed);
  init_ = xxh_ ? XXH64(seed.data(), seed.size(), 0) : fnv.h;
}

uint64_t KvKeys::root(std::string_view model) const {
  if (xxh_) {
    const std::string extra(model);
    return next(init_, {}, {&extra, 1});
  }
  CborFnv fnv;
  fnv.head(4, 3);
  fnv.head(0, init_);
  fnv.null();
  fnv.text(model);
  return fnv.h;
}

uint64_t KvKeys::next(uint64_t parent, std::span<const uint32_t> tokens, std::span<const std::string> extra) const {
  if (xxh_) {
    XXH64_state_t state;
    XXH64_reset(&state, 0);
    XXH64_update(&state, &parent, sizeof parent);
    XXH64_update(&state, tokens.data(), tokens.size_bytes());
    for (const std::string& key : extra) {
      const uint64_t n = key.size();
      XXH64_update(&state, &n, sizeof n);
      XXH64_update(&state, key.data(), n);
    }
    return XXH64_digest(&state);
  }
  CborFnv fnv;
  fnv.head(4, 3);
  fnv.head(0, parent);
  fnv.head(4, tokens.size());
  for (const uint32_t token : tokens) fnv.head(0, token);
  if (extra.empty()) {
    fnv.null();
    return fnv.h;
  }
  fnv.head(4, extra.size());
  for (const std::string& key : extra) {
    fnv.head(5, 1);
    fnv.text("Hash");
    fnv.text(key);
  }
  return fnv.h;
}

std::vector<uint64_t> KvKeys::chain(std::string_view model, std::span<const uint32_t> tokens, int block_tokens, size_t blocks_max,
                                    const KvExtras& extras) const {
  std::vector<uint64_t> keys;
  const auto n = static_cast<size_t>(block_tokens);
  if (block_tokens <= 0) return keys;
  uint64_t parent = root(model);
  std::vector<std::string> extra;
  size_t passed = 0;  // media that end before this block
  for (int64_t at = 0; tokens.size() >= n && keys.size() < blocks_max; tokens = tokens.subspan(n), at += block_tokens) {
    extra.clear();
    while (passed < extras.media.size() && extras.media[passed].offset + extras.media[passed].length <= at) ++passed;
    for (size_t m = passed; m < extras.media.size() && extras.media[m].offset < at + block_tokens; ++m) {
      if (extras.media[m].offset + extras.media[m].length > at) extra.push_back(extras.media[m].hash);
    }
    if (keys.empty() && !extras.salt.empty()) extra.emplace_back(extras.salt);
    keys.push_back(parent = next(parent, tokens.first(n), extra));
  }
  return keys;
}

}  // namespace baton::route
