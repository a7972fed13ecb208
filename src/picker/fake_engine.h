#pragma once
// FakeEngine for tests: an HTTP server that passes the probes, with numbers the test sets, and can fail in the ways engines do:
// not healthy, a /metrics that is nonsense, huge, an error, or never ends. What else it is asked a script answers.
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "discovery/cluster.h"
#include "net/http.h"

namespace baton::picker {

class FakeEngine {
 public:
  enum class Metrics : int { kGood, kMalformed, kError, kHang };
  using Script = std::function<net::Task<>(net::Request&, net::ResponseWriter&)>;
  explicit FakeEngine(std::string model = "m", Script script = {}) : model_(std::move(model)), script_(std::move(script)) {
    start(0);
  }
  ~FakeEngine() { stop(); }
  void start(int port) {
    net::ServerOptions options;
    options.port = port;
    server_ = std::make_unique<net::Server>(options, [this]() -> net::Handler {
      return [this](net::Request& request, net::ResponseWriter& writer) { return answer(request, writer); };
    });
    const auto started = server_->start();
    if (!started) check_failed(started.error().message.c_str(), __FILE__, __LINE__);
    port_ = server_->port();
  }
  void stop() { server_->stop(net::Millis(0)); }
  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  discovery::Member member(std::string role, std::string name = "") const {
    discovery::Member out;
    out.host = "127.0.0.1";
    out.port = port_;
    out.role = std::move(role);
    out.name = std::move(name);
    return out;
  }
  std::atomic<int> health{200}, waiting{0}, running{0}, scrapes{0}, filtered{0};
  std::atomic<Metrics> metrics{Metrics::kGood};
  std::atomic<bool> knows_filter{true};
  std::string extra;  // more /metrics text, set before the first scrape

 private:
  net::Task<> answer(net::Request& request, net::ResponseWriter& writer) {
    if (request.path == "/health") {
      (void)co_await writer.send(net::Response::text(health, ""));
    } else if (request.path == "/v1/models") {
      (void)co_await writer.send(
          net::Response::json(200, R"({"object":"list","data":[{"id":")" + model_ + R"(","object":"model","x":1}]})"));
    } else if (request.path == "/metrics") {
      ++scrapes;
      co_await answer_metrics(request, writer);
    } else if (script_) {
      co_await script_(request, writer);
    } else {
      (void)co_await writer.send(net::Response::text(404, ""));
    }
  }
  net::Task<> answer_metrics(net::Request& request, net::ResponseWriter& writer) {
    if (!request.query.empty()) ++filtered;
    switch (metrics.load()) {
      case Metrics::kMalformed:
        (void)co_await writer.send(net::Response::text(200, "vllm:num_requests_waiting{{{ = NaN\n\n\x01\x02 5"));
        co_return;
      case Metrics::kError:
        (void)co_await writer.send(net::Response::text(500, "no"));
        co_return;
      case Metrics::kHang: {
        (void)co_await writer.begin(200, {});
        (void)co_await writer.write("vllm:num_requests_waiting 1\n");
        while (metrics == Metrics::kHang && !writer.cancel().cancelled()) co_await net::sleep_for(net::Millis(5));
        co_return;
      }
      case Metrics::kGood:
        break;
    }
    const bool empty = !request.query.empty() && !knows_filter;
    (void)co_await writer.send(net::Response::text(
        200, empty ? std::string()
                   : "vllm:num_requests_waiting{engine=\"0\"} " + std::to_string(waiting) + "\nvllm:num_requests_running " +
                         std::to_string(running) + "\nvllm:kv_cache_usage_perc 0.5\n" + extra));
  }
  std::string model_;
  Script script_;
  std::unique_ptr<net::Server> server_;
  int port_ = 0;
};

}  // namespace baton::picker
