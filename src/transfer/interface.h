#pragma once
// Which address and network device KV uses on a host that has several.
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace baton::transfer {

struct Interface {
  std::string host;       // to bind, and to tell peers
  std::string interface;  // for UCX; "" = all of them
};

// host: given by a person, or "". name: of a network interface, or "": then the first of `ucx_net_devices` that is one (a list
// such as "mlx5_0:1,eth1"). Without any of these 127.0.0.1. Fails if `name` is no interface or has no address.
using AddressOf = std::function<std::string(std::string_view interface)>;  // "": no such interface, or no address
Result<Interface> choose_interface(const std::string& host, const std::string& name, std::string_view ucx_net_devices,
                                   const AddressOf& address_of);
// With this host's interfaces and the environment's UCX_NET_DEVICES.
Result<Interface> choose_interface(const std::string& host, const std::string& name);

}  // namespace baton::transfer
