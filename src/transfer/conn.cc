#include "transfer/conn.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace baton::transfer {

constexpr size_t kIovMax = 256;  // parts of one readv/writev
// Read at most so much, and so many times, before other sockets get their turn. A frame costs two reads however small it is, so
// bytes alone would let a peer that sends heartbeats without end hold the loop for seconds, and others would seem silent.
constexpr size_t kTurnBytes = 16u << 20;
constexpr int kTurnReads = 256;

Conn::Conn(Loop& loop, Fd fd, FrameHandler& handler)
    : loop_(loop), fd_(std::move(fd)), handler_(handler), reader_(handler), heard_ms_(loop.now_ms()) {
  watch_ = loop_.watch(fd_.get(), EPOLLIN, [this](uint32_t events) { ready(events); });
}

Conn::~Conn() {
  *alive_ = false;
  loop_.unwatch(watch_);
}

void Conn::close(Error why) {
  if (broken_) return;
  broken_ = true;
  loop_.unwatch(watch_);
  loop_.defer([this, alive = alive_, why = std::move(why)] {
    if (*alive) handler_.on_closed(why);
  });
}

void Conn::ready(uint32_t events) {
  auto alive = alive_;
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive();
  if (*alive && !broken_ && (events & EPOLLOUT)) flush();
}

void Conn::receive() {
  auto alive = alive_;
  size_t total = 0;
  for (int reads = 0; reads < kTurnReads && total < kTurnBytes; ++reads) {
    auto parts = reader_.want();
    auto n = ::readv(fd_.get(), parts.data(), static_cast<int>(std::min(parts.size(), kIovMax)));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n < 0) return close({Code::kUnavailable, cat("connection lost: ", std::strerror(errno))});
    if (n == 0) return close({Code::kUnavailable, "connection closed by the peer"});
    auto frames = reader_.frames();
    auto r = reader_.got(static_cast<size_t>(n));
    if (!*alive || broken_) return;
    if (reader_.frames() != frames || reader_.in_blocks()) heard_ms_ = loop_.now_ms();
    if (!r) return close(std::move(r).error());
    total += static_cast<size_t>(n);
  }
}

void Conn::enqueue(Item item) {
  if (broken_) return;
  queued_ += item.head.size();
  owned_ += item.head.size();
  if (owned_ > kControlQueueBytes) return close({Code::kResourceExhausted, "the peer does not read"});
  for (const auto& p : item.parts) queued_ += p.iov_len;
  queue_.push_back(std::move(item));
  if (!want_write_) flush();
}

void Conn::send(std::string frame) { enqueue({.head = std::move(frame), .parts = {}, .owned = {}}); }

void Conn::send_chunk(std::string head, std::vector<iovec> borrowed, uint64_t tag) {
  enqueue({.head = std::move(head), .parts = std::move(borrowed), .owned = {}, .tag = tag});
}

void Conn::unborrow(uint64_t tag) {
  for (auto it = queue_.begin(); it != queue_.end();) {
    if (it->tag != tag) {
      ++it;
      continue;
    }
    size_t bytes = 0;
    for (const auto& p : it->parts) bytes += p.iov_len;
    if (!it->begun) {
      queued_ -= it->head.size() + bytes;
      owned_ -= it->head.size();
      it = queue_.erase(it);
      continue;
    }
    std::vector<std::byte> copy;
    copy.reserve(bytes);
    for (const auto& p : it->parts)
      copy.insert(copy.end(), static_cast<std::byte*>(p.iov_base), static_cast<std::byte*>(p.iov_base) + p.iov_len);
    it->owned = std::move(copy);
    it->parts.assign(1, {it->owned.data(), it->owned.size()});
    it->tag = 0;
    ++it;
  }
}

void Conn::flush() {
  bool was_full = queued_ >= kSendQueueBytes;
  while (!queue_.empty()) {
    iovec out[kIovMax];
    size_t n = 0;
    for (auto& item : queue_) {
      if (n + 1 + item.parts.size() > kIovMax && n > 0) break;
      if (!item.head.empty()) out[n++] = {item.head.data(), item.head.size()};
      for (size_t i = 0; i < item.parts.size() && n < kIovMax; ++i) out[n++] = item.parts[i];
    }
    msghdr m{};
    m.msg_iov = out;
    m.msg_iovlen = n;
    auto bytes = ::sendmsg(fd_.get(), &m, MSG_NOSIGNAL);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0 && errno == EAGAIN) break;
    if (bytes < 0) return close({Code::kUnavailable, cat("connection lost: ", std::strerror(errno))});
    sent(static_cast<size_t>(bytes));
  }
  bool want = !queue_.empty();
  if (want != want_write_) {
    want_write_ = want;
    loop_.rewatch(watch_, want ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }
  if (was_full && queued_ < kSendQueueBytes) handler_.on_drained();
}

void Conn::sent(size_t bytes) {
  queued_ -= bytes;
  while (!queue_.empty()) {
    auto& item = queue_.front();
    item.begun = item.begun || bytes > 0;
    auto n = std::min(bytes, item.head.size());
    item.head.erase(0, n);
    owned_ -= n;
    bytes -= n;
    size_t done = 0;
    for (auto& p : item.parts) {
      n = std::min(bytes, p.iov_len);
      p.iov_base = static_cast<std::byte*>(p.iov_base) + n;
      p.iov_len -= n;
      bytes -= n;
      if (p.iov_len > 0) break;
      ++done;
    }
    item.parts.erase(item.parts.begin(), item.parts.begin() + static_cast<std::ptrdiff_t>(done));
    if (!item.head.empty() || !item.parts.empty()) return;
    queue_.pop_front();
  }
}

}  // namespace baton::transfer
