#include "transfer/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

namespace baton::transfer {

Fd::~Fd() {
  if (fd_ >= 0) ::close(fd_);
}

Loop::Loop(const Clock& clock) : clock_(clock) {}

Result<> Loop::open() {
  epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_ || !event_) return fail(Code::kResourceExhausted, "epoll: ", std::strerror(errno));
  epoll_event e{.events = EPOLLIN, .data = {.u64 = 0}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, event_.get(), &e);
  return {};
}

void Loop::post(Callback fn) {
  std::unique_lock lock(mutex_);
  inbox_.push_back(std::move(fn));
  if (inbox_.size() > 1) return;  // the wakeup for the first of them is still under way
  lock.unlock();
  uint64_t one = 1;
  [[maybe_unused]] auto n = ::write(event_.get(), &one, sizeof one);  // a full counter is readable too
}

void Loop::stop() {
  post([this] { stop_ = true; });
}

void Loop::drain_inbox() {
  std::vector<Callback> batch;
  {
    std::scoped_lock lock(mutex_);
    batch.swap(inbox_);
  }
  for (auto& fn : batch) fn();
}

uint64_t Loop::watch(int fd, uint32_t events, Ready ready) {
  uint64_t id = next_id_++;
  epoll_event e{.events = events, .data = {.u64 = id}};
  BATON_CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &e) == 0);
  watches_[id] = {fd, std::make_shared<Ready>(std::move(ready))};
  return id;
}

void Loop::rewatch(uint64_t watch, uint32_t events) {
  auto it = watches_.find(watch);
  if (it == watches_.end()) return;
  epoll_event e{.events = events, .data = {.u64 = watch}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, it->second.fd, &e);
}

void Loop::unwatch(uint64_t watch) {
  auto it = watches_.find(watch);
  if (it == watches_.end()) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, it->second.fd, nullptr);
  watches_.erase(it);
}

Loop::TimerId Loop::at(int64_t due_ms, Callback fn) {
  TimerId id{due_ms, next_id_++};
  timers_.emplace(id, std::move(fn));
  return id;
}

int Loop::wait_ms() const {
  if (!deferred_.empty()) return 0;
  if (timers_.empty()) return -1;
  return static_cast<int>(std::clamp<int64_t>(timers_.begin()->first.first - now_ms(), 0, INT_MAX));
}

void Loop::run_timers() {
  // Timers set meanwhile wait for the next round, so that one that re-arms itself at once cannot starve the sockets.
  auto now = now_ms();
  auto last = next_id_;
  while (!timers_.empty()) {
    auto it = timers_.begin();
    if (it->first.first > now || it->first.second >= last) return;
    auto fn = std::move(it->second);
    timers_.erase(it);
    fn();
  }
}

void Loop::run_deferred() {
  while (!deferred_.empty()) {
    std::vector<Callback> batch;
    batch.swap(deferred_);
    for (auto& fn : batch) fn();
  }
}

void Loop::turn(int wait_max_ms) {
  epoll_event events[64];
  auto wait = wait_ms();
  if (wait_max_ms >= 0 && (wait < 0 || wait > wait_max_ms)) wait = wait_max_ms;
  int n = ::epoll_wait(epoll_.get(), events, std::size(events), wait);
  for (int i = 0; i < n; ++i) {
    uint64_t count = 0;
    if (events[i].data.u64 == 0) [[maybe_unused]]
      auto r = ::read(event_.get(), &count, sizeof count);
  }
  drain_inbox();
  run_deferred();
  for (int i = 0; i < n && !stop_; ++i) {
    uint64_t id = events[i].data.u64;  // a copy: the struct is packed
    auto it = watches_.find(id);
    if (it == watches_.end()) continue;
    auto ready = it->second.ready;  // stays alive while it runs, even if it unwatches itself
    (*ready)(events[i].events);
    run_deferred();
  }
  run_timers();
  run_deferred();
}

void Loop::run() {
  while (!stop_) turn(-1);
}

}  // namespace baton::transfer
