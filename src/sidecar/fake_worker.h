#pragma once
// FakeWorker: a scripted upstream for tests: a real net::Server that checks each request against what the script expects and
// gives the answer written beside it. GET /health is answered 200 and not counted. Complaints are collected for the test to show.
#include <atomic>
#include <deque>
#include <map>
#include <mutex>

#include "net/http.h"
#include "net/mailbox.h"

namespace baton::sidecar {

struct Message {
  std::string first_line;  // "POST /v1/completions", "200 events"
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  bool says(std::string_view word) const { return (' ' + first_line + ' ').find(cat(' ', word, ' ')) != std::string::npos; }
  int status() const { return std::atoi(first_line.c_str()); }
};

// "" if the headers are as wanted: "*" present, "!" absent, "~x" contains x, else equal to one of that name.
inline std::string header_complaints(const net::Headers& got, const Message& wanted) {
  std::string complaints;
  for (const auto& [name, value] : wanted.headers) {
    bool found = value == "!" ? !got.get(name) : false;
    for (std::string_view v : got.get_all(name)) {
      found |= value == "*" || v == value || (value.starts_with('~') && v.find(value.substr(1)) != std::string_view::npos);
    }
    if (!found) complaints += cat("header ", name, " should be ", value, ", is ", got.get(name).value_or("absent"), "\n");
  }
  return complaints;
}

// ${name} in an expected text stands for what one cannot know beforehand (an id): the same everywhere in a case. Any thread.
class Unknowns {
 public:
  bool match(std::string_view wanted, std::string_view got) {
    std::lock_guard lock(mutex_);
    while (true) {
      size_t at = wanted.find("${");
      if (got.substr(0, at) != wanted.substr(0, at)) return false;
      if (at == std::string_view::npos) return got.size() == wanted.size();
      got.remove_prefix(at);
      size_t close = wanted.find('}', at);
      std::string name(wanted.substr(at + 2, close - at - 2));
      wanted.remove_prefix(close + 1);
      size_t end = std::min(got.find_first_not_of(kWord), got.size());
      std::string value(got.substr(0, end));
      got.remove_prefix(end);
      auto [known, added] = known_.emplace(name, value);
      if (value.empty() || known->second != value) return false;
    }
  }

 private:
  static constexpr const char* kWord = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";
  std::mutex mutex_;
  std::map<std::string, std::string> known_;
};

class FakeWorker {
 public:
  struct Turn {
    Message expects, answers;
  };

  explicit FakeWorker(std::string name, std::shared_ptr<net::TlsServer> tls = nullptr)
      : name_(std::move(name)), server_(options(std::move(tls)), [this]() -> net::Handler {
          return [this](net::Request& request, net::ResponseWriter& writer) { return handle(request, writer); };
        }) {
    BATON_CHECK(server_.start().has_value());
  }

  void expect(Turn turn) {
    std::lock_guard lock(mutex_);
    turns_.push_back(std::move(turn));
  }
  // Before the first request: whose request "after" waits for, and what ${name} stands for.
  void meet(FakeWorker& other, Unknowns& unknowns) { other_ = &other, unknowns_ = &unknowns; }
  int port() const { return server_.port(); }
  net::Server& server() { return server_; }
  std::string complaints() {
    std::lock_guard lock(mutex_);
    std::string all = complaints_;
    for (const Turn& t : turns_) all += cat(name_, " was not called: ", t.expects.first_line, "\n");
    return all;
  }

 private:
  static net::ServerOptions options(std::shared_ptr<net::TlsServer> tls) {
    net::ServerOptions out;
    out.tls = std::move(tls);
    return out;
  }

  net::Task<> handle(net::Request& request, net::ResponseWriter& writer) {
    if (request.path == "/health") {
      (void)co_await writer.send({.status = 200, .headers = {}, .body = {}});
      co_return;
    }
    std::optional<Turn> turn = next_turn(request);
    ++called_;
    if (!turn) {
      (void)co_await writer.send(net::Response::text(599, "not expected"));
      co_return;
    }
    while (turn->answers.says("after") && other_->called_ == 0 && !writer.cancel().cancelled()) {
      co_await net::sleep_for(net::Millis(1), &writer.cancel());
    }
    if (turn->answers.says("hang")) {
      net::Mailbox<int> gone;
      auto hook = writer.cancel().on_cancel([&] { gone.close(); });
      co_await gone.pop();
      co_return;
    }
    co_await answer(turn->answers, writer);
  }

  std::optional<Turn> next_turn(const net::Request& request) {
    std::lock_guard lock(mutex_);
    std::string line = cat(request.method, ' ', request.target);
    if (turns_.empty()) {
      complaints_ += cat(name_, " was called though it should not be: ", line, ' ', request.body, "\n");
      return std::nullopt;
    }
    Turn turn = std::move(turns_.front());
    turns_.pop_front();
    const Message& wanted = turn.expects;
    if (wanted.first_line != line) complaints_ += cat(name_, ": got ", line, ", not ", wanted.first_line, "\n");
    if (auto c = header_complaints(request.headers, wanted); !c.empty()) complaints_ += cat(name_, ": ", c);
    bool same = unknowns_ ? unknowns_->match(wanted.body, request.body) : wanted.body == request.body;
    if (!same) complaints_ += cat(name_, ": body is\n  ", request.body, "\nnot\n  ", wanted.body, "\n");
    return turn;
  }

  net::Task<> answer(const Message& message, net::ResponseWriter& writer) {
    net::Headers headers;
    for (const auto& [name, value] : message.headers) headers.add(name, value);
    if (message.says("break")) {
      // A length that is not kept: finish() closes the connection instead.
      headers.set("content-length", "5");
      if (message.status() != 0) (void)co_await writer.begin(message.status(), headers);
      (void)co_await writer.finish();
    } else if (message.says("events")) {
      (void)co_await writer.begin(message.status(), headers);
      std::string_view rest = message.body;
      while (!rest.empty()) {
        size_t end = rest.find("\n\n") + 2;
        (void)co_await writer.write(rest.substr(0, end));
        rest.remove_prefix(end);
        co_await net::sleep_for(net::Millis(0));
      }
      (void)co_await writer.finish();
    } else {
      (void)co_await writer.send({.status = message.status(), .headers = headers, .body = message.body});
    }
  }

  std::string name_;
  std::atomic<int> called_{0};
  FakeWorker* other_ = this;
  Unknowns* unknowns_ = nullptr;
  std::mutex mutex_;
  std::deque<Turn> turns_;
  std::string complaints_;
  net::Server server_;  // last: its threads use what is above
};

}  // namespace baton::sidecar
