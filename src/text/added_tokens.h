#pragma once
// AddedTokens: finds the tokens that are cut out of text before it is normalised and split (<|im_start|>, <tool_call>, ...).
// Leftmost-longest, as Hugging Face: a token may take the whitespace beside it (lstrip, rstrip) or demand word borders
// (single_word). Guarantees: one pass, at most kTokenBytesMax steps a byte. Immutable after build: any thread.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/regex.h"
#include "text/tokenizer.h"

namespace baton::text {

struct AddedToken {
  TokenId id = -1;
  std::string content = {};
  bool special = false, single_word = false, lstrip = false, rstrip = false;
  bool normalized = false;  // matched in the normalised text
};

class AddedTokens {
 public:
  struct Part {
    TokenId id;  // -1: ordinary text
    std::string_view text;
  };
  void add(const AddedToken& token, std::string_view content);
  bool empty() const { return tokens_.empty(); }
  // Appends text cut at its added tokens, empty parts left out. take_special false: special tokens stay text.
  void split(std::string_view text, bool take_special, std::vector<Part>& out) const;

 private:
  struct Node {  // of a byte trie
    int32_t token = -1;
    std::vector<std::pair<unsigned char, int32_t>> children;
  };
  int32_t child(int32_t node, unsigned char byte) const;
  // The longest token at text[at], -1 if none.
  int32_t longest(std::string_view text, size_t at) const;

  std::vector<AddedToken> tokens_;
  std::vector<size_t> length_;  // bytes of each token's matched content
  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<int32_t, 256> roots_ = [] {
    std::array<int32_t, 256> r;
    r.fill(-1);
    return r;
  }();
};

}  // namespace baton::text
