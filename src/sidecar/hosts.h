#pragma once
// Workers as request headers name them. Source: facts sheet "kv_transfer" 1.4.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/http.h"

namespace baton::sidecar {

struct HostPort {
  std::string host;  // IPv6 without brackets
  int port = 0;
  std::string text() const { return host.find(':') == std::string::npos ? cat(host, ':', port) : cat('[', host, "]:", port); }
  bool operator==(const HostPort&) const = default;
};

std::string_view trimmed(std::string_view s);  // without the spaces and tabs around it

// "10.0.0.1:8000", "[::1]:8000", with or without "http://" or "https://".
std::optional<HostPort> parse_host_port(std::string_view text);
// All of one header, in order: repeated headers or comma lists. nullopt if it names none; unusable ones are left out, and what
// is more than kHostsMax.
std::optional<std::vector<HostPort>> hosts_in(const net::Headers& headers, std::string_view name);
// x-prefiller-host-port, or v0.3.0's x-prefiller-url.
std::optional<std::vector<HostPort>> prefillers(const net::Headers& headers);

}  // namespace baton::sidecar
