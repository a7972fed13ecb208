#pragma once
// YAML (or JSON, which is YAML) to the JSON tree of base/json.h, so that one reader serves both. Scalars: quoted = string; plain
// = null, true, false, a number, else string. A key given twice is an error. Untrusted text: bounded in bytes, depth and nodes,
// aliases counted each time they are used. Reads the first document.
#include <string_view>

#include "base/json.h"

namespace baton::route {

Result<Json> parse_yaml(std::string_view text);

}  // namespace baton::route
