#include "grammar/rules.h"

#include <algorithm>
#include <charconv>

#include "grammar/limits.h"

namespace baton::grammar {

CodeRanges sorted(CodeRanges ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const CodeRange& a, const CodeRange& b) { return a.first < b.first; });
  CodeRanges out;
  for (const CodeRange& r : ranges) {
    if (!out.empty() && r.first <= out.back().last + 1)
      out.back().last = std::max(out.back().last, r.last);
    else
      out.push_back(r);
  }
  return out;
}

CodeRanges others(const CodeRanges& ranges) {
  CodeRanges out;
  uint32_t next = 0;
  for (const CodeRange& r : sorted(ranges)) {
    if (r.first > next) out.push_back({next, r.first - 1});
    next = r.last + 1;
  }
  if (next <= 0x10FFFF) out.push_back({next, 0x10FFFF});
  return out;
}

CodeRanges common(const CodeRanges& a, const CodeRanges& b) {
  CodeRanges out;
  for (const CodeRange& x : a) {
    for (const CodeRange& y : b) {
      const uint32_t first = std::max(x.first, y.first), last = std::min(x.last, y.last);
      if (first <= last) out.push_back({first, last});
    }
  }
  return sorted(std::move(out));
}

bool contains(const CodeRanges& ranges, uint32_t c) {
  return std::any_of(ranges.begin(), ranges.end(), [c](const CodeRange& r) { return r.first <= c && c <= r.last; });
}

std::optional<int32_t> count_at(std::string_view text, size_t& at) {
  int32_t n = 0;
  const auto [end, bad] = std::from_chars(text.data() + at, text.data() + text.size(), n);
  if (bad != std::errc{} || n < 0) return std::nullopt;
  at = static_cast<size_t>(end - text.data());
  return n;
}

std::vector<uint32_t> code_points(std::string_view utf8) {
  std::vector<uint32_t> out;
  for (size_t i = 0; i < utf8.size();) {
    const auto lead = static_cast<uint8_t>(utf8[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint32_t c = length == 1 ? lead : lead & (0x7Fu >> length);
    for (size_t k = 1; k < length && i + k < utf8.size(); ++k) c = c << 6 | (static_cast<uint8_t>(utf8[i + k]) & 0x3Fu);
    out.push_back(c);
    i += length;
  }
  return out;
}

ExprId Rules::push(Expr expr) {
  if (exprs_.size() >= kExprsMax) {
    full_ = true;
    return 0;
  }
  exprs_.push_back(std::move(expr));
  return static_cast<ExprId>(exprs_.size() - 1);
}

ExprId Rules::bytes(std::string_view text) { return push({.bytes = std::string(text)}); }
ExprId Rules::chars(CodeRanges ranges) { return push({.kind = Expr::Kind::kChars, .chars = sorted(std::move(ranges))}); }

ExprId Rules::seq(std::vector<ExprId> parts) {
  if (parts.size() == 1) return parts[0];
  return push({.kind = Expr::Kind::kSeq, .parts = std::move(parts)});
}

ExprId Rules::alt(std::vector<ExprId> parts) {
  if (parts.size() == 1) return parts[0];
  return push({.kind = Expr::Kind::kAlt, .parts = std::move(parts)});
}

ExprId Rules::repeat(ExprId part, int32_t min, int32_t max) {
  return push({.kind = Expr::Kind::kRepeat, .parts = {part}, .min = min, .max = max});
}

ExprId Rules::call(RuleId rule) { return push({.kind = Expr::Kind::kCall, .rule = rule}); }

ExprId Rules::free(std::vector<FreeMark> marks, bool once) {
  return push({.kind = Expr::Kind::kFree, .marks = std::move(marks), .once = once});
}

RuleId Rules::add(std::string name) {
  names_.push_back(std::move(name));
  defined_.push_back(-1);
  full_ |= names_.size() > kExprsMax;
  return static_cast<RuleId>(names_.size() - 1);
}

ExprId Rules::rule(std::string name, ExprId expr) {
  const RuleId id = add(std::move(name));
  define(id, expr);
  return call(id);
}

}  // namespace baton::grammar
