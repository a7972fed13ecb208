#pragma once
// A call's parameter that the model wrote as bare text, as JSON by the type that the request's tool declares for it, as vLLM
// converts it. What does not fit its type is a string. Pure.
#include <string>
#include <string_view>

#include "base/json.h"

namespace baton::parse {

// undeclared: the type of what no tool declares; "any": JSON where it can be, else text without the white space around it.
std::string parameter_json(const Json& tools, std::string_view function, std::string_view parameter, std::string_view value,
                           std::string_view undeclared = "string");

// The same, a value at a time: what the tool says about its parameters, about a member of what is described so, and the value by
// that. A schema is nullptr where there is none.
const Json* parameters_schema(const Json& tools, std::string_view function);
const Json* member_schema(const Json* schema, std::string_view name);
std::string value_json(const Json* schema, std::string_view value, std::string_view undeclared = "string");

}  // namespace baton::parse
