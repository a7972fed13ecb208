#pragma once
// Rules: the one form that every front end (schema.h, regex.h, grammar_text.h) writes and automaton.h reads: rules that name each
// other, each an expression over bytes and code points. An arena: expressions are numbers, and shared ones are written once.
// Guarantees: never more than kExprsMax nodes (full() is true beyond them, and the expressions made then mean nothing).
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace baton::grammar {

struct CodeRange {
  uint32_t first = 0, last = 0;  // inclusive; surrogates in it are no code points and never match
};
using CodeRanges = std::vector<CodeRange>;
CodeRanges sorted(CodeRanges ranges);                         // ascending, apart from each other
CodeRanges others(const CodeRanges& ranges);                  // all code points but these
CodeRanges common(const CodeRanges& a, const CodeRanges& b);  // in both
bool contains(const CodeRanges& ranges, uint32_t code_point);
std::vector<uint32_t> code_points(std::string_view utf8);            // of valid UTF-8
std::optional<int32_t> count_at(std::string_view text, size_t& at);  // the decimal number there, and goes behind it

using ExprId = int32_t;
using RuleId = int32_t;
constexpr int32_t kNoEnd = -1;

// A string that free text waits for, and what must follow it; none: the string may not come.
struct FreeMark {
  std::string text;  // UTF-8, not empty
  std::optional<ExprId> part{};
};

struct Expr {
  enum class Kind : uint8_t { kBytes, kChars, kSeq, kAlt, kRepeat, kCall, kFree };
  Kind kind = Kind::kBytes;
  std::string bytes{};            // kBytes: these; "" is the empty word
  CodeRanges chars{};             // kChars: one of these, as UTF-8; none = nothing matches
  std::vector<ExprId> parts{};    // kSeq, kAlt; kRepeat: one
  int32_t min = 0, max = 0;       // kRepeat; max kNoEnd = any number
  RuleId rule = -1;               // kCall
  std::vector<FreeMark> marks{};  // kFree
  bool once = false;              // kFree: nothing follows the first part
};

class Rules {
 public:
  ExprId bytes(std::string_view text);
  ExprId chars(CodeRanges ranges);
  ExprId seq(std::vector<ExprId> parts);
  ExprId alt(std::vector<ExprId> parts);  // none = nothing matches
  ExprId repeat(ExprId part, int32_t min, int32_t max);
  ExprId optional(ExprId part) { return repeat(part, 0, 1); }
  ExprId call(RuleId rule);
  // Any text, which may end anywhere; behind the first place where a mark is whole comes its part, and then free text again.
  ExprId free(std::vector<FreeMark> marks, bool once);
  RuleId add(std::string name);  // to be defined
  void define(RuleId rule, ExprId expr) { defined_[static_cast<size_t>(rule)] = expr; }
  ExprId rule(std::string name, ExprId expr);  // adds, defines and calls it

  const Expr& at(ExprId id) const { return exprs_[static_cast<size_t>(id)]; }
  ExprId definition(RuleId rule) const { return defined_[static_cast<size_t>(rule)]; }  // -1: none yet
  const std::string& name(RuleId rule) const { return names_[static_cast<size_t>(rule)]; }
  size_t size() const { return names_.size(); }
  bool full() const { return full_; }

  RuleId start = 0;

 private:
  ExprId push(Expr expr);
  std::vector<Expr> exprs_;
  std::vector<ExprId> defined_;
  std::vector<std::string> names_;
  bool full_ = false;
};

}  // namespace baton::grammar
