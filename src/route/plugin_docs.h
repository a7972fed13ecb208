#pragma once
// docs/endpoint-picker-config.md, printed from the table of plugins: every type, its parameters and defaults, what loads as
// nothing and what is refused.
#include <string>

namespace baton::route {

std::string plugin_docs();

}  // namespace baton::route
