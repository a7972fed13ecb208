#include "net/listener.h"

#include "net/limits.h"

namespace baton::net {
namespace {

ErrorCode listen_at(tcp::acceptor& acceptor, const tcp::endpoint& endpoint) {
  ErrorCode ec;
  acceptor.open(endpoint.protocol(), ec);
  if (ec) return ec;
  acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  if (endpoint.address().is_v6()) acceptor.set_option(asio::ip::v6_only(false), ec);
  acceptor.bind(endpoint, ec);
  if (!ec) acceptor.listen(kListenBacklog, ec);
  if (ec) {
    ErrorCode ignored;
    acceptor.close(ignored);
  }
  return ec;
}

}  // namespace

Result<tcp::acceptor> listen_on(asio::io_context& context, const std::string& host, int port) {
  ErrorCode ec;
  auto failed = [&](std::string_view what) {
    return fail(Code::kUnavailable, "cannot ", what, ' ', host, ':', port, ": ", ec.message());
  };
  tcp::acceptor acceptor(context);
  tcp::endpoint endpoint;
  if (auto address = asio::ip::make_address(host, ec); !ec) {
    endpoint = {address, static_cast<uint16_t>(port)};
  } else {
    tcp::resolver resolver(context);
    auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, ec);
    if (ec || found.empty()) return failed("resolve");
    endpoint = found.begin()->endpoint();
  }
  ec = listen_at(acceptor, endpoint);
  bool no_v6 = ec == asio::error::address_family_not_supported || ec == boost::system::errc::address_not_available;
  if (no_v6 && endpoint.address() == asio::ip::address_v6::any()) {
    ec = listen_at(acceptor, {asio::ip::address_v4::any(), static_cast<uint16_t>(port)});
  }
  if (ec) return failed("listen on");
  return acceptor;
}

}  // namespace baton::net
