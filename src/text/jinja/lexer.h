#pragma once
// Lexer: template source to tokens, with Jinja's whitespace rules as Hugging Face sets them: trim_blocks, lstrip_blocks, and no
// newline kept at the end. Source: Jinja documentation, "Whitespace Control"; facts sheet "engine" 4.6.
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace baton::text::jinja {

struct Token {
  enum class Kind : uint8_t {
    kText,           // template data, whitespace control already applied
    kBlockBegin,     // {%
    kBlockEnd,       // %}
    kVariableBegin,  // {{
    kVariableEnd,    // }}
    kName,
    kString,  // escapes resolved
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  } kind;
  std::string text;
  int line;
};

Result<std::vector<Token>> tokenize(std::string_view source);

}  // namespace baton::text::jinja
