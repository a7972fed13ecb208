#pragma once
// TlsStream: one TLS connection over a descriptor that does not block. Ciphertext is received and sent by this class in large
// pieces, OpenSSL sees memory: one recv() for many records, one send() for many, and no signal from a broken pipe. One thread.
#include <openssl/ssl.h>
#include <sys/uio.h>

#include <boost/system/error_code.hpp>
#include <memory>
#include <span>
#include <string>


namespace baton::net {

using ErrorCode = boost::system::error_code;

class TlsStream {
 public:
  // context: counted by OpenSSL, may be replaced meanwhile. server_name: of a client, for SNI and verification; "" = server.
  TlsStream(SSL_CTX* context, bool server, const std::string& server_name, bool verify);
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;

  bool ready() const { return SSL_is_init_finished(ssl_); }
  std::string_view alpn() const;
  std::string_view why() const { return why_; }
  ErrorCode handshake(int fd);
  size_t read(int fd, std::span<char> room, ErrorCode& ec);
  bool unread() const { return !in_.empty() || !carry_.empty() || SSL_pending(ssl_) > 0; }
  size_t write(int fd, std::span<const iovec> bytes, ErrorCode& ec);
  bool unsent() const { return out_at_ < out_.size(); }
  void close(int fd);
  void keep_buffers();  // of records, between reads and writes too

 private:
  static BIO_METHOD* method();
  bool fill(int fd, size_t bytes_max, ErrorCode& ec);  // ciphertext from the socket
  void flush(int fd, ErrorCode& ec);
  void keep_rest();
  ErrorCode failure(int rc);

  SSL* ssl_;
  std::string_view in_;  // received, not yet seen by OpenSSL; into the thread's scratch or carry_
  std::string carry_;
  std::string out_;  // ciphertext not yet taken by the socket
  size_t out_at_ = 0;
  bool eof_ = false;
  std::string why_;
};

}  // namespace baton::net
