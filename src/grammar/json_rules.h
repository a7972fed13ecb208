#pragma once
// JsonRules: JSON itself as rules, each written once and shared: the parts from which schema.cc puts constraints together.
#include <optional>
#include <string>

#include "base/json.h"
#include "grammar/regex.h"

namespace baton::grammar {

struct JsonStyle {
  bool any_whitespace = true;                          // false: ", " and ": ", nothing elsewhere
  std::optional<std::string> whitespace_pattern = {};  // a regex for what may stand between tokens
};

class JsonRules {
 public:
  static Result<JsonRules> make(Rules& rules, const JsonStyle& style);

  ExprId space() { return rules_->call(space_); }  // between two tokens
  ExprId comma();
  ExprId colon();
  ExprId string() { return rules_->call(string_); }
  ExprId number() { return rules_->call(number_); }
  ExprId integer() { return rules_->call(integer_); }
  ExprId value() { return rules_->call(value_); }
  ExprId object() { return rules_->call(object_); }
  ExprId array() { return rules_->call(array_); }
  ExprId character() { return rules_->call(character_); }  // of a string, escapes included
  ExprId boolean() { return rules_->alt({rules_->bytes("true"), rules_->bytes("false")}); }
  ExprId null() { return rules_->bytes("null"); }
  ExprId literal(const Json& value);  // that value, an object's members in the order given
  ExprId quoted(std::string_view text) { return rules_->bytes(json_string(text)); }
  // `{` members `}` with the space around them; members written by the caller, which may be empty where `empty` says so.
  ExprId braces(char open, ExprId members, char close, bool may_be_empty);
  // One of these code points as it stands in a string: control characters, " and \ escaped.
  static ExprId chars(Rules& rules, const CodeRanges& ranges);
  Rules& rules() { return *rules_; }

 private:
  explicit JsonRules(Rules& rules) : rules_(&rules) {}
  void write_strings();
  void write_values();
  Rules* rules_;
  JsonStyle style_;
  RuleId space_ = 0, string_ = 0, character_ = 0, number_ = 0, integer_ = 0, value_ = 0, object_ = 0, array_ = 0;
};

std::string json_text(const Json& value);  // compact; the same text for the same value

}  // namespace baton::grammar
