#include "grammar/regex.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/json.h"
#include "grammar/limits.h"

namespace baton::grammar {
namespace {

const CodeRanges kDigits{{'0', '9'}}, kWord{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, kSpaces{{'\t', '\r'}, {' ', ' '}},
    kLines{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

template <class... Args>
std::unexpected<Error> wrong(size_t at, const Args&... args) {
  return fail(Code::kInvalidArgument, args..., " at position ", at);
}

uint32_t code_point_at(std::string_view text, size_t& at) {
  const auto lead = static_cast<uint8_t>(text[at]);
  const size_t length = std::min<size_t>(lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4, text.size() - at);
  const uint32_t c = code_points(text.substr(at, length))[0];
  at += length;
  return c;
}

Result<uint32_t> hex_digits(std::string_view text, size_t& at, size_t n) {
  uint32_t value = 0;
  const std::string_view digits = text.substr(std::min(at, text.size()), n);
  const auto [end, bad] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  if (bad != std::errc{} || digits.size() != n || end != digits.data() + n) return wrong(at, "bad hexadecimal escape");
  at += n;
  return value;
}

// What follows a backslash: a set of code points. `at` is behind the backslash.
Result<CodeRanges> escape(std::string_view text, size_t& at) {
  if (at >= text.size()) return wrong(at, "a backslash at the end");
  const size_t begin = at;
  const char c = text[at];
  if (static_cast<uint8_t>(c) >= 0x80) {
    const uint32_t code = code_point_at(text, at);
    return CodeRanges{{code, code}};
  }
  ++at;
  const auto one = [](uint32_t code) { return CodeRanges{{code, code}}; };
  switch (c) {
    case 'd':
      return kDigits;
    case 'D':
      return others(kDigits);
    case 'w':
      return kWord;
    case 'W':
      return others(kWord);
    case 's':
      return kSpaces;
    case 'S':
      return others(kSpaces);
    case 'n':
      return one('\n');
    case 't':
      return one('\t');
    case 'r':
      return one('\r');
    case 'f':
      return one('\f');
    case 'v':
      return one('\v');
    case '0':
      return one(0);
    case 'x': {
      BATON_TRY(const uint32_t code, hex_digits(text, at, 2));
      return one(code);
    }
    case 'u': {
      if (at < text.size() && text[at] == '{') {
        const size_t end = text.find('}', at);
        if (end == std::string_view::npos || end - at > 7 || end == at + 1) return wrong(begin, "bad \\u{...}");
        ++at;
        BATON_TRY(const uint32_t code, hex_digits(text, at, end - at));
        ++at;
        return code <= 0x10FFFF ? one(code) : CodeRanges{};
      }
      BATON_TRY(const uint32_t code, hex_digits(text, at, 4));
      if (code < 0xD800 || code > 0xDBFF || text.substr(at, 2) != "\\u") return one(code);
      at += 2;
      BATON_TRY(const uint32_t low, hex_digits(text, at, 4));
      if (low < 0xDC00 || low > 0xDFFF) return wrong(begin, "half a surrogate pair");
      return one(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00));
    }
    default:
      if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return wrong(begin, "\\", c, " is not supported in a regex");
      return one(static_cast<uint8_t>(c));
  }
}

class Reader {
 public:
  Reader(Rules& rules, std::string_view text, const RegexOptions& options) : rules_(rules), text_(text), options_(options) {}

  Result<ExprId> whole() {
    std::vector<ExprId> branches;
    do {
      BATON_TRY(const ExprId branch, anchored());
      branches.push_back(branch);
    } while (take('|'));
    if (at_ < text_.size()) return wrong(at_, text_[at_] == ')' ? "unmatched )" : "$ is supported at the ends of a regex only");
    return rules_.alt(std::move(branches));
  }

 private:
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  ExprId chars(const CodeRanges& ranges) { return options_.chars ? options_.chars(rules_, ranges) : rules_.chars(ranges); }

  // A branch of the whole: the one place where ^ and $ may stand.
  Result<ExprId> anchored() {
    std::vector<ExprId> parts;
    const auto anything = [&] { return rules_.repeat(chars({{0, 0x10FFFF}}), 0, kNoEnd); };
    if (!take('^') && options_.search) parts.push_back(anything());
    while (take('^')) {
    }
    BATON_TRY(const ExprId body, branch(0));
    parts.push_back(body);
    const bool end = take('$');
    while (take('$')) {
    }
    if (!end && options_.search) parts.push_back(anything());
    return rules_.seq(std::move(parts));
  }

  Result<ExprId> alternatives(int depth) {
    if (depth > kNestingMax) return wrong(at_, "more than ", kNestingMax, " groups in each other");
    std::vector<ExprId> branches;
    do {
      BATON_TRY(const ExprId one, branch(depth));
      branches.push_back(one);
    } while (take('|'));
    return rules_.alt(std::move(branches));
  }

  Result<ExprId> branch(int depth) {
    std::vector<ExprId> parts;
    while (at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')') {
      if (text_[at_] == '$' && depth == 0) break;
      BATON_TRY(ExprId part, atom(depth));
      BATON_TRY(part, quantified(part));
      parts.push_back(part);
    }
    return rules_.seq(std::move(parts));
  }

  Result<ExprId> group(int depth) {
    const size_t begin = at_ - 1;
    if (take('?')) {
      if (take('P') || (text_.substr(at_, 1) == "<" && text_.substr(at_, 2) != "<=" && text_.substr(at_, 2) != "<!")) {
        const size_t end = text_.find('>', at_);
        if (text_.substr(at_, 1) != "<" || end == std::string_view::npos)
          return wrong(begin, "this group is not supported in a regex");
        at_ = end + 1;
      } else if (!take(':')) {
        const std::string_view kind = text_.substr(at_, 1);
        const bool looks = kind == "=" || kind == "!" || kind == "<";
        return wrong(begin, looks ? "look-around is" : "flags are", " not supported in a regex");
      }
    }
    BATON_TRY(const ExprId inside, alternatives(depth + 1));
    if (!take(')')) return wrong(begin, "( without )");
    return inside;
  }

  Result<ExprId> atom(int depth) {
    const size_t begin = at_;
    switch (text_[at_]) {
      case '(':
        ++at_;
        return group(depth);
      case '[': {
        BATON_TRY(const CodeRanges ranges, char_class(text_, at_));
        return chars(ranges);
      }
      case '.':
        ++at_;
        return chars(others(kLines));
      case '\\': {
        ++at_;
        BATON_TRY(const CodeRanges ranges, escape(text_, at_));
        return chars(ranges);
      }
      case '^':
      case '$':
        return wrong(begin, text_[at_], " is supported at the ends of a regex only");
      case '*':
      case '+':
      case '?':
        return wrong(begin, "nothing to repeat");
      default: {
        const uint32_t c = code_point_at(text_, at_);
        return chars({{c, c}});
      }
    }
  }

  std::optional<int32_t> number() { return count_at(text_, at_); }

  Result<ExprId> quantified(ExprId part) {
    for (bool again = true; again && at_ < text_.size();) {
      int32_t min = 0, max = kNoEnd;
      const size_t begin = at_;
      if (take('+')) {
        min = 1;
      } else if (take('?')) {
        max = 1;
      } else if (take('{')) {
        const auto low = number();
        const bool comma = take(',');
        const auto high = comma ? number() : low;
        if (!take('}') || (!low && !high)) {
          at_ = begin + 1;  // { is itself where no count follows
          if (begin + 1 < text_.size() && text_[begin + 1] >= '0' && text_[begin + 1] <= '9') return wrong(begin, "bad count");
          at_ = begin;
          return literal_brace(part);
        }
        min = low.value_or(0), max = high.value_or(kNoEnd);
        if (min > kRepeatMax || max > kRepeatMax) return wrong(begin, "a count over ", kRepeatMax);
        if (max != kNoEnd && min > max) return wrong(begin, "a count whose end is before its beginning");
      } else if (!take('*')) {
        return part;
      }
      if (text_.substr(at_, 1) == "+") return wrong(at_, "possessive repetition is not supported in a regex");
      take('?');  // lazy: the same texts
      part = rules_.repeat(part, min, max);
    }
    return part;
  }

  Result<ExprId> literal_brace(ExprId part) {
    ++at_;
    return rules_.seq({part, chars({{'{', '{'}})});
  }

  Rules& rules_;
  const std::string_view text_;
  const RegexOptions& options_;
  size_t at_ = 0;
};

}  // namespace

Result<CodeRanges> char_class(std::string_view text, size_t& at) {
  const size_t begin = at++;
  const bool negated = at < text.size() && text[at] == '^';
  at += negated;
  CodeRanges out;
  for (bool first = true; at < text.size() && (text[at] != ']' || first); first = false) {  // a ] that comes first is itself
    const auto one = [&]() -> Result<CodeRanges> {
      if (text[at] == '\\') {
        ++at;
        if (at < text.size() && text[at] == 'b') {
          ++at;
          return CodeRanges{{'\b', '\b'}};
        }
        return escape(text, at);
      }
      const uint32_t c = code_point_at(text, at);
      return CodeRanges{{c, c}};
    };
    const auto single = [](const CodeRanges& r) { return r.size() == 1 && r[0].first == r[0].last; };
    BATON_TRY(CodeRanges low, one());
    if (at + 1 < text.size() && text[at] == '-' && text[at + 1] != ']') {
      const size_t dash = at++;
      BATON_TRY(const CodeRanges high, one());
      if (!single(low) || !single(high) || low[0].first > high[0].first) return wrong(dash, "bad range in [...]");
      low[0].last = high[0].first;
    }
    out.insert(out.end(), low.begin(), low.end());
  }
  if (at >= text.size()) return wrong(begin, "[ without ]");
  ++at;
  out = sorted(std::move(out));
  return negated ? others(out) : out;
}

Result<ExprId> regex(Rules& rules, std::string_view pattern, const RegexOptions& options) {
  if (pattern.size() > kSourceBytesMax)
    return fail(Code::kInvalidArgument, "the regex is longer than ", kSourceBytesMax, " bytes");
  if (!valid_utf8(pattern)) return fail(Code::kInvalidArgument, "the regex is not UTF-8");
  return Reader(rules, pattern, options).whole();
}

}  // namespace baton::grammar
