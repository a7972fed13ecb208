#include "parse/python_literal.h"

#include <charconv>

#include "base/json.h"
#include "parse/event.h"
#include "parse/limits.h"

namespace baton::parse {
namespace {

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  std::optional<std::string> read() {
    std::string out;
    if (!value(out, 0)) return std::nullopt;
    space();
    if (at_ != text_.size()) return std::nullopt;
    return out;
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (peek() != c || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }
  void space() {
    while (is_space(peek())) ++at_;
  }
  bool value(std::string& out, size_t depth) {
    space();
    if (depth > kNestingMax) return false;
    const char c = peek();
    if (c == '\'' || c == '"') return string(out);
    if (c == '[') return items(out, depth, ']');
    if (c == '{') return items(out, depth, '}');
    return word(out);
  }
  // A list, or a dict: [a, b,] {k: v,}
  bool items(std::string& out, size_t depth, char close) {
    out += text_[at_++];
    for (bool first = true;; first = false) {
      space();
      if (take(close)) break;
      if (!first) {
        if (!take(',')) return false;
        space();
        if (take(close)) break;
        out += ", ";
      }
      if (close == '}' && !key(out)) return false;
      if (!value(out, depth + 1)) return false;
    }
    out += close;
    return true;
  }
  bool key(std::string& out) {
    if (peek() == '\'' || peek() == '"') {
      if (!string(out)) return false;
    } else {
      std::string number;
      if (!word(number)) return false;
      out += json_string(number);
    }
    space();
    out += ": ";
    return take(':');
  }
  bool word(std::string& out) {
    const size_t from = at_;
    while (at_ < text_.size() && std::string_view(",:]} \n\t\r").find(text_[at_]) == std::string_view::npos) ++at_;
    const std::string_view w = text_.substr(from, at_ - from);
    if (w == "True" || w == "true") return out += "true", true;
    if (w == "False" || w == "false") return out += "false", true;
    if (w == "None" || w == "null") return out += "null", true;
    const auto number = parse_json(w);  // what Python writes as a number is a JSON number, but for 1. and .5 and 1_000
    if (!number || !number->is_number()) return false;
    out += w;
    return true;
  }
  bool string(std::string& out) {
    const char quote = text_[at_++];
    std::string bytes;
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == quote) {
        if (!valid_utf8(bytes)) return false;
        append_json_string(out, bytes);
        return true;
      }
      if (c == '\n') return false;
      if (c != '\\')
        bytes += c;
      else if (!escape(bytes))
        return false;
    }
    return false;
  }
  bool escape(std::string& out) {
    if (at_ >= text_.size()) return false;
    const char c = text_[at_++];
    constexpr std::string_view kFrom = "\\'\"nrtbfav0", kTo("\\'\"\n\r\t\b\f\a\v\0", 11);
    if (const size_t i = kFrom.find(c); i != std::string_view::npos) return out += kTo[i], true;
    if (c == '\n') return true;  // a line goes on
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) return out += '\\', out += c, true;  // as Python: an unknown escape stays
    uint32_t code = 0;
    const std::string_view hex = text_.substr(at_, digits);
    const auto [end, problem] = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
    if (hex.size() != digits || end != hex.data() + digits || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
    at_ += digits;
    append_utf8(out, code);
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

std::optional<std::string> python_to_json(std::string_view literal) { return Reader(literal).read(); }

}  // namespace baton::parse
