#pragma once
// NgramIndex: prompt lookup. Of a growing sequence of tokens it knows where its last n tokens stood first, for the largest n in
// [shortest, longest] that stood anywhere before: what followed there is a guess of what follows here. vLLM's "ngram" proposer
// finds the same by a search through the whole sequence for every guess; here a token costs longest - shortest + 1 hash look-ups
// once, and a guess nothing. Memory: 4 bytes a token and at most 16 for each length of n-gram. Pure; one per sequence; step
// thread.
#include <cstdint>
#include <span>
#include <vector>

namespace baton::engine {

class NgramIndex {
 public:
  NgramIndex(int32_t shortest, int32_t longest);  // 1 <= shortest <= longest
  void append(std::span<const int32_t> tokens);
  size_t size() const { return tokens_.size(); }
  // At most n tokens that followed the first occurrence of the longest n-gram the sequence ends with; empty: it is new.
  std::span<const int32_t> following(int32_t n) const;

 private:
  void append(int32_t token);
  bool equal(int32_t end, int32_t other_end, int32_t length) const;
  void grow();
  // Slot of the n-gram of this length that ends with token `end`: where it stood first, or kFree.
  int32_t& slot(int32_t length, int32_t end, uint64_t hash);

  const int32_t shortest_, longest_;
  std::vector<int32_t> tokens_;
  std::vector<std::vector<int32_t>> first_;  // [length - shortest]: open addressing, a power of two, at most half full
  int32_t match_ = -1;                       // the last token of the occurrence; -1: none
};

}  // namespace baton::engine
