#include "route/endpoint.h"

#include <array>
#include <utility>

namespace baton::route {

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kPrefill:
      return "prefill";
    case Role::kDecode:
      return "decode";
    case Role::kBoth:
      return "both";
  }
  return "both";
}

bool role_from(std::string_view name, Role& out) {
  using Row = std::pair<std::string_view, Role>;
  static constexpr std::array<Row, 7> kRows = {{{"", Role::kBoth},
                                                {"both", Role::kBoth},
                                                {"prefill-decode", Role::kBoth},
                                                {"encode-prefill-decode", Role::kBoth},
                                                {"prefill", Role::kPrefill},
                                                {"encode-prefill", Role::kPrefill},
                                                {"decode", Role::kDecode}}};
  for (const auto& [text, role] : kRows) {
    if (name == text) {
      out = role;
      return true;
    }
  }
  return false;
}

std::string host_port(std::string_view host, int port) {
  std::string out;
  const bool v6 = host.find(':') != std::string_view::npos;
  if (v6) out += '[';
  out += host;
  if (v6) out += ']';
  out += ':';
  out += std::to_string(port);
  return out;
}

}  // namespace baton::route
