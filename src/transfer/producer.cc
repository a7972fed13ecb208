#include "transfer/producer.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/log.h"
#include "base/prng.h"
#include "transfer/session.h"

namespace baton::transfer {

constexpr size_t kProbeChunkBytes = 1u << 20;  // sent over and over
constexpr size_t kCallersMax = 64;

Producer::Producer(Context& context)
    : context_(context),
      grants_(context.layout(), context.options.lease_ms, context.stats, context.emit),
      probe_(kProbeChunkBytes) {}

Producer::~Producer() {
  context_.loop.unwatch(tcp_watch_);
  context_.loop.unwatch(unix_watch_);
  context_.loop.cancel(timer_);
  context_.loop.cancel(accept_timer_);
  while (!callers_.empty()) drop_caller(callers_.begin()->first);
  sessions_.clear();  // ends their reads
}

Result<> Producer::listen() {
  port_ = context_.options.port;
  if (context_.listens) {
    BATON_TRY(tcp_, tcp_listen({context_.options.host, context_.options.port}));
    BATON_TRY(port_, local_port(tcp_));
    tcp_watch_ = context_.loop.watch(tcp_.get(), EPOLLIN, [this](uint32_t) { accept_sessions(); });
  }
  if (context_.options.transport == "tcp" || context_.boot_id.empty()) return {};
  auto name = cat(kShmNamePrefix, random_hex(32));
  auto fd = unix_listen(name);
  if (!fd) {
    log_warn("kv shared memory unavailable, peers use tcp", "error=\"{}\"", fd.error().message);
    return {};
  }
  unix_ = *std::move(fd);
  shm_name_ = name;
  unix_watch_ = context_.loop.watch(unix_.get(), EPOLLIN, [this](uint32_t) { accept_callers(); });
  return {};
}

void Producer::accept_sessions() {
  while (auto fd = accept_on(tcp_)) {
    if (sessions_.size() >= kSessionsMax) continue;
    tune_tcp(fd, std::max(context_.options.lease_ms, 1000));
    adopt(std::move(fd));
  }
  pause_if_exhausted(tcp_watch_);
}

// Without descriptors to accept with, the listener would stay readable and the loop would spin.
void Producer::pause_if_exhausted(uint64_t watch) {
  if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) return;
  log_warn("kv accept paused", "error=\"{}\"", std::strerror(errno));
  context_.loop.rewatch(watch, 0);
  context_.loop.cancel(accept_timer_);
  accept_timer_ = context_.loop.after(kAcceptPauseMs, [this] {
    context_.loop.rewatch(tcp_watch_, EPOLLIN);
    context_.loop.rewatch(unix_watch_, EPOLLIN);
  });
}

void Producer::adopt(Fd connection) {
  auto session = std::make_unique<Session>(context_, *this, std::move(connection));
  sessions_.emplace(session.get(), std::move(session));
}

void Producer::gone(Session& session) { sessions_.erase(&session); }

// The unix socket hands the pool's descriptor to whoever runs as us and knows the key that its handshake was given.
void Producer::accept_callers() {
  while (auto fd = accept_on(unix_)) {
    if (callers_.size() >= kCallersMax || !same_user(fd)) continue;
    auto id = next_caller_++;
    int raw = fd.get();
    auto& caller = callers_[id] = {.fd = std::move(fd), .watch = 0, .timer = {}};
    caller.watch = context_.loop.watch(raw, EPOLLIN, [this, id](uint32_t) { serve_caller(id); });
    caller.timer = context_.loop.after(kHandshakeMs, [this, id] { drop_caller(id); });
  }
  pause_if_exhausted(unix_watch_);
}

void Producer::serve_caller(uint64_t id) {
  auto& caller = callers_.at(id);
  Nonce key{};
  if (::recv(caller.fd.get(), key.data(), key.size(), 0) == static_cast<ssize_t>(key.size())) {
    for (const auto& [session, owner] : sessions_) {
      if (!session->owns_key(key)) continue;
      if (auto sent = send_descriptor(caller.fd, context_.pool_fd); !sent)
        log_warn("kv pool not shared", "error=\"{}\"", sent.error().message);
      break;
    }
  }
  drop_caller(id);
}

void Producer::drop_caller(uint64_t id) {
  auto it = callers_.find(id);
  if (it == callers_.end()) return;
  context_.loop.unwatch(it->second.watch);
  context_.loop.cancel(it->second.timer);
  callers_.erase(it);
}

void Producer::offer(const Token& token, Offer offer) {
  grants_.offer(token, std::move(offer), context_.loop.now_ms());
  arm();
}

void Producer::release(uint64_t request) {
  stop_readers(grants_.revoke(request, context_.loop.now_ms()));
  arm();
}

void Producer::promise(const Token& token, Offer offer) {
  if (!grants_.promise(token, std::move(offer))) return refuse(token, {Code::kAlreadyExists, "the token was used before"});
  auto waiting = awaits_.extract(token);
  if (waiting) waiting.mapped().session->answer_await(waiting.mapped().op, std::nullopt);
}

void Producer::progress(uint64_t request, std::vector<int32_t> blocks, int32_t ready_tokens) {
  if (!blocks.empty() && !grants_.has(request)) {  // its reader declined before the prefill began
    Event event;
    event.kind = Event::Kind::kPromiseGone;
    event.request = request;
    return context_.emit(std::move(event));
  }
  advance(grants_.progress(request, std::move(blocks), ready_tokens));
}

void Producer::complete(uint64_t request, Completion completion) {
  advance(grants_.complete(request, std::move(completion), context_.loop.now_ms()));
  arm();
}

void Producer::advance(const std::vector<Token>& tokens) {
  for (auto& reader : readers(tokens)) reader.session->advance(reader.op);
}

void Producer::refuse(const Token& token, Error why) {
  if (grants_.find(token) != nullptr) return;  // promised meanwhile: it is the request's to end
  grants_.remember(token);
  auto waiting = awaits_.extract(token);
  if (waiting) waiting.mapped().session->answer_await(waiting.mapped().op, std::move(why));
}

bool Producer::await(const Token& token, Session& session, uint64_t op) {
  return awaits_.size() < kAwaitsMax && awaits_.try_emplace(token, Reader{&session, op}).second;
}

void Producer::drop_await(const Token& token) {
  awaits_.erase(token);
  grants_.remember(token);
}

void Producer::reading(const Token& token, Session& session, uint64_t op) { readers_.emplace(token, Reader{&session, op}); }

void Producer::read_ended(const Token& token, Session& session, uint64_t op) {
  auto [begin, end] = readers_.equal_range(token);
  auto it = std::find_if(begin, end, [&](const auto& r) { return r.second == Reader{&session, op}; });
  if (it != end) readers_.erase(it);
  grants_.close(token);
  arm();
}

std::vector<Producer::Reader> Producer::readers(const std::vector<Token>& tokens) const {
  std::vector<Reader> out;
  for (const auto& token : tokens) {
    auto [begin, end] = readers_.equal_range(token);
    for (auto it = begin; it != end; ++it) out.push_back(it->second);
  }
  return out;
}

void Producer::stop_readers(const std::vector<Token>& tokens) {
  for (auto& reader : readers(tokens)) reader.session->stop_read(reader.op);  // which may end it
}

void Producer::arm() {
  auto due = grants_.next_deadline_ms();
  if (due == timer_.first) return;
  context_.loop.cancel(timer_);
  timer_ = {};
  if (due != INT64_MAX) timer_ = context_.loop.at(due, [this] { on_deadline(); });
}

void Producer::on_deadline() {
  timer_ = {};
  auto due = grants_.expire(context_.loop.now_ms());
  stop_readers(due.stop);
  for (auto& reader : readers(due.overdue)) reader.session->cut("did not stop reading a revoked grant");
  arm();
}

}  // namespace baton::transfer
