#pragma once
// A vocabulary for tests: every byte, and longer tokens that straddle whatever a rule may end at.
#include <string>

#include "base/prng.h"
#include "grammar/walker.h"

namespace baton::grammar::testing {

inline std::vector<std::string> test_tokens(size_t more = 300) {
  std::vector<std::string> out{""};  // id 0: a special token
  for (int b = 0; b < 256; ++b) out.emplace_back(1, static_cast<char>(b));
  for (const char* s : {"{\"",      "\":",        "\": ",    "\", \"", "\"}",    "\"}\n",  "\"]",   "[\"",        "[{\"", "}]",
                        "},{",      "}, {",       "]}",      "true",   "false",  "null",   " the",  "hello",      "123",  "0.5",
                        "é",        "日本",       "\\n",     "\\\"",   "\\u00",  "name",   "age",   "kind\": \"", "    ", "\n  ",
                        "</think>", "</think>\n", "<think>", "think>", "SELECT", " from ", "\"a\"", "aaaa",       "Ab1"})
    out.emplace_back(s);
  Prng prng(7);
  constexpr std::string_view kLetters = "\"\"\":,{}[] ab10.-\n\\x";
  while (out.size() < 290 + more) {
    std::string token;
    for (uint64_t n = 2 + prng.below(4); n > 0; --n) token += kLetters[prng.below(kLetters.size())];
    out.push_back(token);
  }
  return out;
}

inline std::shared_ptr<const Vocabulary> vocabulary_of(const std::vector<std::string>& tokens, bool strips_first_space = false) {
  return std::make_shared<Vocabulary>(
      static_cast<int32_t>(tokens.size()), [&](int32_t id) { return std::string_view(tokens[static_cast<size_t>(id)]); },
      strips_first_space);
}

inline bool bit(const Mask& mask, int32_t token) { return (mask[static_cast<size_t>(token) / 64] >> (token % 64) & 1) != 0; }

}  // namespace baton::grammar::testing
