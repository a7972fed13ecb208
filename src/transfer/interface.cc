#include "transfer/interface.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdlib>
#include <memory>

namespace baton::transfer {
namespace {

// IPv4 before IPv6; link-local ones are of no use to a peer that does not know the link.
std::string address_of_interface(std::string_view name) {
  ifaddrs* raw = nullptr;
  if (::getifaddrs(&raw) != 0) return {};
  std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> all(raw, &::freeifaddrs);
  for (int family : {AF_INET, AF_INET6}) {
    for (const auto* a = all.get(); a != nullptr; a = a->ifa_next) {
      if (a->ifa_addr == nullptr || a->ifa_addr->sa_family != family || name != a->ifa_name || (a->ifa_flags & IFF_UP) == 0)
        continue;
      if (family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&reinterpret_cast<const sockaddr_in6*>(a->ifa_addr)->sin6_addr)) continue;
      char text[NI_MAXHOST];
      auto bytes = static_cast<socklen_t>(family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
      if (::getnameinfo(a->ifa_addr, bytes, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0) return text;
    }
  }
  return {};
}

}  // namespace

Result<Interface> choose_interface(const std::string& host, const std::string& name, std::string_view ucx_net_devices,
                                   const AddressOf& address_of) {
  Interface out{host, name};
  if (!name.empty() && address_of(name).empty())
    return fail(Code::kInvalidArgument, "network interface \"", name, "\": not there, not up, or without an address");
  if (!host.empty()) return out;
  if (!name.empty()) {
    out.host = address_of(name);
    return out;
  }
  for (auto rest = ucx_net_devices; !rest.empty();) {
    auto end = std::min(rest.find(','), rest.size());
    if (auto address = address_of(rest.substr(0, end)); !address.empty()) {
      out.host = address;
      return out;
    }
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  out.host = "127.0.0.1";
  return out;
}

Result<Interface> choose_interface(const std::string& host, const std::string& name) {
  const char* devices = ::getenv("UCX_NET_DEVICES");
  return choose_interface(host, name, devices != nullptr ? devices : "", address_of_interface);
}

}  // namespace baton::transfer
