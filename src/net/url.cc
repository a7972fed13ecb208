#include "net/url.h"

#include <charconv>

namespace baton::net {

Result<Url> parse_url(std::string_view text) {
  Url out;
  std::string_view rest = text;
  if (rest.starts_with("https://")) {
    out.tls = true;
    out.port = 443;
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else {
    return fail(Code::kInvalidArgument, "'", text, "' is no http:// or https:// URL");
  }
  const size_t slash = std::min(rest.find_first_of("/?#"), rest.size());
  out.path = rest.substr(slash);
  std::string_view authority = rest.substr(0, slash);
  const size_t bracket = authority.starts_with('[') ? authority.find(']') : std::string_view::npos;
  const size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  out.host = bracket == std::string_view::npos ? authority.substr(0, colon) : authority.substr(1, bracket - 1);
  if (colon != std::string_view::npos) {
    const char* end = authority.data() + authority.size();
    const auto [at, error] = std::from_chars(authority.data() + colon + 1, end, out.port);
    if (error != std::errc() || at != end || out.port < 1 || out.port > 65'535)
      return fail(Code::kInvalidArgument, "'", text, "' has no port from 1 to 65535");
  }
  if (out.host.empty() || out.host.find('@') != std::string::npos)
    return fail(Code::kInvalidArgument, "'", text, "' names no host");
  return out;
}

}  // namespace baton::net
