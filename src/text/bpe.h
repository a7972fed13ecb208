#pragma once
// Bpe: merges inside one word, lowest rank first, leftmost first among equals; identical to Hugging Face's BPE model.
// Works on the word's raw bytes (byte-level models) or characters (SentencePiece-style models with <0xNN> byte fallback).
// Guarantees: O(n log n) in the word's length; const members from any thread (the word cache inside is sharded and bounded).
// Source: Sennrich et al. 2016 (BPE); facts sheet "engine" 4.2.
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace baton::text {

class WordCache;

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};
using TokenMap = std::unordered_map<std::string, TokenId, StringHash, std::equal_to<>>;

// Open-addressing map from a pair of ids to its merge; a miss costs one cache line, which is what most look-ups are.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    TokenId id;
  };
  explicit MergeTable(size_t merges);
  void put(TokenId left, TokenId right, Merge merge);  // a later put of a pair wins
  const Merge* find(TokenId left, TokenId right) const {
    uint64_t k = key(left, right);
    for (size_t i = slot(k);; i = (i + 1) & mask_) {
      if (slots_[i].key == k) return &slots_[i].merge;
      if (slots_[i].key == kEmpty) return nullptr;
    }
  }

 private:
  struct Slot {
    uint64_t key;
    Merge merge;
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static uint64_t key(TokenId l, TokenId r) {
    return static_cast<uint64_t>(static_cast<uint32_t>(l)) << 32 | static_cast<uint32_t>(r);
  }
  size_t slot(uint64_t k) const { return static_cast<size_t>((k * 0x9e3779b97f4a7c15ULL) >> shift_); }
  size_t mask_;
  int shift_;
  std::vector<Slot> slots_;
};

struct BpeConfig {
  bool byte_level = true;                                   // vocabulary below is in raw bytes; else in characters
  bool ignore_merges = false;                               // a whole word in the vocabulary is taken as it is
  bool byte_fallback = false;                               // a character not in the vocabulary becomes its <0xNN> tokens
  bool fuse_unknown = false;                                // neighbouring unknown characters share one unknown token
  TokenId unknown = -1;                                     // -1: an unknown character is dropped, as the reference does
  TokenMap vocabulary;                                      // what a word may be made of
  std::vector<std::pair<std::string, std::string>> merges;  // by rank, in the vocabulary's form
  std::vector<uint32_t> ranks;                              // of the merges, if several may share one; else their order
};

class Bpe {
 public:
  static Result<std::unique_ptr<Bpe>> build(BpeConfig config);
  ~Bpe();
  void encode(std::string_view word, std::vector<TokenId>& out) const;

 private:
  explicit Bpe(BpeConfig config);
  void symbols_of(std::string_view word, std::vector<TokenId>& out) const;
  void unknown_symbol(std::vector<TokenId>& out) const;
  void merge_short(std::vector<TokenId>& ids, size_t from) const;
  void merge_long(std::vector<TokenId>& ids, size_t from) const;

  BpeConfig config_;
  std::array<TokenId, 256> byte_ids_;  // byte-level: the token of a byte; byte fallback: <0xNN>; -1 if none
  MergeTable table_;
  std::unique_ptr<WordCache> cache_;
};

}  // namespace baton::text
