#include "net/client_connection.h"

#include <sys/socket.h>

#include <algorithm>

#include "net/limits.h"
#include "net/tls_context.h"
#include "net/tune.h"

namespace baton::net {

ClientConnection::ClientConnection(Scope& scope, std::string key)
    : scope_(scope),
      key_(std::move(key)),
      channel_(tcp::socket(scope.context()), nullptr),
      resolver_(scope.context()),
      deadline_(scope, [this] { abort(deadline_code_, deadline_why_); }) {}

void ClientConnection::abort(Code code, std::string_view why) {
  if (aborted_) return;
  aborted_ = Error{code, std::string(why)};
  resolver_.cancel();
  channel_.close();
}

void ClientConnection::deadline(Millis from_now, const char* why) {
  deadline_why_ = why;
  if (from_now > Millis(0)) {
    deadline_.set(from_now);
  } else {
    deadline_.clear();
  }
}

std::unexpected<Error> ClientConnection::failed(Code code, std::string_view what, const ErrorCode& ec) const {
  if (aborted_) return std::unexpected(*aborted_);
  return fail(code, what, ": ", ec.message());
}

Task<Result<>> ClientConnection::connect(const std::string& host, int port, Millis timeout, std::shared_ptr<TlsClient> tls,
                                         const std::string& name) {
  tls_ = std::move(tls);
  std::string where = cat("cannot connect to ", host, ':', port);
  std::string late = cat(where, ": no answer within ", timeout.count(), " ms");
  deadline_code_ = Code::kUnavailable;
  deadline(timeout, late.c_str());
  ErrorCode ec;
  auto address = asio::ip::make_address(host, ec);
  if (!ec) {
    if (!aborted_) std::tie(ec) = co_await channel_.socket().async_connect({address, static_cast<uint16_t>(port)}, kAwait);
  } else {
    tcp::resolver::results_type found;
    if (!aborted_) std::tie(ec, found) = co_await resolver_.async_resolve(host, std::to_string(port), kAwait);
    if (!ec && !aborted_) std::tie(ec, std::ignore) = co_await asio::async_connect(channel_.socket(), found, kAwait);
  }
  Result<> secured;
  if (!ec && !aborted_) {
    tune(channel_.socket());
    if (tls_) secured = co_await handshake(name, where);
  }
  deadline(Millis(0), "");
  deadline_code_ = Code::kDeadlineExceeded;
  if (ec || aborted_) co_return failed(Code::kUnavailable, where, ec);
  co_return secured;
}

Task<Result<>> ClientConnection::handshake(const std::string& name, std::string_view where) {
  channel_.secure(make_stream(*tls_, name));
  ErrorCode ec = channel_.handshake();
  while (ec == asio::error::would_block && !aborted_) {
    auto& socket = channel_.socket();
    std::tie(ec) = co_await socket.async_wait(channel_.unsent() ? tcp::socket::wait_write : tcp::socket::wait_read, kAwait);
    if (!ec && !aborted_) ec = channel_.handshake();
  }
  if (aborted_) co_return std::unexpected(*aborted_);
  if (ec) co_return fail(Code::kUnavailable, where, ": TLS: ", channel_.why_or(ec));
  co_return Result<>();
}

Task<Result<>> ClientConnection::write(std::string_view head, std::string_view body) {
  std::array<iovec, 2> pieces{{{const_cast<char*>(head.data()), head.size()}, {const_cast<char*>(body.data()), body.size()}}};
  for (size_t first = head.empty() ? 1 : 0;;) {
    if (aborted_) co_return std::unexpected(*aborted_);
    ErrorCode ec;
    size_t n = channel_.write(std::span(pieces).subspan(first), ec);
    for (; first < 2 && n >= pieces[first].iov_len; ++first) n -= pieces[first].iov_len;
    if (first < 2) pieces[first] = {static_cast<char*>(pieces[first].iov_base) + n, pieces[first].iov_len - n};
    if (first == 2 && !channel_.unsent() && (!ec || ec == asio::error::would_block)) co_return Result<>();
    if (ec == asio::error::would_block || (!ec && channel_.unsent())) {
      std::tie(ec) = co_await channel_.socket().async_wait(tcp::socket::wait_write, kAwait);
    }
    if (ec || aborted_) co_return failed(Code::kUnavailable, "upstream closed the connection", ec);
  }
}

Task<Result<size_t>> ClientConnection::receive() {
  if (aborted_) co_return std::unexpected(*aborted_);
  if (channel_.secure()) co_return co_await receive_secure();
  ErrorCode ec;
  size_t n = 0;
  do {
    // A full read is followed by another at once; else there is nothing yet, and who waits holds no buffer. What may be left is
    // the line end behind a chunk.
    if (!more_) {
      std::array<char, 16> left;
      const size_t n_left = input_.size();
      const bool lends = n_left <= left.size();
      if (lends) {
        std::ranges::copy(input_.view(), left.begin());
        input_.consume(n_left);
        input_.lend_to(scope_.spare());
      }
      std::tie(ec) = co_await channel_.socket().async_wait(tcp::socket::wait_read, kAwait);
      if (aborted_) co_return std::unexpected(*aborted_);
      if (ec) break;
      if (lends) {
        input_.borrow_from(scope_.spare());
        std::ranges::copy_n(left.begin(), static_cast<ptrdiff_t>(n_left), input_.prepare(kReadBytes).begin());
        input_.commit(n_left);
      }
    }
    auto room = input_.prepare(kReadBytes);
    n = channel_.read(room, ec);
    more_ = n == room.size();
  } while (ec == asio::error::would_block);
  if (ec == asio::error::eof) co_return size_t{0};
  if (ec) co_return failed(Code::kUnavailable, "upstream closed the connection", ec);
  input_.commit(n);
  co_return n;
}

Task<Result<size_t>> ClientConnection::receive_secure() {
  auto room = input_.prepare(kReadBytes);
  for (;;) {
    ErrorCode ec;
    size_t n = channel_.read(room, ec);
    if (n > 0) {
      input_.commit(n);
      co_return n;
    }
    if (ec == asio::error::eof) co_return size_t{0};
    if (ec == asio::error::would_block) std::tie(ec) = co_await channel_.socket().async_wait(tcp::socket::wait_read, kAwait);
    if (aborted_) co_return std::unexpected(*aborted_);
    if (ec) co_return failed(Code::kUnavailable, "upstream closed the connection", ec);
  }
}

bool ClientConnection::fresh() const {
  if (aborted_ || std::chrono::steady_clock::now() - idle_since_ > kPooledIdleMax) return false;
  if (channel_.unread() || channel_.unsent()) return false;
  char byte;
  // Open and silent is the only state that answers "would block".
  ssize_t n = ::recv(const_cast<Channel&>(channel_).socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

AbortGuard::AbortGuard(std::shared_ptr<ClientConnection> connection, Cancel* cancel) {
  if (cancel) cancel_ = cancel->on_cancel([connection] { connection->abort(Code::kCancelled, "cancelled"); });
  stop_.emplace(Scope::here(), [connection] { connection->abort(Code::kCancelled, "shutting down"); });
}

std::shared_ptr<ClientConnection> Pool::take(const std::string& key) {
  auto at = idle_by_key_.find(key);
  if (at == idle_by_key_.end()) return nullptr;
  while (!at->second.empty()) {
    auto connection = std::move(at->second.back());
    at->second.pop_back();
    --idle_;
    if (connection->fresh()) return connection;
  }
  idle_by_key_.erase(at);
  return nullptr;
}

void Pool::put(std::shared_ptr<ClientConnection> connection) {
  follow(Scope::here());
  if (idle_max_ <= 0 || connection->aborted() || Scope::here().stopping()) return;
  connection->idle_since_now();
  connection->rest();
  auto& idle = idle_by_key_[connection->key()];
  // The least recently used die first; the check costs one system call and keeps dead sockets from piling up.
  while (!idle.empty() && !idle.front()->fresh()) {
    idle.pop_front();
    --idle_;
  }
  idle.push_back(std::move(connection));
  if (++idle_ > idle_max_) drop_oldest();
}

// Hosts that are no longer called must not keep out those that are.
void Pool::drop_oldest() {
  auto oldest = idle_by_key_.end();
  for (auto at = idle_by_key_.begin(); at != idle_by_key_.end();) {
    if (at->second.empty()) {
      at = idle_by_key_.erase(at);
      continue;
    }
    if (oldest == idle_by_key_.end() || at->second.front()->idle_since() < oldest->second.front()->idle_since()) oldest = at;
    ++at;
  }
  if (oldest == idle_by_key_.end()) return;
  oldest->second.pop_front();
  --idle_;
}

void Pool::follow(Scope& scope) {
  if (scope_ == &scope) return;
  scope_ = &scope;
  stop_.reset();
  stop_.emplace(scope, [this] {
    idle_by_key_.clear();
    idle_ = 0;
    scope_ = nullptr;
  });
}

}  // namespace baton::net
