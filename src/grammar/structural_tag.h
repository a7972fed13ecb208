#pragma once
// A structural tag as rules: text in which some parts must be so, told apart by the strings around them. Both forms that vLLM
// takes: {"structures": [{"begin", "schema", "end"}...], "triggers": [...]}, and {"format": {"type": ...}} of const_string,
// json_schema, regex, grammar, any_text, sequence, or, optional, plus, star, repeat, tag, triggered_tags, tags_with_separator.
// What else there is (single tokens, budgets, other styles than JSON) is an error that names it. Strings are text: a special
// token of the vocabulary is never written under a constraint. Source: XGrammar's documentation of structural tags.
#include "grammar/json_rules.h"

namespace baton::grammar {

Result<ExprId> structural_tag(JsonRules& json, const Json& tag);

}  // namespace baton::grammar
