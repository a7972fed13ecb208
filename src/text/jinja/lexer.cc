#include "text/jinja/lexer.h"

#include <algorithm>

#include "base/json.h"
#include "text/unicode.h"

namespace baton::text::jinja {
namespace {

bool is_space(char c) { return c == ' ' || (c >= 9 && c <= 13); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool is_name(char c) { return is_name_start(c) || is_digit(c); }

// CR LF and CR become LF; one newline at the very end is dropped.
std::string normalise_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out += '\n';
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(normalise_newlines(source)), s_(text_) {}

  Result<std::vector<Token>> run() {
    while (i_ < s_.size()) {
      size_t open = next_tag(i_);
      std::string_view data = s_.substr(i_, open - i_);
      if (open == std::string_view::npos) {
        add_text(s_.substr(i_));
        break;
      }
      char kind = s_[open + 1];
      char sign = open + 2 < s_.size() ? s_[open + 2] : '\0';
      if (sign == '-') {
        while (!data.empty() && is_space(data.back())) data.remove_suffix(1);
      } else if (sign != '+' && kind != '{') {
        data = strip_indent(data);
      }
      add_text(data);
      line_ += static_cast<int>(
          std::count(s_.begin() + static_cast<ptrdiff_t>(i_ + data.size()), s_.begin() + static_cast<ptrdiff_t>(open), '\n'));
      i_ = open + 2 + (sign == '-' || sign == '+' ? 1 : 0);
      if (kind == '#') {
        BATON_OK(comment());
      } else if (kind == '%' && raw_tag()) {
        BATON_OK(raw());
      } else {
        BATON_OK(tag(kind));
      }
    }
    add(Token::Kind::kEnd, "");
    return std::move(out_);
  }

 private:
  std::unexpected<Error> error(std::string_view what) const { return fail(Code::kInvalidArgument, "line ", line_, ": ", what); }
  void add(Token::Kind kind, std::string_view text) { out_.push_back({kind, std::string(text), line_}); }
  void add_text(std::string_view text) {
    if (!text.empty()) add(Token::Kind::kText, text);
    line_ += static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  }

  size_t next_tag(size_t from) const {
    for (size_t at = from; (at = s_.find('{', at)) != std::string_view::npos; ++at) {
      if (at + 1 < s_.size() && (s_[at + 1] == '%' || s_[at + 1] == '{' || s_[at + 1] == '#')) return at;
    }
    return std::string_view::npos;
  }

  // lstrip_blocks: whitespace between the start of the line and a block or comment goes.
  std::string_view strip_indent(std::string_view data) const {
    size_t line_start = data.rfind('\n');
    if (line_start == std::string_view::npos && !at_line_start_) return data;
    line_start = line_start == std::string_view::npos ? 0 : line_start + 1;
    return std::ranges::all_of(data.substr(line_start), is_space) ? data.substr(0, line_start) : data;
  }

  // After a closing delimiter: "-" takes all whitespace, trim_blocks one newline.
  void after_close(bool strip, bool trim_newline) {
    size_t from = i_;
    if (strip) {
      while (i_ < s_.size() && is_space(s_[i_])) ++i_;
    } else if (trim_newline && i_ < s_.size() && s_[i_] == '\n') {
      ++i_;
    }
    line_ +=
        static_cast<int>(std::count(s_.begin() + static_cast<ptrdiff_t>(from), s_.begin() + static_cast<ptrdiff_t>(i_), '\n'));
    at_line_start_ = i_ > from && s_[i_ - 1] == '\n';
  }

  Result<> comment() {
    size_t close = s_.find("#}", i_);
    if (close == std::string_view::npos) return error("a comment is not closed");
    char sign = close > i_ ? s_[close - 1] : '\0';
    line_ +=
        static_cast<int>(std::count(s_.begin() + static_cast<ptrdiff_t>(i_), s_.begin() + static_cast<ptrdiff_t>(close), '\n'));
    i_ = close + 2;
    after_close(sign == '-', sign != '+');
    return {};
  }

  // At "raw %}": moves past it.
  bool raw_tag() {
    size_t i = i_;
    while (i < s_.size() && is_space(s_[i])) ++i;
    if (!s_.substr(i).starts_with("raw")) return false;
    i += 3;
    while (i < s_.size() && is_space(s_[i])) ++i;
    bool strip = s_.substr(i).starts_with("-%}");
    if (!strip && !s_.substr(i).starts_with("%}")) return false;
    i_ = i + (strip ? 3 : 2);
    after_close(strip, false);
    return true;
  }

  Result<> raw() {
    for (size_t at = i_; (at = s_.find("{%", at)) != std::string_view::npos; at += 2) {
      size_t i = at + 2;
      bool strip_before = i < s_.size() && s_[i] == '-';
      if (i < s_.size() && (s_[i] == '-' || s_[i] == '+')) ++i;
      while (i < s_.size() && is_space(s_[i])) ++i;
      if (!s_.substr(i).starts_with("endraw")) continue;
      i += 6;
      while (i < s_.size() && is_space(s_[i])) ++i;
      bool strip = s_.substr(i).starts_with("-%}");
      if (!strip && !s_.substr(i).starts_with("%}")) continue;
      std::string_view data = s_.substr(i_, at - i_);
      while (strip_before && !data.empty() && is_space(data.back())) data.remove_suffix(1);
      if (!strip_before) data = strip_indent(data);
      add_text(data);
      i_ = i + (strip ? 3 : 2);
      after_close(strip, true);
      return {};
    }
    return error("{% raw %} is not closed");
  }

  // The tokens of one {% %} or {{ }}.
  Result<> tag(char kind) {
    bool block = kind == '%';
    std::string_view closer = block ? "%}" : "}}";
    add(block ? Token::Kind::kBlockBegin : Token::Kind::kVariableBegin, "");
    std::string open;  // brackets not closed yet: inside them }} is two dict ends
    for (;;) {
      while (i_ < s_.size() && is_space(s_[i_])) line_ += s_[i_++] == '\n';
      if (i_ >= s_.size()) return error(cat("expected ", closer, " before the end of the template"));
      std::string_view rest = s_.substr(i_);
      char sign = rest[0] == '-' || (block && rest[0] == '+') ? rest[0] : '\0';
      if (open.empty() && rest.substr(sign != '\0' ? 1 : 0).starts_with(closer)) {
        i_ += 2 + (sign != '\0' ? 1 : 0);
        add(block ? Token::Kind::kBlockEnd : Token::Kind::kVariableEnd, "");
        after_close(sign == '-', block && sign != '+');
        return {};
      }
      char c = rest[0];
      if (is_name_start(c)) {
        size_t n = 1;
        while (n < rest.size() && is_name(rest[n])) ++n;
        add(Token::Kind::kName, rest.substr(0, n));
        i_ += n;
      } else if (is_digit(c)) {
        number(rest);
      } else if (c == '"' || c == '\'') {
        BATON_OK(string(c));
      } else {
        BATON_OK(op(rest, open));
      }
    }
  }

  void number(std::string_view rest) {
    size_t n = 0;
    bool fraction = false;
    auto digits = [&] {
      while (n < rest.size() && (is_digit(rest[n]) || (rest[n] == '_' && n > 0 && is_digit(rest[n - 1])))) ++n;
    };
    digits();
    if (n + 1 < rest.size() && rest[n] == '.' && is_digit(rest[n + 1])) {
      fraction = true;
      ++n;
      digits();
    }
    if (n < rest.size() && (rest[n] == 'e' || rest[n] == 'E')) {
      size_t m = n + 1;
      if (m < rest.size() && (rest[m] == '+' || rest[m] == '-')) ++m;
      if (m < rest.size() && is_digit(rest[m])) {
        fraction = true;
        n = m;
        digits();
      }
    }
    std::string text(rest.substr(0, n));
    std::erase(text, '_');
    add(fraction ? Token::Kind::kFloat : Token::Kind::kInteger, text);
    i_ += n;
  }

  Result<> op(std::string_view rest, std::string& open) {
    static constexpr std::string_view kOperators[] = {"**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
                                                      ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", ".", ",", ":", "|", ";"};
    for (std::string_view o : kOperators) {
      if (!rest.starts_with(o)) continue;
      if (o == "(" || o == "[" || o == "{") open += o == "(" ? ')' : o == "[" ? ']' : '}';
      if (o == ")" || o == "]" || o == "}") {
        if (open.empty() || open.back() != o[0]) return error(cat("unexpected '", o, "'"));
        open.pop_back();
      }
      add(Token::Kind::kOperator, o);
      i_ += o.size();
      return {};
    }
    return error(cat("unexpected character ", json_string(replace_invalid_utf8(rest.substr(0, 1)))));
  }

  Result<> string(char quote) {
    std::string out;
    for (++i_; i_ < s_.size() && s_[i_] != quote; ++i_) {
      if (s_[i_] == '\n') ++line_;
      if (s_[i_] != '\\' || i_ + 1 >= s_.size()) {
        out += s_[i_];
        continue;
      }
      BATON_OK(escape(out));
    }
    if (i_ >= s_.size()) return error("a string is not closed");
    ++i_;
    add(Token::Kind::kString, out);
    return {};
  }

  // Python's string escapes; i_ is left on the last character of the escape.
  Result<> escape(std::string& out) {
    char c = s_[++i_];
    static constexpr std::string_view kNames = "nrtbfva0\\'\"", kValues("\n\r\t\b\f\v\a\0\\'\"", 11);
    if (size_t k = kNames.find(c); k != std::string_view::npos) {
      out += kValues[k];
      return {};
    }
    if (c == '\n') return {};  // a continued line
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {  // Python keeps what it does not know
      out += '\\';
      out += c;
      return {};
    }
    char32_t value = 0;
    for (size_t k = 1; k <= digits; ++k) {
      char h = i_ + k < s_.size() ? s_[i_ + k] : '\0';
      int d = is_digit(h) ? h - '0' : h >= 'a' && h <= 'f' ? h - 'a' + 10 : h >= 'A' && h <= 'F' ? h - 'A' + 10 : -1;
      if (d < 0 || value > 0x10ffff) return error("a string has a broken \\x or \\u escape");
      value = value * 16 + static_cast<char32_t>(d);
    }
    if (value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return error("a string escape is no character");
    append_utf8(out, value);
    i_ += digits;
    return {};
  }

  std::string text_;
  std::string_view s_;
  size_t i_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;  // what was cut before i_ ended in a newline
  std::vector<Token> out_;
};

}  // namespace

Result<std::vector<Token>> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace baton::text::jinja
