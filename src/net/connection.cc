#include "net/connection.h"

#include "base/clock.h"
#include "base/log.h"
#include "net/limits.h"
#include "net/responder.h"
#include "net/tune.h"
#include "wire/errors.h"

namespace baton::net {
namespace {

constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Drops n bytes from the front; true if nothing is left.
bool consume(Connection::Buffers& buffers, size_t n) {
  bool empty = true;
  for (auto& b : buffers) {
    size_t taken = std::min(n, b.size());
    b += taken;
    n -= taken;
    if (b.size() > 0) empty = false;
  }
  return empty;
}

}  // namespace

Connection::Connection(ServerThread& thread, Channel channel)
    : thread_(thread),
      channel_(std::move(channel)),
      peer_(peer_name(channel_.socket())),
      deadline_(thread.scope, [this] { on_deadline(); }),
      decoder_(thread.options.header_bytes_max, thread.options.body_bytes_max),
      cancel_(std::make_unique<Cancel>()) {
  at_ = thread_.connections.insert(thread_.connections.end(), this);
  tune(channel_.socket());
}

Connection::~Connection() = default;

Task<> Connection::run() {
  auto self = shared_from_this();
  bool secure = co_await handshake();
  if (secure && thread_.options.http2 && channel_.alpn() == "h2") co_await serve_http2();
  while (secure && !http2_) {
    auto got = co_await read_request();
    if (got && !*got && may_be_http2()) {
      co_await serve_http2();
      break;
    }
    if (!got) co_await refuse(got.error());
    if (!got || !*got) break;
    bool keep_alive = decoder_.keep_alive(), http10 = decoder_.http10();
    Request request = decoder_.take();
    request.listener = std::exchange(listener_, nullptr);
    request.peer = peer_;
    request.arrived_ns = SteadyClock().now_ns();
    if (!co_await answer(request, keep_alive, http10)) break;
  }
  deadline_.clear();
  channel_.close();
  thread_.connections.erase(at_);
}

Task<> Connection::turn_away() {
  auto self = shared_from_this();
  if (co_await handshake()) co_await refuse({503, "too many connections"});
  deadline_.clear();
  channel_.close();
  thread_.connections.erase(at_);
}

// True: plaintext, or TLS is established.
Task<bool> Connection::handshake() {
  if (!channel_.secure()) co_return true;
  handshaking_ = true;
  deadline_.set(thread_.options.header_timeout);
  ErrorCode ec = channel_.handshake();
  while (ec == asio::error::would_block && !timed_out_ && !gone_) {
    auto& socket = channel_.socket();
    std::tie(ec) = co_await socket.async_wait(channel_.unsent() ? tcp::socket::wait_write : tcp::socket::wait_read, kAwait);
    if (!ec) ec = channel_.handshake();
  }
  handshaking_ = false;
  deadline_.clear();
  if (ec && !gone_) log_debug("TLS handshake failed", "peer={} why={}", peer_, channel_.why_or(ec));
  co_return !ec && !timed_out_ && !gone_ && !thread_.scope.stopping();
}

// The first bytes are, or may yet become, HTTP/2's preface.
bool Connection::may_be_http2() {
  if (!first_ || !thread_.options.http2 || input_.empty() || decoder_.started()) return false;
  return kHttp2Preface.starts_with(input_.view().substr(0, kHttp2Preface.size()));
}

Task<> Connection::serve_http2() {
  deadline_.clear();
  if (!thread_.h2) thread_.h2 = std::make_unique<H2Loop>(thread_.scope);
  Event ended;
  http2_ = std::make_shared<Http2Connection>(thread_, std::move(channel_), ended);
  http2_->start(input_.view());
  input_.consume(input_.size());
  if (thread_.draining) http2_->drain();
  if (thread_.scope.stopping()) http2_->abort();
  co_await ended.wait();
}

// True: decoder_ holds a whole request. False: the client left, was idle too long, or we are draining.
Task<std::expected<bool, Refusal>> Connection::read_request() {
  const ServerOptions& options = thread_.options;
  phase_ = Phase::kIdle;
  deadline_.set(options.idle_timeout);
  input_.lend_to(thread_.scope.spare());
  bool continued = false;
  listener_ = nullptr;
  heard_ = 0;
  for (;;) {
    bool progress = false;
    if (may_be_http2() && !gone_ && !eof_ && !timed_out_) {
      if (input_.size() >= kHttp2Preface.size()) co_return false;
      deadline_.set(options.header_timeout);
      co_await more_input();
      continue;
    }
    while (!input_.empty() && !decoder_.done()) {
      auto used = decoder_.feed(input_.view());
      if (!used) co_return std::unexpected(used.error());
      if (*used == 0) break;
      input_.consume(*used);
      progress = true;
    }
    if (decoder_.started()) first_ = false;
    if (progress && options.listen && decoder_.head_done()) hear_body();
    if (decoder_.done()) co_return true;
    if (gone_) co_return false;
    if (eof_) {
      if (decoder_.started()) log_debug("client closed inside a request", "peer={}", peer_);
      co_return false;
    }
    if (timed_out_) {
      if (!decoder_.started()) co_return false;
      co_return std::unexpected(Refusal{408, "the request did not arrive in time"});
    }
    if (phase_ == Phase::kIdle && decoder_.started()) {
      phase_ = Phase::kHead;
      deadline_.set(options.header_timeout);
    }
    if (phase_ == Phase::kIdle && thread_.draining) co_return false;
    if (decoder_.head_done() && (phase_ != Phase::kBody || progress)) {
      phase_ = Phase::kBody;
      deadline_.set(options.body_timeout);
    }
    if (!continued && decoder_.wants_continue()) {
      continued = true;
      (void)co_await write({asio::buffer("HTTP/1.1 100 Continue\r\n\r\n", 25), {}, {}, {}});
    }
    co_await more_input();
  }
}

void Connection::hear_body() {
  if (phase_ != Phase::kBody && !decoder_.done()) listener_ = thread_.options.listen(decoder_.method(), decoder_.target());
  if (listener_) listener_->on_body(decoder_.body().substr(heard_));
  heard_ = decoder_.body().size();
}

Task<> Connection::more_input() {
  watch();
  co_await input_event_.wait();
}

// Runs the handler. True if the connection may carry another request.
Task<bool> Connection::answer(Request& request, bool keep_alive, bool http10) {
  phase_ = Phase::kHandler;
  deadline_.clear();
  input_.lend_to(thread_.scope.spare());
  cancel_ = std::make_unique<Cancel>();
  watch();
  ++*thread_.in_flight;
  Responder responder(*this, request.method == "HEAD", keep_alive, http10);
  std::string failure;
  try {
    co_await thread_.handler(request, responder);
  } catch (const std::exception& e) {
    failure = e.what();
  }
  if (!failure.empty()) log_error("request handler threw", "method={} path={} what={}", request.method, request.path, failure);
  if (!responder.started() && !gone_) {
    (void)co_await responder.send(Response::json(500, wire::error_json(500, "the server did not answer the request")));
  }
  --*thread_.in_flight;
  if (responder.reusable() && !gone_) co_return true;
  if (responder.finished() && !gone_) co_await linger();
  co_return false;
}

Task<> Connection::refuse(const Refusal& refusal) {
  log_debug("request refused", "peer={} status={} why={}", peer_, refusal.status, refusal.message);
  phase_ = Phase::kHandler;
  timed_out_ = false;
  Responder responder(*this, false, false, false);
  Response response = Response::json(refusal.status, wire::error_json(refusal.status, refusal.message));
  if (refusal.status == 503) response.headers.set("retry-after", "1");
  (void)co_await responder.send(std::move(response));
  if (!gone_) co_await linger();
}

// Closing a socket with unread input resets it, and the reset can destroy the answer before the client has read it. So: say that
// we are done, then read and drop until the client closes too, for a bounded time and volume.
Task<> Connection::linger() {
  phase_ = Phase::kLinger;
  ErrorCode ec;
  channel_.socket().shutdown(tcp::socket::shutdown_send, ec);
  deadline_.set(kLingerTimeout);
  while (!ec && !eof_ && !gone_ && !timed_out_ && lingered_bytes_ < kLingerBytesMax && !thread_.scope.stopping()) {
    lingered_bytes_ += input_.size();
    input_.consume(input_.size());
    co_await more_input();
  }
}

void Connection::watch() {
  if (watching_ || eof_ || gone_) return;
  watching_ = true;
  channel_.wait_read([self = shared_from_this()](ErrorCode ec) { self->on_readable(ec); });
}

void Connection::on_readable(ErrorCode ec) {
  watching_ = false;
  if (!ec) {
    input_.borrow_from(thread_.scope.spare());
    auto room = input_.prepare(kReadBytes);
    size_t n = channel_.read(room, ec);
    input_.commit(n);
    input_.lend_to(thread_.scope.spare());  // if it was nothing
  }
  if (ec == asio::error::would_block || ec == asio::error::try_again) ec = {};
  if (ec) {
    eof_ = true;
    if (phase_ == Phase::kHandler) leave();
  }
  input_event_.set();
  if (phase_ == Phase::kHandler && input_.size() < kPipelineBytesMax) watch();
}

// The client is gone: nothing more can be sent, and whoever works for it stops.
void Connection::leave() {
  if (gone_) return;
  gone_ = true;
  if (http2_) return http2_->abort();
  channel_.close();
  input_event_.set();
  cancel_->cancel();
}

void Connection::abort() { leave(); }

void Connection::drain() {
  if (http2_) return http2_->drain();
  if (phase_ == Phase::kIdle && !decoder_.started() && input_.empty()) {
    ErrorCode ec;
    eof_ = true;
    channel_.socket().cancel(ec);
    input_event_.set();
  }
}

void Connection::on_deadline() {
  timed_out_ = true;
  if (handshaking_) return channel_.close();
  if (writing_) {
    log_warn("client does not read its response, closing", "peer={}", peer_);
    return leave();
  }
  input_event_.set();
}

bool Connection::try_write(Buffers& buffers, ErrorCode& ec) {
  std::array<iovec, std::tuple_size_v<Buffers>> pieces;
  size_t used = 0;
  for (const auto& b : buffers) {
    if (b.size() > 0) pieces[used++] = {const_cast<void*>(b.data()), b.size()};
  }
  size_t n = channel_.write({pieces.data(), used}, ec);
  if (ec == asio::error::would_block || ec == asio::error::try_again) ec = {};
  return !ec && consume(buffers, n) && !channel_.unsent();
}

Task<Result<>> Connection::write(Buffers buffers) {
  if (gone_) co_return fail(Code::kCancelled, "client is gone");
  std::string corked = std::exchange(corked_, {});
  if (!corked.empty()) {
    std::move_backward(buffers.begin(), buffers.end() - 1, buffers.end());
    buffers[0] = asio::buffer(corked);
  }
  if (asio::buffer_size(buffers) == 0) co_return Result<>();
  ErrorCode ec;
  bool all = try_write(buffers, ec);
  writing_ = true;
  while (!all && !ec && !gone_) {
    deadline_.set(thread_.options.write_timeout);
    std::tie(ec) = co_await channel_.socket().async_wait(tcp::socket::wait_write, kAwait);
    if (!ec && !gone_) all = try_write(buffers, ec);
  }
  if (writing_ && phase_ == Phase::kHandler) deadline_.clear();
  writing_ = false;
  if (all) co_return Result<>();
  leave();
  co_return fail(Code::kCancelled, "client is gone");
}

void Connection::cork(std::string head) {
  corked_ = std::move(head);
  asio::post(thread_.scope.context(), [self = shared_from_this()] {
    if (self->corked_.empty() || self->gone_ || self->writing_) return;
    Buffers buffers{asio::buffer(self->corked_)};
    ErrorCode ec;
    if (self->try_write(buffers, ec)) {
      self->corked_.clear();
    } else if (ec) {
      self->leave();
    } else {
      self->corked_.erase(0, self->corked_.size() - buffers[0].size());  // the socket is full; the next write goes on
    }
  });
}

}  // namespace baton::net
