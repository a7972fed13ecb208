#pragma once
// The string formats of JSON Schema as regexes of this folder's dialect. nullptr-like "" = one we do not know.
// Source: RFC 3339 (dates, Gregorian days by month; 29 February is left out, since it needs the year), 4122, 4291, 1123, 3986,
// 6901.
#include <string>
#include <string_view>

namespace baton::grammar {

std::string format_regex(std::string_view format);

}  // namespace baton::grammar
