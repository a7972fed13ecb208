#include "grammar/vocabulary.h"

#include <algorithm>

#include "grammar/limits.h"

namespace baton::grammar {

Vocabulary::Vocabulary(int32_t tokens, const std::function<std::string_view(int32_t)>& bytes_of, bool strips_first_space)
    : strips_first_space_(strips_first_space) {
  std::vector<int32_t> order;
  for (int32_t id = 0; id < tokens; ++id) {
    text_begin_.push_back(static_cast<uint32_t>(text_.size()));
    const std::string_view bytes = bytes_of(id);
    if (bytes.empty() || bytes.size() > kTokenBytesMax) continue;
    text_ += bytes;
    longest_ = std::max(longest_, bytes.size());
    order.push_back(id);
  }
  text_begin_.push_back(static_cast<uint32_t>(text_.size()));
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const int by_text = bytes(a).compare(bytes(b));  // as unsigned bytes
    return by_text != 0 ? by_text < 0 : a < b;
  });
  std::vector<uint32_t> path;  // nodes from the root to the token before
  const auto leave = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) nodes_[path.back()].end = size();
  };
  for (const int32_t id : order) {
    const std::string_view mine = bytes(id);
    size_t shared = 0;
    while (shared < path.size() && shared < mine.size() && nodes_[path[shared]].byte == static_cast<uint8_t>(mine[shared]))
      ++shared;
    leave(shared);
    for (size_t i = shared; i < mine.size(); ++i) {
      path.push_back(size());
      nodes_.push_back({.tokens = static_cast<uint32_t>(ids_.size()),
                        .depth = static_cast<uint16_t>(i + 1),
                        .byte = static_cast<uint8_t>(mine[i])});
    }
    Node& node = nodes_[path.back()];
    if (node.n_tokens == 0) node.tokens = static_cast<uint32_t>(ids_.size());
    ++node.n_tokens;
    ids_.push_back(id);
  }
  leave(0);
}

std::string_view Vocabulary::bytes(int32_t token) const {
  const auto i = static_cast<size_t>(token);
  return std::string_view(text_).substr(text_begin_[i], text_begin_[i + 1] - text_begin_[i]);
}

uint32_t Vocabulary::find(std::string_view prefix) const {
  uint32_t begin = 0, end = size(), found = size();
  for (const char c : prefix) {
    for (found = begin; found < end && nodes_[found].byte != static_cast<uint8_t>(c);) found = nodes_[found].end;
    if (found >= end) return size();
    begin = found + 1;
    end = nodes_[found].end;
  }
  return found;
}

}  // namespace baton::grammar
