#include "route/endpoint.h"

#include <algorithm>
#include <array>
#include <utility>

namespace baton::route {

namespace {

// What a role's workers can do, and its names; the first name of a role is the one we print.
struct RoleRow {
  std::string_view name;
  Role role;
  bool prefills, decodes, encodes;
};
constexpr std::array<RoleRow, 8> kRoles = {{{"prefill", Role::kPrefill, true, false, false},
                                            {"decode", Role::kDecode, false, true, false},
                                            {"both", Role::kBoth, true, true, false},
                                            {"encode", Role::kEncode, false, false, true},
                                            {"encode-prefill", Role::kEncodePrefill, true, false, true},
                                            {"encode-prefill-decode", Role::kEncodePrefillDecode, true, true, true},
                                            {"prefill-decode", Role::kBoth, true, true, false},
                                            {"", Role::kBoth, true, true, false}}};
static_assert([] {
  for (size_t i = 0; i < 6; ++i) {
    if (static_cast<size_t>(kRoles[i].role) != i) return false;
  }
  return true;
}());

const RoleRow& row_of(Role role) { return kRoles[static_cast<size_t>(role)]; }

}  // namespace

bool prefills(Role role) { return row_of(role).prefills; }
bool decodes(Role role) { return row_of(role).decodes; }
bool encodes(Role role) { return row_of(role).encodes; }
std::string_view role_name(Role role) { return row_of(role).name; }

bool role_from(std::string_view name, Role& out) {
  const auto row = std::ranges::find(kRoles, name, &RoleRow::name);
  if (row == kRoles.end()) return false;
  out = row->role;
  return true;
}

std::string_view Endpoint::label(std::string_view key) const {
  const auto at = std::ranges::lower_bound(labels, key, {}, [](const auto& pair) { return std::string_view(pair.first); });
  return at != labels.end() && at->first == key ? std::string_view(at->second) : std::string_view();
}

bool Endpoint::has_label(std::string_view key) const {
  const auto at = std::ranges::lower_bound(labels, key, {}, [](const auto& pair) { return std::string_view(pair.first); });
  return at != labels.end() && at->first == key;
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

int32_t effective_waiting(const Load& load) {
  return load.waiting + std::max(0, load.inflight_requests - load.running - load.waiting);
}

}  // namespace baton::route
