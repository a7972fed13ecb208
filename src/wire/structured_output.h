#pragma once
// What an answer must be, in every spelling vLLM's users have: response_format, structured_outputs, and the older guided_*. One
// kind at a time. Values are passed on as sent; whether a schema or a regex is one, grammar/ says. Source: facts sheet
// "engine" 1.4.
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace baton::wire {

class Fields;

struct StructuredOutput {
  enum class Kind : uint8_t { kSchema, kJsonObject, kRegex, kChoice, kGrammar, kStructuralTag };
  Kind kind = Kind::kJsonObject;
  Json schema{};                                    // kSchema; kStructuralTag: the tag
  std::string text{};                               // kRegex, kGrammar
  std::vector<std::string> choices{};               // kChoice
  std::optional<std::string> whitespace_pattern{};  // of JSON: a regex
  bool any_whitespace = true;
};
void read_structured_output(Fields& fields, std::optional<StructuredOutput>& out);

}  // namespace baton::wire
