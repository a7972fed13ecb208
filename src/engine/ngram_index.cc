#include "engine/ngram_index.h"

#include <algorithm>

#include "base/prng.h"

namespace baton::engine {
namespace {

constexpr int32_t kFree = -1;
constexpr size_t kSlotsMin = 64;

}  // namespace

NgramIndex::NgramIndex(int32_t shortest, int32_t longest)
    : shortest_(shortest),
      longest_(longest),
      first_(static_cast<size_t>(longest - shortest + 1), std::vector<int32_t>(kSlotsMin, kFree)) {}

void NgramIndex::append(std::span<const int32_t> tokens) {
  for (const int32_t token : tokens) append(token);
}

bool NgramIndex::equal(int32_t end, int32_t other_end, int32_t length) const {
  const auto last = tokens_.begin() + end + 1, other = tokens_.begin() + other_end + 1;
  return std::equal(last - length, last, other - length);
}

int32_t& NgramIndex::slot(int32_t length, int32_t end, uint64_t hash) {
  std::vector<int32_t>& table = first_[static_cast<size_t>(length - shortest_)];
  const size_t mask = table.size() - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    if (table[i] == kFree || equal(table[i], end, length)) return table[i];
  }
}

void NgramIndex::append(int32_t token) {
  tokens_.push_back(token);
  if (tokens_.size() * 2 > first_[0].size()) grow();
  const auto end = static_cast<int32_t>(tokens_.size()) - 1;
  match_ = -1;
  uint64_t hash = 0;
  for (int32_t length = 1; length <= std::min(longest_, end + 1); ++length) {
    hash = mix64(hash + static_cast<uint64_t>(tokens_[static_cast<size_t>(end + 1 - length)]) + 1);
    if (length < shortest_) continue;
    int32_t& first = slot(length, end, hash);
    if (first == kFree)
      first = end;
    else if (first != end)
      match_ = first;
  }
}

void NgramIndex::grow() {
  const size_t slots = first_[0].size() * 2;
  for (auto& table : first_) table.assign(slots, kFree);
  const std::vector<int32_t> tokens = std::exchange(tokens_, {});
  tokens_.reserve(slots / 2);
  append(std::span(tokens));
}

std::span<const int32_t> NgramIndex::following(int32_t n) const {
  if (match_ < 0) return {};
  const auto rest = std::span(tokens_).subspan(static_cast<size_t>(match_) + 1);
  return rest.first(std::min(rest.size(), static_cast<size_t>(n)));
}

}  // namespace baton::engine
