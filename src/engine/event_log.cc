#include "engine/event_log.h"

#include "engine/limits.h"
#include "wire/errors.h"
#include "wire/openai_response.h"

namespace baton::engine {

void EventLog::tell() {
  std::erase_if(watchers_, [](const auto& watcher) { return watcher.expired(); });
  for (const auto& watcher : watchers_) {
    if (const auto wake = watcher.lock()) wake->push(0);
  }
}

void EventLog::add(std::string_view events) {
  std::lock_guard lock(mutex_);
  if (ended_) return;
  while (!events.empty()) {
    constexpr std::string_view kEnd = "\n\n";
    const size_t end = events.find(kEnd), size = end == std::string_view::npos ? events.size() : end + kEnd.size();
    events_.emplace_back(events.substr(0, size));
    bytes_ += size;
    events.remove_prefix(size);
  }
  for (; bytes_ > bytes_max_; ++first_) {
    bytes_ -= events_.front().size();
    events_.pop_front();
  }
  tell();
}

void EventLog::refuse(net::Response answer) {
  std::lock_guard lock(mutex_);
  if (!ended_) refused_ = std::move(answer);
  ended_ = true;
  tell();
}

void EventLog::end() {
  std::lock_guard lock(mutex_);
  ended_ = true;
  tell();
}

bool EventLog::ended() const {
  std::lock_guard lock(mutex_);
  return ended_;
}

EventLog::Part EventLog::read(size_t from) const {
  std::lock_guard lock(mutex_);
  Part part{.next = from, .refused = refused_};
  if (from < first_) {
    part.lost = true;
    return part;
  }
  for (; part.next - first_ < events_.size() && part.bytes.size() < kEventReadBytes; ++part.next)
    part.bytes += events_[part.next - first_];
  part.ended = ended_ && part.next - first_ >= events_.size();
  return part;
}

void EventLog::watch(const std::shared_ptr<Wake>& wake) {
  std::lock_guard lock(mutex_);
  watchers_.push_back(wake);
}

net::Task<Result<>> LogWriter::send(net::Response response) {
  started_ = true;
  if (response.status >= 400)
    log_->refuse(std::move(response));
  else
    log_->end();
  co_return Result<>();
}

net::Task<Result<>> LogWriter::begin(int, net::Headers) {
  started_ = true;
  co_return Result<>();
}

net::Task<Result<>> LogWriter::write(std::string_view bytes) {
  log_->add(bytes);
  co_return Result<>();
}

net::Task<Result<>> LogWriter::finish() {
  log_->end();
  co_return Result<>();
}

net::Task<> follow(std::shared_ptr<EventLog> log, size_t from, net::ResponseWriter& out) {
  const auto wake = std::make_shared<EventLog::Wake>();
  log->watch(wake);
  const auto left = out.cancel().on_cancel([wake] { wake->close(); });
  EventLog::Part part{.next = from};
  const auto more = [&] { return part = log->read(part.next), part.bytes.empty() && !part.ended && !part.lost; };
  while (more()) {
    if (!co_await wake->pop()) co_return;  // the client left, or we stop
  }
  if (part.refused) co_return (void) co_await out.send(*std::move(part.refused));
  if (part.lost) {
    const std::string message =
        cat("starting_after: the events after ", static_cast<int64_t>(from) - 1, " are not kept any more");
    co_return (void) co_await out.send(net::Response::json(
        400, wire::error_json({.status = 400, .message = message, .type = "invalid_request_error", .param = "starting_after"})));
  }
  if (auto began = co_await out.begin(200, {{"Content-Type", std::string(wire::kSseContentType)}, {"Cache-Control", "no-cache"}});
      !began)
    co_return;
  for (;;) {
    if (part.lost) {  // the client reads more slowly than the model writes
      const std::string event =
          cat("event: error\ndata: {\"code\":\"server_error\",\"message\":\"too slow: events are not kept any more\","
              "\"param\":null,\"sequence_number\":",
              part.next, ",\"type\":\"error\"}\n\n");
      if (auto wrote = co_await out.write(event); !wrote) co_return;
      break;
    }
    if (!part.bytes.empty()) {
      if (auto wrote = co_await out.write(part.bytes); !wrote) co_return;
    }
    if (part.ended) break;
    while (more()) {
      if (!co_await wake->pop()) co_return;
    }
  }
  (void)co_await out.finish();
}

}  // namespace baton::engine
