#pragma once
// WordCache: word -> token ids, direct mapped and bounded (kWordCacheSlots lines of 64 bytes), for the few thousand words that
// make up most of any text. Any thread may call get and put: slots are guarded by striped locks, and a busy stripe counts as a
// miss, because merging a word again costs less than waiting.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "text/limits.h"
#include "text/tokenizer.h"

namespace baton::text {

class WordCache {
 public:
  static constexpr size_t kWordBytesMax = 30;
  static constexpr size_t kIdsMax = 8;

  bool get(std::string_view word, std::vector<TokenId>& out) {
    size_t h = std::hash<std::string_view>{}(word);
    std::unique_lock lock(stripes_[h % kStripes].mutex, std::try_to_lock);
    if (!lock) return false;
    const Slot& s = slots_[h % kWordCacheSlots];
    if (s.length != word.size() || std::memcmp(s.word, word.data(), word.size()) != 0) return false;
    out.insert(out.end(), s.ids, s.ids + s.count);
    return true;
  }

  void put(std::string_view word, std::span<const TokenId> ids) {
    if (ids.size() > kIdsMax) return;
    size_t h = std::hash<std::string_view>{}(word);
    std::unique_lock lock(stripes_[h % kStripes].mutex, std::try_to_lock);
    if (!lock) return;
    Slot& s = slots_[h % kWordCacheSlots];
    s.length = static_cast<uint8_t>(word.size());
    s.count = static_cast<uint8_t>(ids.size());
    std::memcpy(s.word, word.data(), word.size());
    std::copy(ids.begin(), ids.end(), s.ids);
  }

 private:
  static constexpr size_t kStripes = 64;
  static_assert(kWordCacheSlots % kStripes == 0, "one slot must not lie under two locks");
  struct alignas(64) Slot {  // one cache line; length 0 = empty, as no word is
    uint8_t length = 0;
    uint8_t count = 0;
    char word[kWordBytesMax];
    TokenId ids[kIdsMax];
  };
  struct alignas(64) Stripe {
    std::mutex mutex;
  };
  std::array<Stripe, kStripes> stripes_;
  std::vector<Slot> slots_ = std::vector<Slot>(kWordCacheSlots);
};

}  // namespace baton::text
