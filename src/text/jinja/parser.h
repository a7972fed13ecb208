#pragma once
// Parser: tokens to the tree of ast.h. Grammar and precedence are Jinja 3.1's. Errors name the line.
#include <string_view>

#include "base/result.h"
#include "text/jinja/ast.h"

namespace baton::text::jinja {

Result<Block> parse(std::string_view source);

}  // namespace baton::text::jinja
