#pragma once
// TagScanner: finds the first of some tags in text that comes byte by byte, holding back only what may still become one.
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace baton::parse {

class TagScanner {
 public:
  TagScanner(std::initializer_list<std::string_view> tags)
      : tags_(tags) {}  // none empty, none the beginning of another; not copied
  TagScanner() = default;
  void add_tag(std::string_view tag) { tags_.push_back(tag); }  // before the first byte

  // The index of the tag that c completes, else -1. Bytes that are no part of a tag are appended to `plain`.
  int feed(char c, std::string& plain) {
    held_ += c;
    while (!held_.empty()) {
      for (size_t i = 0; i < tags_.size(); ++i) {
        if (!tags_[i].starts_with(held_)) continue;
        if (tags_[i].size() > held_.size()) return -1;
        held_.clear();
        return static_cast<int>(i);
      }
      plain += held_.front();
      held_.erase(0, 1);
    }
    return -1;
  }
  std::string take() { return std::exchange(held_, {}); }  // what is held back

 private:
  std::vector<std::string_view> tags_;
  std::string held_;
};

}  // namespace baton::parse
