#pragma once
// Sockets: non-blocking TCP and abstract unix ones, as values and errors. Every descriptor is close-on-exec.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "transfer/loop.h"

struct sockaddr_storage;

namespace baton::transfer {

struct HostPort {
  std::string host;
  int port = 0;
  std::string text() const;  // [v6]:port with brackets
  bool operator==(const HostPort&) const = default;
};
Result<HostPort> parse_host_port(std::string_view text);

// Address of one socket, as the kernel takes it.
struct Address {
  std::vector<unsigned char> bytes;
};
// numeric_only: never asks DNS, so it never blocks.
Result<std::vector<Address>> resolve(const HostPort& where, bool numeric_only);

Result<Fd> tcp_listen(const HostPort& where);
Result<int> local_port(const Fd& fd);
Result<Fd> tcp_connect(const Address& address);  // connecting; writable when done, then connect_result()
Result<> connect_result(const Fd& fd);
Fd accept_on(const Fd& listener);                // empty: nothing there
void tune_tcp(const Fd& fd, int dead_after_ms);  // no delay, user timeout

Result<Fd> unix_listen(const std::string& abstract_name);
Result<Fd> unix_connect(const std::string& abstract_name);
bool same_user(const Fd& unix_socket);  // SO_PEERCRED: the peer runs as us
Result<> send_descriptor(const Fd& unix_socket, int fd);
Result<Fd> receive_descriptor(const Fd& unix_socket);
std::string boot_id();  // equal on two processes of one running kernel; "" if unknown

}  // namespace baton::transfer
