#pragma once
// Constraint: what a request may ask its answer to be, one value for every front end, and compile(), which makes it ready to
// walk. A front end's work is bounded by limits.h; it runs on an I/O thread. Source: facts sheet "engine" 1.4, 1.6.
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "grammar/compiled.h"
#include "grammar/json_rules.h"

namespace baton::grammar {

struct Tool {
  std::string name;
  Json parameters;  // its schema; null = any object
};

struct Constraint {
  enum class Kind : uint8_t { kSchema, kJsonObject, kRegex, kChoice, kGrammar, kCalls, kArguments, kStructuralTag };
  Kind kind = Kind::kJsonObject;
  Json schema{};                       // kSchema; kStructuralTag: the tag
  std::string text{};                  // kRegex, kGrammar
  std::vector<std::string> choices{};  // kChoice
  std::vector<Tool> tools{};           // kCalls: a list of {"name", "parameters"} of these; kArguments: the arguments of the one
  bool one_call = false;               // kCalls: a list of one
  bool harmony = false;                // in that format (harmony.h): a vocabulary with its special tokens; calls are one call
  JsonStyle style{};                   // of the JSON kinds
};

std::string cache_key(const Constraint& constraint);  // equal keys mean equal constraints
// kInvalidArgument: what is wrong with it, or not supported.
Result<Rules> rules_of(const Constraint& constraint);
Result<std::shared_ptr<const Compiled>> compile(const Constraint& constraint, std::shared_ptr<const Vocabulary> vocabulary);

}  // namespace baton::grammar
