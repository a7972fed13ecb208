#include "engine/ngram_index.h"

#include <gtest/gtest.h>

#include "base/prng.h"

namespace baton::engine {
namespace {

// The definition, as a search.
std::vector<int32_t> searched(std::span<const int32_t> tokens, int32_t shortest, int32_t longest, int32_t n) {
  const auto total = static_cast<int32_t>(tokens.size());
  for (int32_t length = std::min(longest, total - 1); length >= shortest; --length) {
    const auto last = tokens.last(static_cast<size_t>(length));
    for (int32_t begin = 0; begin + length < total; ++begin) {
      if (!std::ranges::equal(tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(length)), last)) continue;
      const auto rest = tokens.subspan(static_cast<size_t>(begin + length));
      const auto found = rest.first(std::min(rest.size(), static_cast<size_t>(n)));
      return {found.begin(), found.end()};
    }
  }
  return {};
}

std::vector<int32_t> guess(const NgramIndex& index, int32_t n) {
  const auto found = index.following(n);
  return {found.begin(), found.end()};
}

TEST(NgramIndex, FindsWhatTheSearchFinds) {
  uint64_t found = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Prng prng(seed);
    const auto shortest = static_cast<int32_t>(prng.between(1, 4)), longest = shortest + static_cast<int32_t>(prng.below(5));
    const uint64_t alphabet = prng.between(1, 12);
    NgramIndex index(shortest, longest);
    std::vector<int32_t> all;
    const auto total = static_cast<size_t>(prng.between(1, 200));
    while (all.size() < total) {
      std::vector<int32_t> more;
      for (uint64_t n = 1 + prng.below(prng.chance(0.2) ? 60 : 2); n > 0; --n)
        more.push_back(static_cast<int32_t>(prng.below(alphabet)));
      if (prng.chance(0.2) && all.size() > 20) {  // an edit: a piece of what was
        const auto at = all.begin() + static_cast<std::ptrdiff_t>(prng.below(all.size() - 20));
        more.assign(at, at + 20);
      }
      all.insert(all.end(), more.begin(), more.end());
      index.append(more);
      const auto n = static_cast<int32_t>(prng.between(1, 9));
      const auto want = searched(all, shortest, longest, n);
      ASSERT_EQ(guess(index, n), want) << "after " << all.size() << " tokens";
      found += !want.empty();
    }
    ASSERT_EQ(index.size(), all.size());
  }
  EXPECT_GT(found, 1'500u);
}

TEST(NgramIndex, TheLongestThenTheFirst) {
  NgramIndex index(2, 3);
  const std::vector<int32_t> tokens{1, 2, 3, 4, 2, 3};
  index.append(tokens);
  EXPECT_EQ(guess(index, 4), (std::vector<int32_t>{4, 2, 3}));  // vLLM's own example
  index.append(std::vector<int32_t>{9, 1, 2, 3});
  EXPECT_EQ(guess(index, 2), (std::vector<int32_t>{4, 2}));  // 1 2 3, not the later 2 3
  index.append(std::vector<int32_t>{8});
  EXPECT_EQ(guess(index, 4), std::vector<int32_t>{});
}

TEST(NgramIndex, TokenIdsOfAnySizeAreTokens) {
  NgramIndex index(1, 2);
  index.append(std::vector<int32_t>{INT32_MAX, 0, INT32_MAX});
  EXPECT_EQ(guess(index, 5), (std::vector<int32_t>{0, INT32_MAX}));
}

}  // namespace
}  // namespace baton::engine
