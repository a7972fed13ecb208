#pragma once
// What the gateway's tests share: a client, waiting for other threads, a gateway before fake workers.
#include <functional>

#include "base/clock.h"
#include "base/json.h"
#include "gateway/fake_worker.h"
#include "gateway/gateway.h"
#include "net/test_socket.h"

namespace baton::gateway {

inline FakeWorker::Script always(int status, std::string body) {
  return [=](net::Request&, net::ResponseWriter& writer) -> net::Task<> {
    (void)co_await writer.send(net::Response::json(status, body));
  };
}

// Waits for something another thread does; fails after 20 s instead of hanging.
inline void eventually(const std::function<bool()>& done, const char* what) {
  const SteadyClock clock;
  for (const int64_t begin = clock.now_ms(); !done(); std::this_thread::yield())
    ASSERT_LT(clock.now_ms() - begin, 20'000) << what;
}

inline net::Response call(int port, std::string method, std::string target, std::string body = "", net::Headers headers = {}) {
  net::Response out;
  net::run_task([&]() -> net::Task<> {
    net::Client client;
    net::Call request;
    request.host = "127.0.0.1";
    request.port = port;
    request.method = method;
    request.target = target;
    request.headers = headers;
    request.body = body;
    request.first_byte_timeout = request.idle_timeout = net::Millis(20'000);
    auto response = co_await client.fetch(std::move(request));
    if (response)
      out = *std::move(response);
    else
      out.status = -static_cast<int>(response.error().code), out.body = response.error().message;
  });
  return out;
}

// The value of a sample of a gateway's /metrics, as text.
inline std::string metric_of(int port, const std::string& name) {
  const std::string text = call(port, "GET", "/metrics").body;
  const size_t at = text.find("\n" + name + " ");
  return at == std::string::npos ? "absent" : text.substr(at + name.size() + 2, text.find('\n', at + 1) - at - name.size() - 2);
}

class GatewayTest : public testing::Test {
 protected:
  Gateway& start(const std::vector<discovery::Member>& members, int ready = -1) {
    config.host = "127.0.0.1";
    config.http_port = 0;
    config.seed = 1;
    config.drain_timeout_ms = 5'000;
    gateway = std::make_unique<Gateway>(config);
    const auto started = gateway->start();
    EXPECT_TRUE(started) << started.error().message;
    gateway->set_members(members);
    wait_ready(ready < 0 ? static_cast<int>(members.size()) : ready);
    return *gateway;
  }
  void wait_ready(int n) {
    eventually([&] { return gateway->ready_endpoints() == n; }, "endpoints do not become ready");
  }
  net::Response post(std::string body = R"({"model":"m","prompt":"hi"})", net::Headers headers = {},
                     std::string path = "/v1/completions") {
    return call(gateway->port(), "POST", path, std::move(body), std::move(headers));
  }
  std::string metric(const std::string& name) { return metric_of(gateway->port(), name); }
  GatewayConfig config;
  std::unique_ptr<Gateway> gateway;
};

}  // namespace baton::gateway
