#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace baton::text {
namespace {

bool ends_with_word(std::string_view s) { return !s.empty() && is_word(code_point_at(s, code_point_before(s, s.size())).value); }
bool starts_with_word(std::string_view s) { return !s.empty() && is_word(code_point_at(s, 0).value); }

// Start of the whitespace that ends s.
size_t trailing_space(std::string_view s) {
  size_t i = s.size();
  while (i > 0) {
    size_t before = code_point_before(s, i);
    if (code_class(code_point_at(s, before).value) != kSpace) break;
    i = before;
  }
  return i;
}

size_t leading_space(std::string_view s) {
  size_t i = 0;
  while (i < s.size()) {
    CodePoint c = code_point_at(s, i);
    if (code_class(c.value) != kSpace) break;
    i += c.length;
  }
  return i;
}

}  // namespace

int32_t AddedTokens::child(int32_t node, unsigned char byte) const {
  for (auto [b, next] : nodes_[static_cast<size_t>(node)].children) {
    if (b == byte) return next;
  }
  return -1;
}

void AddedTokens::add(const AddedToken& token, std::string_view content) {
  if (content.empty()) return;
  int32_t node = 0;
  for (char c : content) {
    auto byte = static_cast<unsigned char>(c);
    int32_t next = child(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      nodes_.emplace_back();
      nodes_[static_cast<size_t>(node)].children.emplace_back(byte, next);
      if (node == 0) roots_[byte] = next;
    }
    node = next;
  }
  nodes_[static_cast<size_t>(node)].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
  length_.push_back(content.size());
}

int32_t AddedTokens::longest(std::string_view text, size_t at) const {
  int32_t found = -1;
  int32_t node = roots_[static_cast<unsigned char>(text[at])];
  for (size_t i = at + 1; node >= 0; ++i) {
    if (int32_t t = nodes_[static_cast<size_t>(node)].token; t >= 0) found = t;
    if (i >= text.size()) break;
    node = child(node, static_cast<unsigned char>(text[i]));
  }
  return found;
}

void AddedTokens::split(std::string_view text, bool take_special, std::vector<Part>& out) const {
  size_t done = 0;  // text before this is in out
  auto plain_up_to = [&](size_t end) {
    if (end > done) out.push_back({-1, text.substr(done, end - done)});
  };
  for (size_t i = 0; i < text.size() && !tokens_.empty();) {
    if (roots_[static_cast<unsigned char>(text[i])] < 0) {
      ++i;
      continue;
    }
    int32_t found = longest(text, i);
    if (found < 0) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    size_t begin = i, end = i + length_[static_cast<size_t>(found)];
    i = end;
    if (token.special && !take_special) continue;
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    if (token.lstrip) begin = trailing_space(text.substr(0, begin));
    if (token.rstrip) end += leading_space(text.substr(end));
    begin = std::max(begin, done);  // whitespace an earlier token took
    plain_up_to(begin);
    out.push_back({token.id, text.substr(begin, std::max(end, begin) - begin)});
    done = std::max(done, end);
  }
  plain_up_to(text.size());
}

}  // namespace baton::text
