#pragma once
// Vocabulary: a model's tokens as one tree of their bytes, in preorder, so that a walk which finds a byte impossible skips all
// tokens that share it. Made once a model; immutable: any thread.
// A node is reached from its parent by one byte; node i's subtree is [i, node(i).end). The root is not stored: [0, size()) are
// the nodes below it.
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

namespace baton::grammar {

class Vocabulary {
 public:
  struct Node {
    uint32_t end = 0;                   // behind its subtree
    uint32_t tokens = 0, n_tokens = 0;  // those that end here: ids() [tokens, tokens + n_tokens)
    uint16_t depth = 0;                 // bytes from the root, 1 or more
    uint8_t byte = 0;
  };
  // bytes_of(id): the token's bytes as they appear in the text, "" for one that must never be generated (special tokens), as are
  // those longer than kTokenBytesMax. strips_first_space: the first token of a text loses its leading space.
  Vocabulary(int32_t tokens, const std::function<std::string_view(int32_t)>& bytes_of, bool strips_first_space);

  int32_t tokens() const { return static_cast<int32_t>(text_begin_.size()) - 1; }
  size_t words() const { return (static_cast<size_t>(tokens()) + 63) / 64; }  // of a bitmask
  std::string_view bytes(int32_t token) const;                                // "": never generated
  uint32_t size() const { return static_cast<uint32_t>(nodes_.size()); }
  const Node& node(uint32_t i) const { return nodes_[i]; }
  const int32_t* ids() const { return ids_.data(); }
  uint32_t find(std::string_view prefix) const;  // the node reached by these bytes; size() if there is none
  size_t longest() const { return longest_; }
  bool strips_first_space() const { return strips_first_space_; }

 private:
  std::vector<Node> nodes_;
  std::vector<int32_t> ids_;
  std::string text_;
  std::vector<uint32_t> text_begin_;
  size_t longest_ = 0;
  bool strips_first_space_;
};

}  // namespace baton::grammar
