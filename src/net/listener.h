#pragma once
// Binding and listening, for every server of this folder. "::" is dual stack and falls back to 0.0.0.0 where there is no IPv6.
#include <string>

#include "base/result.h"
#include "net/asio.h"

namespace baton::net {

Result<tcp::acceptor> listen_on(asio::io_context& context, const std::string& host, int port);

// Errors of one accept() that say nothing about the next.
inline bool accept_may_go_on(const ErrorCode& ec) {
  return ec == asio::error::connection_aborted || ec == asio::error::interrupted || ec == asio::error::connection_reset;
}

}  // namespace baton::net
