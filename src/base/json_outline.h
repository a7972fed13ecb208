#pragma once
// outline_json(): parse_json() for those who edit a long text and read little of it. The whole text is checked alike, but what
// lies deeper than `depth` is not kept (its begin, end and kind are; depth 1 keeps the members of the root), nor is the text of
// strings longer than `string_bytes_max` (their raw() is there).
#include "base/json.h"

namespace baton {

struct JsonOutline {
  int depth = 2;
  size_t string_bytes_max = 256;
};

Result<Json> outline_json(std::string_view text, const JsonOutline& outline, const JsonLimits& limits = {});

}  // namespace baton
