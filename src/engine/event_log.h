#pragma once
// EventLog: the events of one response that is made in the background and streamed: kept as they are made, so that any number of
// readers can follow them, from any of them on, while the response is made and after it. The index of an event is its sequence
// number. Bounded in bytes (limits.h): the oldest events go first; a reader that wants one of these is told. Any thread.
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/http.h"
#include "net/mailbox.h"

namespace baton::engine {

class EventLog {
 public:
  explicit EventLog(size_t bytes_max) : bytes_max_(bytes_max) {}
  void add(std::string_view events);  // whole server-sent events
  void refuse(net::Response answer);  // there are no events: this is the answer instead. Ends it
  void end();                         // what is added later is not kept
  bool ended() const;

  struct Part {
    std::string bytes{};  // whole events; "" = nothing more for now
    size_t next = 0;      // the first event behind them
    bool ended = false;   // nothing will come behind `bytes` any more
    bool lost = false;    // an event that was asked for is not kept any more
    std::optional<net::Response> refused{};
  };
  Part read(size_t from) const;  // some of the events from this one on

  using Wake = net::Mailbox<char>;
  void watch(const std::shared_ptr<Wake>& wake);  // a value comes with each change, until nobody else holds it

 private:
  void tell();  // with mutex_ held

  const size_t bytes_max_;
  mutable std::mutex mutex_;
  std::deque<std::string> events_;
  size_t first_ = 0, bytes_ = 0;  // first_: of events_[0]
  bool ended_ = false;
  std::optional<net::Response> refused_;
  std::vector<std::weak_ptr<Wake>> watchers_;
};

// Writes what a generation answers into a log.
class LogWriter final : public net::ResponseWriter {
 public:
  explicit LogWriter(std::shared_ptr<EventLog> log) : log_(std::move(log)) {}
  net::Task<Result<>> send(net::Response response) override;
  net::Task<Result<>> begin(int status, net::Headers headers) override;
  net::Task<Result<>> write(std::string_view bytes) override;
  net::Task<Result<>> finish() override;
  bool started() const override { return started_; }
  net::Cancel& cancel() override { return cancel_; }  // nobody's leaving ends it

 private:
  std::shared_ptr<EventLog> log_;
  net::Cancel cancel_;
  bool started_ = false;
};

// Streams the log from event `from` on, until it ends or the client leaves.
net::Task<> follow(std::shared_ptr<EventLog> log, size_t from, net::ResponseWriter& out);

}  // namespace baton::engine
