#pragma once
// The parts of Asio this folder uses, in one list so that they are precompiled once. Not for use outside src/net.
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace baton::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

// co_await op(..., kAwait) gives a tuple that starts with the error code; nothing throws.
inline constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

}  // namespace baton::net
