#pragma once
// The options of every connected socket: no waiting for more bytes to send (a token is small and wanted now), keep-alive probes,
// no blocking.
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "net/asio.h"
#include "net/limits.h"

namespace baton::net {

// Failures are ignored: a socket that refuses options is about to fail at reading, where it is reported.
inline void tune(tcp::socket& socket) {
  ErrorCode ec;
  socket.set_option(tcp::no_delay(true), ec);
  socket.set_option(tcp::socket::keep_alive(true), ec);
  for (auto [option, value] : {std::pair(TCP_KEEPIDLE, kKeepAliveIdleS), std::pair(TCP_KEEPINTVL, kKeepAliveIntervalS),
                               std::pair(TCP_KEEPCNT, kKeepAliveProbes)}) {
    ::setsockopt(socket.native_handle(), IPPROTO_TCP, option, &value, sizeof value);
  }
  socket.non_blocking(true, ec);
}

}  // namespace baton::net
