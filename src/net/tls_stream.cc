#include "net/tls_stream.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "base/result.h"
#include "net/asio.h"
#include "net/limits.h"
#include "net/spares.h"

namespace baton::net {
namespace {

// Ciphertext of one recv(), used up or carried away before the call that filled it returns; so a thread needs one.
std::span<char> scratch() {
  thread_local std::unique_ptr<char[]> block = std::make_unique_for_overwrite<char[]>(kTlsReadBytes);
  return {block.get(), kTlsReadBytes};
}

struct Memory {  // what a BIO sees
  std::string_view* in;
  std::string* out;
};

int bio_read(BIO* bio, char* to, int size) {
  auto& in = *static_cast<Memory*>(BIO_get_data(bio))->in;
  BIO_clear_retry_flags(bio);
  if (in.empty()) {
    BIO_set_retry_read(bio);
    return -1;
  }
  size_t n = std::min(in.size(), static_cast<size_t>(size));
  std::memcpy(to, in.data(), n);
  in.remove_prefix(n);
  return static_cast<int>(n);
}

int bio_write(BIO* bio, const char* from, int size) {
  BIO_clear_retry_flags(bio);
  static_cast<Memory*>(BIO_get_data(bio))->out->append(from, static_cast<size_t>(size));
  return size;
}

long bio_ctrl(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

int bio_destroy(BIO* bio) {
  delete static_cast<Memory*>(BIO_get_data(bio));
  return 1;
}

ErrorCode socket_error() {
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return asio::error::would_block;
  return {errno, boost::system::system_category()};
}

}  // namespace

BIO_METHOD* TlsStream::method() {
  static BIO_METHOD* const made = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "memory views");
    BATON_CHECK(m != nullptr);
    BIO_meth_set_read(m, bio_read);
    BIO_meth_set_write(m, bio_write);
    BIO_meth_set_ctrl(m, bio_ctrl);
    BIO_meth_set_destroy(m, bio_destroy);
    return m;
  }();
  return made;
}

TlsStream::TlsStream(SSL_CTX* context, bool server, const std::string& server_name, bool verify) : ssl_(SSL_new(context)) {
  BIO* bio = BIO_new(method());
  BATON_CHECK(ssl_ != nullptr && bio != nullptr);
  BIO_set_data(bio, new Memory{&in_, &out_});
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  if (server) {
    SSL_set_accept_state(ssl_);
    return;
  }
  SSL_set_connect_state(ssl_);
  ErrorCode ec;
  (void)asio::ip::make_address(server_name, ec);
  bool address = !ec;
  if (!address && !server_name.empty()) SSL_set_tlsext_host_name(ssl_, server_name.c_str());
  if (!verify) return;
  if (address) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_), server_name.c_str());
  } else {
    SSL_set1_host(ssl_, server_name.c_str());
  }
}

TlsStream::~TlsStream() { SSL_free(ssl_); }

std::string_view TlsStream::alpn() const {
  const unsigned char* name = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl_, &name, &size);
  return {reinterpret_cast<const char*>(name), size};
}

ErrorCode TlsStream::failure(int rc) {
  int kind = SSL_get_error(ssl_, rc);
  if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
    if (eof_) return asio::error::connection_reset;  // ended without saying so: what came may have been cut
    return asio::error::would_block;
  }
  if (kind == SSL_ERROR_ZERO_RETURN) return asio::error::eof;
  unsigned long code = ERR_peek_error();
  if (ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    why_ = cat("certificate not trusted: ", X509_verify_cert_error_string(SSL_get_verify_result(ssl_)));
  } else if (const char* reason = code ? ERR_reason_error_string(code) : nullptr) {
    why_ = reason;
  } else {
    why_ = "TLS failed";
  }
  ERR_clear_error();
  return asio::error::connection_aborted;
}

bool TlsStream::fill(int fd, size_t bytes_max, ErrorCode& ec) {
  if (!in_.empty()) return true;
  carry_.clear();
  if (eof_) return false;
  auto room = scratch();
  ssize_t n = ::recv(fd, room.data(), std::min(bytes_max, room.size()), 0);
  if (n > 0) {
    in_ = {room.data(), static_cast<size_t>(n)};
    return true;
  }
  if (n == 0) {
    eof_ = true;
  } else {
    ec = socket_error();
  }
  return false;
}

// The thread's scratch belongs to others once we return.
void TlsStream::keep_rest() {
  if (in_.empty()) return Spares::here().take_back(carry_);
  if (!carry_.empty()) {
    carry_.erase(0, carry_.size() - in_.size());  // what is left is its end
  } else {
    Spares::here().make_room(carry_, in_.size());
    carry_ = in_;
  }
  in_ = carry_;
}

void TlsStream::flush(int fd, ErrorCode& ec) {
  while (out_at_ < out_.size() && !ec) {
    ssize_t n = ::send(fd, out_.data() + out_at_, out_.size() - out_at_, MSG_NOSIGNAL);
    if (n >= 0) {
      out_at_ += static_cast<size_t>(n);
    } else {
      ec = socket_error();
    }
  }
  if (out_at_ < out_.size()) return;
  out_at_ = 0;
  Spares::here().take_back(out_);
}

ErrorCode TlsStream::handshake(int fd) {
  ErrorCode ec;
  ERR_clear_error();
  int rc = SSL_do_handshake(ssl_);
  while (rc != 1) {
    ErrorCode failed = failure(rc);
    if (failed != asio::error::would_block) {
      ErrorCode ignored;
      flush(fd, ignored);  // the alert says why
      return failed;
    }
    if (!fill(fd, kTlsReadBytes, ec) && !eof_) break;
    rc = SSL_do_handshake(ssl_);
  }
  keep_rest();
  ErrorCode sent;
  flush(fd, sent);
  if (sent && sent != asio::error::would_block) return sent;
  if (rc == 1) return {};
  return ec;
}

size_t TlsStream::read(int fd, std::span<char> room, ErrorCode& ec) {
  size_t got = 0;
  ErrorCode from_socket;
  while (got < room.size()) {
    ERR_clear_error();
    int rc = SSL_read(ssl_, room.data() + got, static_cast<int>(std::min<size_t>(room.size() - got, 1 << 30)));
    if (rc > 0) {
      got += static_cast<size_t>(rc);
      continue;
    }
    ec = failure(rc);
    if (ec != asio::error::would_block) break;
    ec = {};
    if (got > 0 && in_.empty()) break;  // enough for one turn
    if (!fill(fd, std::max<size_t>(room.size() - got, 1 << 10), from_socket) && !eof_) {
      ec = from_socket;
      break;
    }
  }
  keep_rest();
  ErrorCode sent;
  if (unsent()) flush(fd, sent);  // handshake messages, alerts
  if (got > 0) ec = {};           // what was read first; the end or error shows again
  return got;
}

size_t TlsStream::write(int fd, std::span<const iovec> bytes, ErrorCode& ec) {
  flush(fd, ec);
  size_t taken = 0, wanted = 0;
  for (const iovec& piece : bytes) wanted += piece.iov_len;
  wanted = std::min(wanted, kH2SendBytes);
  if (!ec && !unsent()) Spares::here().make_room(out_, wanted + wanted / 64 + 256);  // and what records add
  for (const iovec& piece : bytes) {
    if (ec || unsent()) break;
    for (size_t at = 0; at < piece.iov_len && out_.size() < kH2SendBytes;) {
      size_t n = std::min<size_t>(piece.iov_len - at, 64 << 10);
      ERR_clear_error();
      int rc = SSL_write(ssl_, static_cast<const char*>(piece.iov_base) + at, static_cast<int>(n));
      if (rc <= 0) {
        ec = failure(rc);
        return taken;
      }
      at += static_cast<size_t>(rc);
      taken += static_cast<size_t>(rc);
    }
    if (out_.size() >= kH2SendBytes) break;
  }
  if (!ec) flush(fd, ec);
  // What was taken will be sent, sooner or later; the caller asks unsent().
  if (ec == asio::error::would_block && taken > 0) ec = {};
  return taken;
}

void TlsStream::keep_buffers() { SSL_clear_mode(ssl_, SSL_MODE_RELEASE_BUFFERS); }

void TlsStream::close(int fd) {
  if (!ready() || !why_.empty()) return;
  SSL_shutdown(ssl_);
  ERR_clear_error();
  ErrorCode ec;
  flush(fd, ec);
}

}  // namespace baton::net
