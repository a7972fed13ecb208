// functiongemma: <start_function_call>call:f{a:<escape>text<escape>,n:1,o:{k:[true]}}<end_function_call>, any number of them.
// FunctionGemma. A text between <escape>s that is JSON is taken for that, as vLLM does; arguments go out when all are there.
#include <algorithm>
#include <cctype>
#include <utility>

#include "base/json.h"
#include "parse/limits.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

constexpr std::string_view kOpen = "<start_function_call>", kClose = "<end_function_call>", kCall = "call:", kEscape = "<escape>";

// The arguments, braces and all, as JSON; nullopt if they are not of this form.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  std::optional<std::string> read() {
    std::string out;
    if (!value(out, 0)) return std::nullopt;
    space();
    return at_ == text_.size() ? std::optional(std::move(out)) : std::nullopt;
  }

 private:
  bool take(std::string_view s) {
    if (!text_.substr(at_).starts_with(s)) return false;
    at_ += s.size();
    return true;
  }
  void space() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }
  bool value(std::string& out, size_t depth) {
    space();
    if (depth > kNestingMax) return false;
    if (take(kEscape)) return escaped(out);
    if (take("{")) return members(out, depth, '}');
    if (take("[")) return members(out, depth, ']');
    const size_t from = at_;
    at_ = std::min(text_.find_first_of(",]}", at_), text_.size());
    return bare(text_.substr(from, at_ - from), out);
  }
  // JSON as it is, anything else as a string.
  static bool put(std::string_view text, bool is_json, std::string& out) {
    if (is_json)
      out += text;
    else if (valid_utf8(text))
      append_json_string(out, text);
    else
      return false;
    return true;
  }
  static bool bare(std::string_view word, std::string& out) {
    while (!word.empty() && is_space(word.back())) word.remove_suffix(1);
    const auto json = parse_json(word);
    return put(word, json && !json->is_object() && !json->is_array(), out);
  }
  bool escaped(std::string& out) {
    const size_t end = text_.find(kEscape, at_);
    if (end == std::string_view::npos) return false;
    const std::string_view inside = text_.substr(at_, end - at_);
    at_ = end + kEscape.size();
    return put(inside, parse_json(inside, {.depth_max = static_cast<int>(kNestingMax)}).has_value(), out);
  }
  bool members(std::string& out, size_t depth, char close) {
    out += close == '}' ? '{' : '[';
    for (bool first = true;; first = false) {
      space();
      if (take({&close, 1})) break;
      if (!first) {
        if (!take(",")) return false;
        out += ", ";
      }
      if (close == '}' && !key(out)) return false;
      if (!value(out, depth + 1)) return false;
    }
    out += close;
    return true;
  }
  bool key(std::string& out) {
    space();
    const bool quoted = take(kEscape);
    const size_t end = text_.find(quoted ? kEscape : std::string_view(":"), at_);
    if (end == std::string_view::npos || end == at_ || !valid_utf8(text_.substr(at_, end - at_))) return false;
    append_json_string(out, text_.substr(at_, end - at_));
    at_ = end + (quoted ? kEscape.size() : 0);
    out += ": ";
    return take(":");
  }

  std::string_view text_;
  size_t at_ = 0;
};

bool is_name(std::string_view s) {
  return !s.empty() && s.size() <= kNameBytesMax &&
         std::ranges::all_of(s, [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.'; });
}

class FunctionGemma final : public ToolParser {
 public:
  void finish(Events& out) override {
    if (!in_call_) return content(open_.take(), out);
    broken_ = true;
    content(raw_, out);
  }

 private:
  void step(char c, Events& out) override {
    std::string plain;
    if (!in_call_) {
      in_call_ = open_.feed(c, plain) >= 0;
      if (in_call_) raw_ = kOpen;
      return content(plain, out);
    }
    raw_ += c;
    const bool closed = close_.feed(c, plain) >= 0;
    if (raw_.size() > kCallBytesMax) {
      in_call_ = false;
      return give_up(out);
    }
    if (!closed) return;
    in_call_ = false;
    if (!call(std::string_view(raw_).substr(kOpen.size(), raw_.size() - kOpen.size() - kClose.size()), out)) return give_up(out);
    raw_.clear();
    after_call();
  }
  static bool call(std::string_view text, Events& out) {
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    const size_t brace = text.find('{');
    if (!text.starts_with(kCall) || brace == std::string_view::npos || !is_name(text.substr(kCall.size(), brace - kCall.size())))
      return false;
    const auto arguments = Reader(text.substr(brace)).read();
    if (!arguments) return false;
    append(out, Event::Kind::kCall, text.substr(kCall.size(), brace - kCall.size()));
    append(out, Event::Kind::kArguments, *arguments);
    return true;
  }

  bool in_call_ = false;
  TagScanner open_{kOpen}, close_{kClose};
};

}  // namespace

std::unique_ptr<ToolParser> make_functiongemma(const Json&) { return std::make_unique<FunctionGemma>(); }

}  // namespace baton::parse
