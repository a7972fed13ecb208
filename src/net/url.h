#pragma once
// Url: "http://host:port/path", "https://[::1]/path" taken apart. Pure.
#include <string>
#include <string_view>

#include "base/result.h"

namespace baton::net {

struct Url {
  std::string host{}, path{};  // IPv6 without brackets; the path begins with '/', or is ""
  int port = 80;               // 443 of https where none is said
  bool tls = false;
};
Result<Url> parse_url(std::string_view text);  // kInvalidArgument says what is wrong with it

}  // namespace baton::net
