#pragma once
// Channel: a connected socket, with TLS or without, that never blocks: read() and write() do what can be done now and give
// would_block otherwise; the owner waits with wait_read() / wait_write(). With TLS, read() also takes the handshake further and
// write() may keep ciphertext that the socket did not take: call write() (with nothing, if need be) once it is writable until
// unsent() is false. One thread only.
#include <sys/uio.h>

#include <memory>
#include <span>
#include <string>

#include "net/asio.h"

namespace baton::net {

class TlsStream;  // net/tls_stream.h

class Channel {
 public:
  Channel(tcp::socket socket, std::unique_ptr<TlsStream> tls);
  ~Channel();
  Channel(Channel&&) noexcept;

  tcp::socket& socket() { return socket_; }
  void secure(std::unique_ptr<TlsStream> tls);  // from here on
  bool secure() const { return tls_ != nullptr; }
  bool ready() const;             // the TLS handshake is done, or there is none
  std::string_view alpn() const;  // "" if none was agreed on
  std::string_view why() const;   // what TLS disliked, "" = nothing
  std::string why_or(const ErrorCode& ec) const { return why().empty() ? ec.message() : std::string(why()); }
  ErrorCode handshake();          // one step; would_block: wait for reading (and for writing if unsent())

  // Bytes read. asio::error::eof at the end of the stream.
  size_t read(std::span<char> room, ErrorCode& ec);
  bool unread() const;  // bytes are held here: do not wait for the socket before read()
  // Bytes taken of `bytes`.
  size_t write(std::span<const iovec> bytes, ErrorCode& ec);
  bool unsent() const;
  void keep_buffers();  // of a busy connection: the memory of TLS records is not given back in between
  void close();  // says so to a TLS peer, if that needs no waiting

  template <class F>
  void wait_read(F f) {
    if (unread()) return asio::post(socket_.get_executor(), [f = std::move(f)]() mutable { f(ErrorCode()); });
    socket_.async_wait(tcp::socket::wait_read, std::move(f));
  }
  template <class F>
  void wait_write(F f) {
    socket_.async_wait(tcp::socket::wait_write, std::move(f));
  }

 private:
  tcp::socket socket_;
  std::unique_ptr<TlsStream> tls_;
};

}  // namespace baton::net
