#include "net/client_connection.h"

#include <sys/socket.h>

#include "net/limits.h"
#include "net/tune.h"

namespace baton::net {

ClientConnection::ClientConnection(Scope& scope, std::string key)
    : key_(std::move(key)),
      socket_(scope.context()),
      resolver_(scope.context()),
      deadline_(scope, [this] { abort(deadline_code_, deadline_why_); }) {}

void ClientConnection::abort(Code code, std::string_view why) {
  if (aborted_) return;
  aborted_ = Error{code, std::string(why)};
  ErrorCode ec;
  resolver_.cancel();
  socket_.close(ec);
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

Task<Result<>> ClientConnection::connect(const std::string& host, int port, Millis timeout) {
  std::string where = cat("cannot connect to ", host, ':', port);
  std::string late = cat(where, ": no answer within ", timeout.count(), " ms");
  deadline_code_ = Code::kUnavailable;
  deadline(timeout, late.c_str());
  ErrorCode ec;
  auto address = asio::ip::make_address(host, ec);
  if (!ec) {
    if (!aborted_) std::tie(ec) = co_await socket_.async_connect({address, static_cast<uint16_t>(port)}, kAwait);
  } else {
    tcp::resolver::results_type found;
    if (!aborted_) std::tie(ec, found) = co_await resolver_.async_resolve(host, std::to_string(port), kAwait);
    if (!ec && !aborted_) std::tie(ec, std::ignore) = co_await asio::async_connect(socket_, found, kAwait);
  }
  deadline(Millis(0), "");
  deadline_code_ = Code::kDeadlineExceeded;
  if (ec || aborted_) co_return failed(Code::kUnavailable, where, ec);
  tune(socket_);
  co_return Result<>();
}

Task<Result<>> ClientConnection::write(std::string_view head, std::string_view body) {
  std::array<asio::const_buffer, 2> buffers{asio::buffer(head), asio::buffer(body)};
  while (asio::buffer_size(buffers) > 0) {
    ErrorCode ec;
    if (aborted_) co_return std::unexpected(*aborted_);
    size_t n = socket_.write_some(buffers, ec);
    size_t from_head = std::min(n, buffers[0].size());
    buffers[0] += from_head;
    buffers[1] += n - from_head;
    if (ec == asio::error::would_block || ec == asio::error::try_again) {
      std::tie(ec) = co_await socket_.async_wait(tcp::socket::wait_write, kAwait);
    }
    if (ec || aborted_) co_return failed(Code::kUnavailable, "upstream closed the connection", ec);
  }
  co_return Result<>();
}

Task<Result<size_t>> ClientConnection::receive() {
  if (aborted_) co_return std::unexpected(*aborted_);
  auto room = input_.prepare(kReadBytes);
  auto [ec, n] = co_await socket_.async_read_some(asio::buffer(room.data(), room.size()), kAwait);
  if (aborted_) co_return std::unexpected(*aborted_);
  if (ec == asio::error::eof) co_return size_t{0};
  if (ec) co_return failed(Code::kUnavailable, "upstream closed the connection", ec);
  input_.commit(n);
  co_return n;
}

bool ClientConnection::fresh() const {
  if (aborted_ || std::chrono::steady_clock::now() - idle_since_ > kPooledIdleMax) return false;
  char byte;
  // Open and silent is the only state that answers "would block".
  ssize_t n = ::recv(const_cast<tcp::socket&>(socket_).native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
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
  if (idle_ >= idle_max_ || connection->aborted() || Scope::here().stopping()) return;
  connection->idle_since_now();
  connection->input().shrink(kBufferKeptBytes);
  auto& idle = idle_by_key_[connection->key()];
  // The least recently used die first; the check costs one system call and keeps dead sockets from piling up.
  while (!idle.empty() && !idle.front()->fresh()) {
    idle.pop_front();
    --idle_;
  }
  idle.push_back(std::move(connection));
  ++idle_;
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
