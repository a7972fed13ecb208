#include "text/scanner.h"

#include <array>

#include "text/unicode.h"

namespace baton::text {
namespace {

// What each ASCII byte is, so that plain text never decodes UTF-8.
constexpr std::array<CodeClass, 128> kAscii = [] {
  std::array<CodeClass, 128> t{};
  for (size_t c = 0; c < t.size(); ++c) {
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    bool space = c == ' ' || (c >= 9 && c <= 13);
    t[c] = letter ? kLetter : c >= '0' && c <= '9' ? kNumber : space ? kSpace : kOther;
  }
  return t;
}();

struct Glyph {
  CodeClass kind;
  uint32_t length;  // 0 at the end
};

class Scan {
 public:
  Scan(std::string_view s, std::vector<std::string_view>& out) : s_(s), out_(out) {}

  void gpt2() {
    for (size_t i = 0; i < s_.size();) {
      size_t end = contraction(i, false);
      if (end == i) end = spaced_run(i, false);
      if (end == i) end = whitespace(i, false);
      emit(i, end);
    }
  }

  void llama3(int digits_max) {
    for (size_t i = 0; i < s_.size();) {
      size_t end = contraction(i, true);
      if (end == i) end = word(i);
      if (end == i) end = number(i, digits_max);
      if (end == i) end = spaced_run(i, true);
      if (end == i) end = whitespace(i, true);
      emit(i, end);
    }
  }

  void digits() {
    size_t start = 0;
    for (size_t i = 0; i < s_.size();) {
      Glyph g = at(i);
      if (g.kind == kNumber || (g.kind == kOther && g.length > 1 && is_digits_only(code_point_at(s_, i).value))) {
        if (i > start) out_.push_back(s_.substr(start, i - start));
        out_.push_back(s_.substr(i, g.length));
        start = i + g.length;
      }
      i += g.length;
    }
    if (s_.size() > start) out_.push_back(s_.substr(start));
  }

 private:
  Glyph at(size_t i) const {
    if (i >= s_.size()) return {kOther, 0};
    auto b = static_cast<unsigned char>(s_[i]);
    if (b < 0x80) return {kAscii[b], 1};
    CodePoint c = code_point_at(s_, i);
    return {code_class(c.value), c.length};
  }
  bool newline(size_t i) const { return i < s_.size() && (s_[i] == '\n' || s_[i] == '\r'); }
  void emit(size_t& i, size_t end) {
    out_.push_back(s_.substr(i, end - i));
    i = end;
  }
  size_t run(size_t i, CodeClass kind) const {
    for (Glyph g = at(i); g.length > 0 && g.kind == kind; g = at(i)) i += g.length;
    return i;
  }

  // 's 't 're 've 'm 'll 'd. U+017F is an s to a regex that ignores case.
  size_t contraction(size_t i, bool any_case) const {
    if (s_[i] != '\'' || i + 1 >= s_.size()) return i;
    auto lower = [&](size_t k) {
      if (k >= s_.size()) return '\0';
      char c = s_[k];
      return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    };
    char a = lower(i + 1), b = lower(i + 2);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return i + 2;
    if ((a == 'r' || a == 'v') && b == 'e') return i + 3;
    if (a == 'l' && b == 'l') return i + 3;
    if (any_case && s_.substr(i + 1, 2) == "\xc5\xbf") return i + 3;
    return i;
  }

  // [^\r\n\p{L}\p{N}]?\p{L}+
  size_t word(size_t i) const {
    Glyph g = at(i);
    if (g.kind == kLetter) return run(i + g.length, kLetter);
    if (g.kind == kNumber || newline(i)) return i;
    size_t letters = i + g.length;
    size_t end = run(letters, kLetter);
    return end > letters ? end : i;
  }

  size_t number(size_t i, int digits_max) const {
    for (int n = 0; n < digits_max; ++n) {
      Glyph g = at(i);
      if (g.length == 0 || g.kind != kNumber) break;
      i += g.length;
    }
    return i;
  }

  // " ?" then a run of one class. With newlines_join: only the class "other", and CR/LF after it belong to it.
  size_t spaced_run(size_t i, bool newlines_join) const {
    size_t first = s_[i] == ' ' ? i + 1 : i;
    Glyph g = at(first);
    if (g.length == 0 || g.kind == kSpace || (newlines_join && g.kind != kOther)) return i;
    size_t end = run(first, g.kind);
    while (newlines_join && newline(end)) ++end;
    return end;
  }

  // \s*[\r\n]+ (with newlines_first) | \s+(?!\S) | \s+
  size_t whitespace(size_t i, bool newlines_first) const {
    size_t end = i, last = i, after_newline = i;
    for (Glyph g = at(i); g.length > 0 && g.kind == kSpace; g = at(end)) {
      last = end;
      end += g.length;
      if (newline(last)) after_newline = end;
    }
    if (newlines_first && after_newline > i) return after_newline;
    if (end == s_.size() || last == i) return end;
    return last;  // one whitespace is left to lead the next word
  }

  std::string_view s_;
  std::vector<std::string_view>& out_;
};

constexpr std::string_view kGpt2Source = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Source =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Source =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace

std::optional<ScanRule> known_regex(std::string_view pattern) {
  if (pattern == kGpt2Source) return ScanRule::kGpt2;
  if (pattern == kLlama3Source) return ScanRule::kLlama3;
  if (pattern == kQwen2Source) return ScanRule::kQwen2;
  return std::nullopt;
}

void scan(ScanRule rule, std::string_view text, std::vector<std::string_view>& out) {
  Scan scan(text, out);
  switch (rule) {
    case ScanRule::kGpt2:
      scan.gpt2();
      break;
    case ScanRule::kLlama3:
      scan.llama3(3);
      break;
    case ScanRule::kQwen2:
      scan.llama3(1);
      break;
    case ScanRule::kDigits:
      scan.digits();
      break;
  }
}

}  // namespace baton::text
