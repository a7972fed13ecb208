#include "net/h2_connection.h"

#include "base/log.h"
#include "base/result.h"

namespace baton::net {

H2Connection::H2Connection(H2Loop& loop, Channel channel, const H2Options& options, size_t unsent_bytes_max)
    : loop_(loop),
      channel_(std::move(channel)),
      peer_(peer_name(channel_.socket())),
      session_(*this, options),
      deadline_(loop.scope,
                [this] {
                  auto self = shared_from_this();
                  leave(writing_ ? "peer does not read" : "no HTTP/2 preface in time");
                }),
      unsent_bytes_max_(unsent_bytes_max) {
  if (!loop_.input) loop_.input = std::make_unique_for_overwrite<char[]>(kH2ReadBytes);
}

H2Connection::~H2Connection() = default;

void H2Connection::start(std::string_view already_read) {
  index_ = loop_.connections.size();
  loop_.connections.push_back(shared_from_this());
  started_ = true;
  deadline_.set(kH2PrefaceTimeout);
  bool alive = already_read.empty() || session_.feed(already_read);
  flush();
  if (!alive) return leave(session_.broken());
  if (!writing_ && session_.established()) deadline_.clear();
  watch();
}

void H2Connection::watch() {
  if (gone_) return;
  channel_.wait_read([self = shared_from_this()](ErrorCode ec) { self->on_readable(ec); });
}

void H2Connection::on_readable(ErrorCode ec) {
  if (gone_) return;
  if (ec) return leave(ec.message());
  if (!read_once()) return;
  if (!writing_ && session_.established()) deadline_.clear();
  watch();
}

// False: the connection is gone.
bool H2Connection::read_once() {
  ErrorCode ec;
  size_t n = channel_.read({loop_.input.get(), kH2ReadBytes}, ec);
  bool alive = true;
  if (n > 0) {
    feeding_ = true;  // what it makes us say goes out right below, not at the end of the turn
    alive = session_.feed({loop_.input.get(), n});
    feeding_ = false;
  }
  if (gone_) return false;
  if (n > 0 || channel_.unsent() || !session_.established()) flush();
  if (gone_) return false;
  if (!alive) return leave(session_.broken()), false;
  if (ec && ec != asio::error::would_block) {
    return leave(channel_.why_or(ec)), false;
  }
  return true;
}

void H2Connection::on_output() {
  if (dirty_ || gone_ || feeding_ || !started_) return;
  dirty_ = true;
  loop_.dirty.push_back(shared_from_this());
  if (std::exchange(loop_.flush_posted, true)) return;
  asio::post(loop_.scope.context(), [&loop = loop_] { flush_all(loop); });
}

void H2Connection::flush_all(H2Loop& loop) {
  loop.flush_posted = false;
  for (size_t i = 0; i < loop.dirty.size(); ++i) {
    auto connection = std::move(loop.dirty[i]);
    connection->dirty_ = false;
    connection->flush();
  }
  loop.dirty.clear();
}

void H2Connection::flush() {
  if (gone_) return;
  if (session_.unsent() + unsent_.size() > unsent_bytes_max_) return leave("peer does not read: too many bytes unsent");
  if (writing_) return;
  while (send_unsent() && send_gathered()) {
  }
  if (!gone_ && session_.done() && unsent_at_ == unsent_.size() && !channel_.unsent()) leave("");
}

// True: nothing is left over from before.
bool H2Connection::send_unsent() {
  while (unsent_at_ < unsent_.size() || channel_.unsent()) {
    iovec rest{unsent_.data() + unsent_at_, unsent_.size() - unsent_at_};
    ErrorCode ec;
    unsent_at_ += channel_.write({&rest, rest.iov_len > 0 ? 1u : 0u}, ec);
    if (ec == asio::error::would_block || (!ec && channel_.unsent())) return wait_writable(), false;
    if (ec) return leave(ec.message()), false;
  }
  unsent_at_ = 0;
  if (!unsent_.empty()) std::string().swap(unsent_);
  return true;
}

// True: all that was gathered is sent and there may be more.
bool H2Connection::send_gathered() {
  if (!channel_.ready()) return false;  // the session's first frames wait for the handshake
  H2Output& output = loop_.output;
  output.clear();
  session_.gather(output, channel_.secure());
  bool more = output.bytes() >= kH2SendBytes;
  ErrorCode ec;
  if (!output.empty()) {
    output.iovecs(loop_.iovecs);
    std::span<iovec> rest(loop_.iovecs);
    size_t sent = channel_.write(rest, ec);
    for (; !rest.empty() && sent >= rest.front().iov_len; rest = rest.subspan(1)) sent -= rest.front().iov_len;
    for (; !rest.empty(); rest = rest.subspan(1), sent = 0) {
      unsent_.append(static_cast<const char*>(rest.front().iov_base) + sent, rest.front().iov_len - sent);
    }
  }
  session_.reap();
  if (gone_) return false;
  if (ec && ec != asio::error::would_block) return leave(ec.message()), false;
  return (more || !unsent_.empty() || channel_.unsent()) && send_unsent() && more;
}

void H2Connection::wait_writable() {
  if (std::exchange(writing_, true)) return;
  deadline_.set(kH2StallTimeout);
  channel_.wait_write([self = shared_from_this()](ErrorCode ec) { self->on_writable(ec); });
}

void H2Connection::on_writable(ErrorCode ec) {
  if (gone_) return;
  writing_ = false;
  deadline_.clear();
  if (ec) return leave(ec.message());
  flush();
}

void H2Connection::drain() {
  if (gone_ || std::exchange(draining_, true)) return;
  if (!channel_.ready()) return leave("");
  session_.drain();
}

void H2Connection::abort() {
  auto self = shared_from_this();
  leave("");
}

void H2Connection::leave(std::string_view why) {
  if (std::exchange(gone_, true)) return;
  auto self = shared_from_this();
  if (!why.empty()) log_debug("HTTP/2 connection ends", "peer={} why={}", peer_, why);
  session_.close_all();  // first: who sees the socket close finds the calls gone
  deadline_.clear();
  channel_.close();
  auto& list = loop_.connections;
  if (started_) {
    list.back()->index_ = index_;
    std::swap(list[index_], list.back());
    list.pop_back();
  }
  on_gone();
}

std::string peer_name(const tcp::socket& socket) {
  ErrorCode ec;
  auto endpoint = socket.remote_endpoint(ec);
  if (ec) return "unknown";
  auto address = endpoint.address();
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    address = asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
  }
  if (address.is_v6()) return cat('[', address.to_string(), "]:", endpoint.port());
  return cat(address.to_string(), ':', endpoint.port());
}

}  // namespace baton::net
