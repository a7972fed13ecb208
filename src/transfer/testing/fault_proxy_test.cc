#include "transfer/testing/fault_proxy.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

namespace baton::transfer::testing {

std::string describe(const Fault& f) {
  static constexpr const char* kNames[] = {"cut", "stall", "flip", "drop", "trickle"};
  return cat(kNames[static_cast<int>(f.kind)], f.to_consumer ? " to consumer" : " to producer", " after ", f.after, " length ",
             f.length);
}

FaultProxy::FaultProxy(int target_port, uint64_t seed) : target_port_(target_port), prng_(seed) {
  auto listener = tcp_listen({"127.0.0.1", 0});
  BATON_CHECK(listener.has_value());
  listener_ = *std::move(listener);
  port_ = *local_port(listener_);
  int ends[2];
  BATON_CHECK(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
  wake_read_ = Fd(ends[0]);
  wake_write_ = Fd(ends[1]);
  thread_ = std::thread([this] { run(); });
}

FaultProxy::~FaultProxy() {
  {
    std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  wake();
  thread_.join();
}

void FaultProxy::wake() { [[maybe_unused]] auto n = ::write(wake_write_.get(), "w", 1); }

void FaultProxy::arm(Fault fault) {
  std::scoped_lock lock(mutex_);
  fault_ = fault;
  seen_ = 0;
  triggered_ = false;
}

bool FaultProxy::wait_triggered() {
  std::unique_lock lock(mutex_);
  return triggered_cv_.wait_for(lock, std::chrono::minutes(1), [this] { return triggered_; });
}

void FaultProxy::clear() {
  {
    std::scoped_lock lock(mutex_);
    fault_.reset();
    stalled_ = false;
    trickle_ = drop_ = 0;
  }
  wake();
}

void FaultProxy::accept_one() {
  auto consumer = accept_on(listener_);
  if (!consumer) return;
  auto producer = tcp_connect((*resolve({"127.0.0.1", target_port_}, true))[0]);
  if (!producer) return;
  pollfd p{producer->get(), POLLOUT, 0};
  ::poll(&p, 1, 10'000);
  if (!connect_result(*producer)) return;
  auto pair = std::make_unique<Pair>();
  pair->consumer = std::move(consumer);
  pair->producer = *std::move(producer);
  tune_tcp(pair->consumer, 10'000);
  tune_tcp(pair->producer, 10'000);
  pair->pipes[0] = {pair->producer.get(), pair->consumer.get(), true, {}};
  pair->pipes[1] = {pair->consumer.get(), pair->producer.get(), false, {}};
  pairs_.push_back(std::move(pair));
}

// Takes bytes into the pipe's pending ones, through the fault; false = cut.
bool FaultProxy::apply(Pipe& pipe, std::string bytes) {
  std::scoped_lock lock(mutex_);
  if (fault_ && fault_->to_consumer == pipe.to_consumer) {
    auto at = fault_->after - std::min(fault_->after, seen_);
    bool here = fault_->after >= seen_ && at < bytes.size();
    seen_ += bytes.size();
    if (here) {
      auto fault = *fault_;
      fault_.reset();
      triggered_ = true;
      triggered_cv_.notify_all();
      switch (fault.kind) {
        case Fault::Kind::kCut:
          return false;
        case Fault::Kind::kStall:
          stalled_ = true;
          break;
        case Fault::Kind::kFlip:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << prng_.below(8)));
          break;
        case Fault::Kind::kDrop:
          bytes.erase(at, fault.length);
          break;
        case Fault::Kind::kTrickle:
          trickle_ = fault.length;
          break;
      }
    }
  }
  pipe.pending += bytes;
  return true;
}

bool FaultProxy::pump(Pipe& pipe, bool readable) {
  constexpr size_t kPendingMax = 1u << 20;
  if (readable && pipe.pending.size() < kPendingMax) {
    std::string bytes(64u << 10, '\0');
    auto n = ::recv(pipe.from, bytes.data(), bytes.size(), 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (n > 0) {
      bytes.resize(static_cast<size_t>(n));
      if (!apply(pipe, std::move(bytes))) return false;
    }
  }
  while (!pipe.pending.empty()) {
    size_t n = pipe.pending.size();
    {
      std::scoped_lock lock(mutex_);
      if (stalled_) return true;
      if (trickle_ > 0) {
        n = std::min<size_t>({n, 1 + prng_.below(97), trickle_});
        trickle_ -= n;
      }
    }
    auto sent = ::send(pipe.to, pipe.pending.data(), n, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    pipe.pending.erase(0, static_cast<size_t>(sent));
  }
  return true;
}

void FaultProxy::run() {
  while (true) {
    bool stalled = false;
    {
      std::scoped_lock lock(mutex_);
      if (stop_) return;
      stalled = stalled_;
    }
    std::vector<pollfd> fds = {{listener_.get(), POLLIN, 0}, {wake_read_.get(), POLLIN, 0}};
    for (auto& pair : pairs_) {
      for (auto& pipe : pair->pipes) {
        // In a stall the ends are still watched, for their going away (RDHUP), but nothing is read or written.
        auto events = stalled ? POLLRDHUP : POLLIN;
        auto& other = pair->pipes[pipe.to_consumer ? 1 : 0];
        if (!stalled && !other.pending.empty()) events |= POLLOUT;
        fds.push_back({pipe.from, static_cast<short>(events), 0});
      }
    }
    ::poll(fds.data(), fds.size(), -1);
    char drain[64];
    [[maybe_unused]] auto n = ::read(wake_read_.get(), drain, sizeof drain);
    for (size_t i = 0; i < pairs_.size(); ++i) {
      auto& pair = *pairs_[i];
      for (size_t k = 0; k < 2; ++k) {
        auto revents = fds[2 + 2 * i + k].revents;
        if (stalled ? (revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0
                    : !pump(pair.pipes[k], (revents & (POLLIN | POLLHUP | POLLERR)) != 0))
          pair.dead = true;
      }
    }
    bool knock = (fds[0].revents & POLLIN) != 0;
    std::erase_if(pairs_, [](const auto& p) { return p->dead; });
    if (knock) accept_one();
  }
}

}  // namespace baton::transfer::testing
