#include "grammar/grammar_text.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "base/json.h"
#include "grammar/limits.h"
#include "grammar/regex.h"

namespace baton::grammar {
namespace {

// Terminals that Lark's `common` offers.
constexpr std::pair<std::string_view, std::string_view> kCommon[] = {
    {"DIGIT", "[0-9]"},
    {"HEXDIGIT", "[0-9A-Fa-f]"},
    {"INT", "[0-9]+"},
    {"SIGNED_INT", "[+-]?[0-9]+"},
    {"DECIMAL", "[0-9]+\\.[0-9]*|\\.[0-9]+"},
    {"FLOAT", "[0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?"},
    {"SIGNED_FLOAT", "[+-]?([0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?)"},
    {"NUMBER", "[0-9]+([eE][+-]?[0-9]+)?|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?"},
    {"SIGNED_NUMBER", "[+-]?([0-9]+([eE][+-]?[0-9]+)?|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?)"},
    {"ESCAPED_STRING", "\"([^\"\\\\\\n]|\\\\[^\\n])*\""},
    {"LCASE_LETTER", "[a-z]"},
    {"UCASE_LETTER", "[A-Z]"},
    {"LETTER", "[A-Za-z]"},
    {"WORD", "[A-Za-z]+"},
    {"CNAME", "[_A-Za-z][_A-Za-z0-9]*"},
    {"WS_INLINE", "[ \\t]+"},
    {"WS", "[ \\t\\f\\r\\n]+"},
    {"CR", "\\r"},
    {"LF", "\\n"},
    {"NEWLINE", "(\\r?\\n)+"},
};

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name(char c) { return is_name_start(c) || (c >= '0' && c <= '9') || c == '-'; }

class TextReader {
 public:
  TextReader(Rules& rules, std::string_view text)
      : rules_(rules), text_(text), lark_(text.find("::=") == std::string_view::npos) {}

  Result<> read() {
    for (skip(true); at_ < text_.size(); skip(true)) {
      if (lark_ && text_[at_] == '%') {
        BATON_OK(directive());
      } else {
        BATON_OK(definition());
      }
    }
    const std::string_view first = lark_ ? "start" : "root";
    if (!names_.contains(first)) return fail(Code::kInvalidArgument, "the grammar has no rule \"", first, "\"");
    for (const auto& [name, rule] : names_) {
      if (rules_.definition(rule) < 0) return fail(Code::kInvalidArgument, "rule \"", name, "\" is used but not defined");
    }
    rules_.start = names_.find(first)->second;
    return {};
  }

 private:
  using Sequence = std::vector<ExprId>;

  template <class... Args>
  std::unexpected<Error> wrong(const Args&... args) const {
    const auto before = text_.substr(0, std::min(at_, text_.size()));
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    return fail(Code::kInvalidArgument, args..., " at line ", line, " of the grammar");
  }

  // White space and comments; line ends too where `lines`.
  void skip(bool lines) {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r'))) {
        ++at_;
      } else if (c == '#' || (lark_ && text_.substr(at_, 2) == "//")) {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else {
        return;
      }
    }
  }
  bool take(std::string_view s) {
    if (!text_.substr(at_).starts_with(s)) return false;
    at_ += s.size();
    return true;
  }
  std::string_view name() {
    const size_t begin = at_;
    if (at_ < text_.size() && is_name_start(text_[at_])) {
      while (at_ < text_.size() && is_name(text_[at_])) ++at_;
    }
    return text_.substr(begin, at_ - begin);
  }
  RuleId rule_of(std::string_view name) {
    const auto it = names_.find(name);
    return it != names_.end() ? it->second : names_.emplace(name, rules_.add(std::string(name))).first->second;
  }

  // A name and the sign behind it, as a new rule begins; `at_` stays.
  bool at_definition() {
    const size_t before = at_;
    if (lark_) take("?") || take("!");
    const bool named = !name().empty();
    if (lark_ && take(".")) number();
    skip(!lark_);
    const bool yes = named && (lark_ ? at_ < text_.size() && text_[at_] == ':' : text_.substr(at_, 3) == "::=");
    at_ = before;
    return yes;
  }

  Result<> definition() {
    if (lark_) take("?") || take("!");
    const std::string_view rule_name = name();
    if (rule_name.empty()) return wrong("a rule's name is expected");
    if (lark_ && take(".")) number();
    if (lark_ && text_.substr(at_, 1) == "{") return wrong("templates are not supported");
    skip(!lark_);
    if (!take(lark_ ? ":" : "::=")) return wrong("\"", lark_ ? ":" : "::=", "\" is expected behind a rule's name");
    const RuleId rule = rule_of(rule_name);
    if (rules_.definition(rule) >= 0) return wrong("rule \"", rule_name, "\" is defined twice");
    BATON_TRY(const std::vector<Sequence> ways, alternatives(0));
    // a: a x | y  is  a: y x*
    std::vector<ExprId> first, more;
    for (const Sequence& way : ways) {
      const bool itself = !way.empty() && rules_.at(way[0]).kind == Expr::Kind::kCall && rules_.at(way[0]).rule == rule;
      if (itself && way.size() == 1) continue;
      (itself ? more : first).push_back(rules_.seq({way.begin() + itself, way.end()}));
    }
    if (first.empty()) return wrong("rule \"", rule_name, "\" never ends");
    const ExprId begin = rules_.alt(std::move(first));
    rules_.define(rule, more.empty() ? begin : rules_.seq({begin, rules_.repeat(rules_.alt(std::move(more)), 0, kNoEnd)}));
    return {};
  }

  Result<> directive() {
    if (!take("%import")) {
      const std::string_view line = text_.substr(at_, std::min(text_.find_first_of(" \t\n", at_), text_.size()) - at_);
      return wrong(line, " is not supported");
    }
    skip(false);
    if (!take("common")) return wrong("only %import common is supported");
    const bool many = (skip(false), take("("));
    if (!many && !take(".")) return wrong("a terminal of common is expected");
    do {
      skip(many);
      const std::string_view terminal = name();
      const auto* known = std::ranges::find(kCommon, terminal, &std::pair<std::string_view, std::string_view>::first);
      if (known == std::end(kCommon)) return wrong("common.", terminal, " is not supported");
      skip(false);
      std::string_view as = terminal;
      if (take("->")) {
        skip(false);
        as = name();
      }
      BATON_TRY(const ExprId expr, regex(rules_, known->second));
      if (rules_.definition(rule_of(as)) < 0) rules_.define(rule_of(as), expr);
      skip(many);
    } while (many && take(","));
    if (many && !take(")")) return wrong(") is expected");
    return {};
  }

  // Up to the closing bracket or the next rule.
  Result<std::vector<Sequence>> alternatives(int depth) {
    if (depth > kNestingMax) return wrong("more than ", kNestingMax, " groups in each other");
    std::vector<Sequence> out;
    do {
      BATON_TRY(Sequence one, sequence(depth));
      out.push_back(std::move(one));
      skip(true);
    } while (take("|"));
    return out;
  }

  Result<ExprId> alternation(int depth) {
    BATON_TRY(const std::vector<Sequence> ways, alternatives(depth));
    std::vector<ExprId> parts;
    for (const Sequence& way : ways) parts.push_back(rules_.seq(way));
    return rules_.alt(std::move(parts));
  }

  Result<Sequence> sequence(int depth) {
    Sequence out;
    for (skip(true); at_ < text_.size(); skip(true)) {
      const char c = text_[at_];
      if (c == '|' || c == ')' || (lark_ && (c == ']' || c == '%')) || (depth == 0 && at_definition())) break;
      if (lark_ && take("->")) {  // how the tree calls it
        skip(false);
        name();
        continue;
      }
      BATON_TRY(ExprId item, element(depth));
      BATON_TRY(item, quantified(item));
      out.push_back(item);
    }
    return out;
  }

  Result<ExprId> element(int depth) {
    const char c = text_[at_];
    if (c == '"' || (c == '\'' && !lark_)) return literal();
    if (c == '(') {
      ++at_;
      if (text_.substr(at_, 1) == "=" || text_.substr(at_, 1) == "!") return wrong("look-ahead is not supported");
      BATON_TRY(const ExprId inside, alternation(depth + 1));
      if (!take(")")) return wrong("( without )");
      return inside;
    }
    if (c == '[' && lark_) {
      ++at_;
      BATON_TRY(const ExprId inside, alternation(depth + 1));
      if (!take("]")) return wrong("[ without ]");
      return rules_.optional(inside);
    }
    if (c == '[') {
      auto ranges = char_class(text_, at_);
      if (!ranges) return wrong(ranges.error().message);
      return rules_.chars(*std::move(ranges));
    }
    if (c == '/' && lark_) return pattern();
    if (c == '.' && !lark_) {
      ++at_;
      return rules_.chars({{0, 0x10FFFF}});
    }
    const std::string_view rule = name();
    if (rule.empty()) return wrong("unexpected ", json_string(text_.substr(at_, 1)));
    return rules_.call(rule_of(rule));
  }

  Result<std::string> quoted() {
    const char quote = text_[at_++];
    std::string out;
    while (at_ < text_.size() && text_[at_] != quote && text_[at_] != '\n') {
      if (text_[at_] != '\\') {
        out += text_[at_++];
        continue;
      }
      ++at_;
      const char c = at_ < text_.size() ? text_[at_++] : '\0';
      static constexpr std::string_view kFrom = "ntrfv0\\\"'/", kTo("\n\t\r\f\v\0\\\"'/", 10);
      const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
      if (digits == 0) {
        const size_t i = kFrom.find(c);
        if (i == std::string_view::npos) return wrong("unknown escape in a literal");
        out += kTo[i];
        continue;
      }
      uint32_t code = 0;
      const std::string_view hex = text_.substr(at_, digits);
      const auto [end, bad] = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
      if (bad != std::errc{} || hex.size() != digits || end != hex.data() + digits || code > 0x10FFFF ||
          (code >= 0xD800 && code < 0xE000))
        return wrong("bad escape in a literal");
      append_utf8(out, code);
      at_ += digits;
    }
    if (at_ >= text_.size() || text_[at_] != quote) return wrong("a literal without its end");
    ++at_;
    return out;
  }

  Result<ExprId> literal() {
    BATON_TRY(const std::string text, quoted());
    if (!lark_) return rules_.bytes(text);
    const size_t before = at_;
    skip(false);
    if (take("..")) {
      skip(false);
      if (text_.substr(at_, 1) != "\"") return wrong("a range is \"a\"..\"z\"");
      BATON_TRY(const std::string last, quoted());
      const auto low = code_points(text), high = code_points(last);
      if (low.size() != 1 || high.size() != 1 || low[0] > high[0]) return wrong("a range is \"a\"..\"z\"");
      return rules_.chars({{low[0], high[0]}});
    }
    at_ = before;
    if (at_ >= text_.size() || text_[at_] != 'i' || (at_ + 1 < text_.size() && is_name(text_[at_ + 1])))
      return rules_.bytes(text);
    ++at_;  // either case, of ASCII letters
    std::vector<ExprId> parts;
    for (const uint32_t c : code_points(text)) {
      const uint32_t folded = c | 0x20;
      if (folded >= 'a' && folded <= 'z')
        parts.push_back(rules_.chars({{folded, folded}, {folded - 0x20, folded - 0x20}}));
      else
        parts.push_back(rules_.chars({{c, c}}));
    }
    return rules_.seq(std::move(parts));
  }

  Result<ExprId> pattern() {
    const size_t begin = ++at_;
    while (at_ < text_.size() && text_[at_] != '/' && text_[at_] != '\n') at_ += text_[at_] == '\\' ? 2 : 1;
    if (at_ >= text_.size() || text_[at_] != '/') return wrong("a regex without its end");
    std::string inside(text_.substr(begin, at_ - begin));
    ++at_;
    if (at_ < text_.size() && is_name_start(text_[at_])) return wrong("flags of a regex are not supported");
    auto expr = regex(rules_, inside);
    if (!expr) return wrong(expr.error().message);
    return *expr;
  }

  std::optional<int32_t> number() { return count_at(text_, at_); }

  Result<ExprId> quantified(ExprId item) {
    while (at_ < text_.size()) {
      std::optional<int32_t> min = 0, max = kNoEnd;
      if (take("+")) {
        min = 1;
      } else if (take("?")) {
        max = 1;
      } else if (!lark_ && take("{")) {
        skip(false);
        min = number();
        skip(false);
        const bool comma = take(",");
        skip(false);
        max = comma ? number() : min;
        if (comma && !max) max = kNoEnd;
        if (comma && !min) min = 0;
        skip(false);
        if (!min || !take("}")) return wrong("bad count");
      } else if (lark_ && text_.substr(std::min(text_.find_first_not_of(" \t", at_), text_.size())).starts_with('~')) {
        skip(false);
        take("~");
        skip(false);
        min = number();
        max = take("..") ? number() : min;
        if (!min || !max) return wrong("bad count");
      } else if (!take("*")) {
        break;
      }
      if (*min > kRepeatMax || *max > kRepeatMax) return wrong("a count over ", kRepeatMax);
      if (*max != kNoEnd && *max < *min) return wrong("a count whose end is before its beginning");
      item = rules_.repeat(item, *min, *max);
    }
    return item;
  }

  Rules& rules_;
  const std::string_view text_;
  const bool lark_;
  size_t at_ = 0;
  std::map<std::string, RuleId, std::less<>> names_;
};

}  // namespace

Result<> grammar_text(Rules& rules, std::string_view text) {
  if (text.size() > kSourceBytesMax)
    return fail(Code::kInvalidArgument, "the grammar is longer than ", kSourceBytesMax, " bytes");
  if (!valid_utf8(text)) return fail(Code::kInvalidArgument, "the grammar is not UTF-8");
  return TextReader(rules, text).read();
}

}  // namespace baton::grammar
