#include "net/channel.h"

#include <sys/socket.h>

#include "net/tls_stream.h"

namespace baton::net {
namespace {

ErrorCode last_error() {
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return asio::error::would_block;
  return {errno, boost::system::system_category()};
}

}  // namespace

Channel::Channel(tcp::socket socket, std::unique_ptr<TlsStream> tls) : socket_(std::move(socket)), tls_(std::move(tls)) {}
Channel::~Channel() = default;
Channel::Channel(Channel&&) noexcept = default;

void Channel::secure(std::unique_ptr<TlsStream> tls) { tls_ = std::move(tls); }
bool Channel::ready() const { return !tls_ || tls_->ready(); }
std::string_view Channel::alpn() const { return tls_ ? tls_->alpn() : std::string_view(); }
std::string_view Channel::why() const { return tls_ ? tls_->why() : std::string_view(); }
ErrorCode Channel::handshake() { return tls_ ? tls_->handshake(socket_.native_handle()) : ErrorCode(); }
bool Channel::unread() const { return tls_ && tls_->unread(); }
bool Channel::unsent() const { return tls_ && tls_->unsent(); }

size_t Channel::read(std::span<char> room, ErrorCode& ec) {
  if (tls_) return tls_->read(socket_.native_handle(), room, ec);
  ssize_t n = ::recv(socket_.native_handle(), room.data(), room.size(), 0);
  if (n > 0) return static_cast<size_t>(n);
  ec = n == 0 ? ErrorCode(asio::error::eof) : last_error();
  return 0;
}

size_t Channel::write(std::span<const iovec> bytes, ErrorCode& ec) {
  if (tls_) return tls_->write(socket_.native_handle(), bytes, ec);
  if (bytes.empty()) return 0;
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(bytes.data());
  message.msg_iovlen = std::min<size_t>(bytes.size(), 1024);  // IOV_MAX of Linux
  ssize_t n = ::sendmsg(socket_.native_handle(), &message, MSG_NOSIGNAL);
  if (n >= 0) return static_cast<size_t>(n);
  ec = last_error();
  return 0;
}

void Channel::keep_buffers() {
  if (tls_) tls_->keep_buffers();
}

void Channel::close() {
  ErrorCode ec;
  if (tls_ && socket_.is_open()) tls_->close(socket_.native_handle());
  socket_.close(ec);
}

}  // namespace baton::net
