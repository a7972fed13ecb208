#pragma once
// parameter_json(): a call's parameter that the model wrote as bare text, as JSON by the type that the request's tool declares for it,
// as vLLM converts it. What does not fit its type, and what no tool declares, is a string.
#include <string>
#include <string_view>

#include "base/json.h"

namespace baton::parse {

std::string parameter_json(const Json& tools, std::string_view function, std::string_view parameter, std::string_view value);

}  // namespace baton::parse
