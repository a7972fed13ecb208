#pragma once
// A JSON Schema (draft 2020-12, and what older drafts wrote for the same) as rules: texts that are JSON and satisfy it. Object
// members come in the schema's order, and only those it names unless additionalProperties says otherwise, as vLLM's back ends do;
// both leave out texts the schema would allow and let in none that it does not. A keyword that would change what is allowed
// and is not done here is an error that names it and where it stands.
// Source: json-schema.org 2020-12 core and validation; facts sheet "engine" 1.4.
#include "grammar/json_rules.h"

namespace baton::grammar {

Result<ExprId> schema(JsonRules& json, const Json& root);

// The schema that allows what both do. kUnimplemented: not expressible as one.
Result<Json> merge_schemas(const Json& a, const Json& b);

}  // namespace baton::grammar
