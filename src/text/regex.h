#pragma once
// Regex: one PCRE2 pattern (UTF, UCP, JIT where the CPU has it), for tokenizer files whose rules we have no hand-written scanner
// for. Requires: text is valid UTF-8 of at most kEncodeBytesMax. Guarantees: bounded work (kRegexStepsMax), else
// kResourceExhausted.
// Categories are those of Unicode 16 although PCRE2's data may be older: newer code points are shown to it as an older one of the
// same category and length. Immutable: any thread.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace baton::text {

struct Span {
  size_t begin = 0, end = 0;
};

class Regex {
 public:
  static Result<Regex> compile(std::string_view pattern);
  static Result<Regex> literal(std::string_view text);
  // Non-overlapping matches of text, left to right; empty ones are skipped.
  Result<std::vector<Span>> find_all(std::string_view text) const;

 private:
  struct Code;  // the compiled pattern
  explicit Regex(std::shared_ptr<const Code> code) : code_(std::move(code)) {}
  static Result<Regex> compile(std::string_view pattern, uint32_t options);
  std::shared_ptr<const Code> code_;
};

}  // namespace baton::text
