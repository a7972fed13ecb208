#pragma once
// A regular expression as rules. Takes what the usual dialects share: literals, classes, . \d \w \s and their opposites, groups,
// | * + ? {m,n} (lazy forms too: they read the same texts), \x \u escapes, ^ and $ at the ends of the whole or of its branches.
// Look-around, back references, word boundaries, Unicode properties and flags are refused by name. Code points, not bytes.
#include <functional>

#include "base/result.h"
#include "grammar/rules.h"

namespace baton::grammar {

// How one of these code points is written; by default as itself.
using WriteChars = std::function<ExprId(Rules&, const CodeRanges&)>;

struct RegexOptions {
  bool search = false;  // the text contains a match, rather than is one
  WriteChars chars{};
};
Result<ExprId> regex(Rules& rules, std::string_view pattern, const RegexOptions& options = {});

// [...] at text[at], read up to its end; `at` is moved behind it.
Result<CodeRanges> char_class(std::string_view text, size_t& at);

}  // namespace baton::grammar
