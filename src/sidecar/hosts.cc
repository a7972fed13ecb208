#include "sidecar/hosts.h"

#include <charconv>

#include "sidecar/limits.h"
#include "wire/headers.h"

namespace baton::sidecar {

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

std::optional<HostPort> parse_host_port(std::string_view text) {
  text = trimmed(text);
  for (std::string_view scheme : {"http://", "https://"}) {
    if (text.starts_with(scheme)) text.remove_prefix(scheme.size());
  }
  if (text.ends_with('/')) text.remove_suffix(1);
  size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  std::string_view host = text.substr(0, colon), port = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return std::nullopt;
  }
  int n = 0;
  auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), n);
  if (ec != std::errc() || end != port.data() + port.size() || n < 1 || n > 65535) return std::nullopt;
  if (host.empty() || host.find_first_of("/?#@ \t[]") != std::string_view::npos) return std::nullopt;
  return HostPort{std::string(host), n};
}

std::optional<std::vector<HostPort>> hosts_in(const net::Headers& headers, std::string_view name) {
  std::vector<HostPort> hosts;
  bool named = false;
  for (std::string_view value : headers.get_all(name)) {
    while (!value.empty()) {
      size_t comma = value.find(',');
      std::string_view one = trimmed(value.substr(0, comma));
      value = comma == std::string_view::npos ? std::string_view() : value.substr(comma + 1);
      named |= !one.empty();
      auto host = parse_host_port(one);
      if (host && hosts.size() < kHostsMax) hosts.push_back(std::move(*host));
    }
  }
  if (!named) return std::nullopt;  // an empty header is no wish for anybody
  return hosts;
}

std::optional<std::vector<HostPort>> prefillers(const net::Headers& headers) {
  bool has_new_form = headers.get(wire::kPrefillerHostPort).has_value();
  return hosts_in(headers, has_new_form ? wire::kPrefillerHostPort : wire::kPrefillerUrl);
}

}  // namespace baton::sidecar
