#pragma once
// usable_request_id(): an x-request-id of a client that may go on into headers and logs; any other is replaced by one of ours.
#include <algorithm>
#include <string_view>

#include "wire/limits.h"

namespace baton::wire {

inline bool usable_request_id(std::string_view id) {
  return !id.empty() && id.size() <= kRequestIdBytesMax && std::ranges::all_of(id, [](char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace baton::wire
