#include "transfer/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

namespace baton::transfer {
namespace {

std::unexpected<Error> errno_error(std::string_view what) {
  int e = errno;
  return fail(e == EADDRINUSE ? Code::kAlreadyExists : Code::kUnavailable, what, ": ", std::strerror(e));
}

Result<std::pair<sockaddr_un, socklen_t>> abstract_address(const std::string& name) {
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  if (name.empty() || name.size() + 1 > sizeof a.sun_path) return fail(Code::kInvalidArgument, "bad unix socket name");
  std::memcpy(a.sun_path + 1, name.data(), name.size());  // a leading zero byte: the abstract namespace, nothing to unlink
  return std::pair{a, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())};
}

}  // namespace

std::string HostPort::text() const { return host.find(':') == host.npos ? cat(host, ":", port) : cat("[", host, "]:", port); }

Result<HostPort> parse_host_port(std::string_view text) {
  auto colon = text.rfind(':');
  if (colon == text.npos || colon == 0) return fail(Code::kInvalidArgument, "peer \"", text, "\": expected host:port");
  HostPort out;
  auto host = text.substr(0, colon), port = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  out.host = host;
  auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (host.empty() || error != std::errc() || end != port.data() + port.size() || out.port < 1 || out.port > 65535)
    return fail(Code::kInvalidArgument, "peer \"", text, "\": expected host:port");
  return out;
}

Result<std::vector<Address>> resolve(const HostPort& where, bool numeric_only) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (numeric_only ? AI_NUMERICHOST : 0);
  int rc = ::getaddrinfo(where.host.c_str(), std::to_string(where.port).c_str(), &hints, &found);
  if (rc != 0) return fail(Code::kUnavailable, "resolve ", where.host, ": ", ::gai_strerror(rc));
  std::vector<Address> out;
  for (auto* a = found; a != nullptr; a = a->ai_next) {
    auto* p = reinterpret_cast<unsigned char*>(a->ai_addr);
    out.push_back({{p, p + a->ai_addrlen}});
  }
  ::freeaddrinfo(found);
  return out;
}

Result<Fd> tcp_listen(const HostPort& where) {
  BATON_TRY(auto addresses, resolve(where, false));
  const auto* a = reinterpret_cast<const sockaddr*>(addresses.front().bytes.data());
  Fd fd(::socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return errno_error("socket");
  int one = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (::bind(fd.get(), a, static_cast<socklen_t>(addresses.front().bytes.size())) != 0)
    return errno_error(cat("bind ", where.text()));
  if (::listen(fd.get(), 256) != 0) return errno_error("listen");
  return fd;
}

Result<int> local_port(const Fd& fd) {
  sockaddr_storage a{};
  socklen_t n = sizeof a;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&a), &n) != 0) return errno_error("getsockname");
  // The port lies at the same place in both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&a)->sin_port);
}

Result<Fd> tcp_connect(const Address& address) {
  const auto* a = reinterpret_cast<const sockaddr*>(address.bytes.data());
  Fd fd(::socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return errno_error("socket");
  if (::connect(fd.get(), a, static_cast<socklen_t>(address.bytes.size())) != 0 && errno != EINPROGRESS)
    return errno_error("connect");
  return fd;
}

Result<> connect_result(const Fd& fd) {
  int error = 0;
  socklen_t n = sizeof error;
  ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &n);
  if (error != 0) return fail(Code::kUnavailable, "connect: ", std::strerror(error));
  return {};
}

Fd accept_on(const Fd& listener) { return Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)); }

void tune_tcp(const Fd& fd, int dead_after_ms) {
  int one = 1;
  auto timeout = static_cast<unsigned>(dead_after_ms);
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

Result<Fd> unix_listen(const std::string& abstract_name) {
  BATON_TRY(auto address, abstract_address(abstract_name));
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return errno_error("socket");
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address.first), address.second) != 0) return errno_error("bind unix socket");
  if (::listen(fd.get(), 64) != 0) return errno_error("listen");
  return fd;
}

Result<Fd> unix_connect(const std::string& abstract_name) {
  BATON_TRY(auto address, abstract_address(abstract_name));
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return errno_error("socket");
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address.first), address.second) != 0)
    return errno_error("connect to the peer's unix socket");
  return fd;
}

bool same_user(const Fd& unix_socket) {
  ucred peer{};
  socklen_t n = sizeof peer;
  return ::getsockopt(unix_socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && peer.uid == ::geteuid();
}

Result<> send_descriptor(const Fd& unix_socket, int fd) {
  char byte = 'F';
  iovec io{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr m{};
  m.msg_iov = &io;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
  if (::sendmsg(unix_socket.get(), &m, MSG_NOSIGNAL) != 1) return errno_error("send descriptor");
  return {};
}

Result<Fd> receive_descriptor(const Fd& unix_socket) {
  char byte = 0;
  iovec io{&byte, 1};
  int fd = -1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr m{};
  m.msg_iov = &io;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  auto n = ::recvmsg(unix_socket.get(), &m, MSG_CMSG_CLOEXEC);
  if (n < 0) return errno_error("receive descriptor");
  cmsghdr* c = n == 1 ? CMSG_FIRSTHDR(&m) : nullptr;
  if (c == nullptr || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof fd))
    return fail(Code::kPermissionDenied, "the peer gave no descriptor of its pool");
  std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
  return Fd(fd);
}

std::string boot_id() {
  Fd fd(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  char text[36];
  return fd && ::read(fd.get(), text, sizeof text) == sizeof text ? std::string(text, sizeof text) : std::string();
}

}  // namespace baton::transfer
