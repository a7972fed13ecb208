#pragma once
// Workers for tests. FakeWorker: a FakeEngine that answers POSTs by a script and keeps what came. RawWorker: a socket that
// passes the probes and answers a POST with exactly these bytes and a closed connection, which no proper server would do.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "discovery/members.h"
#include "net/http.h"
#include "picker/fake_engine.h"

namespace baton::gateway {

class FakeWorker final : public picker::FakeEngine {
 public:
  explicit FakeWorker(Script script, std::string model = "m")
      : FakeEngine(std::move(model),
                   [this](net::Request& request, net::ResponseWriter& writer) { return answer(request, writer); }),
        script_(std::move(script)) {}
  ~FakeWorker() { stop(); }  // before what answer() uses
  std::vector<net::Request> seen() const {
    std::lock_guard lock(mutex_);
    return seen_;
  }
  std::atomic<int> posts{0};

 private:
  net::Task<> answer(net::Request& request, net::ResponseWriter& writer) {
    {
      std::lock_guard lock(mutex_);
      seen_.push_back(request);
    }
    ++posts;
    co_await script_(request, writer);
  }
  Script script_;
  mutable std::mutex mutex_;
  std::vector<net::Request> seen_;
};

class RawWorker {
 public:
  explicit RawWorker(std::string answer) : answer_(std::move(answer)), fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(fd_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd_, 64) != 0) std::abort();
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      for (int client; (client = ::accept(fd_, nullptr, nullptr)) >= 0; ::close(client)) serve(client);
    });
  }
  ~RawWorker() {
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }
  discovery::Member member(std::string role) const { return {"127.0.0.1", port_, std::move(role), {}, "", {}}; }
  std::atomic<int> posts{0};

 private:
  void serve(int client) {
    std::string head;
    char buffer[4096];
    while (head.find("\r\n\r\n") == std::string::npos) {
      const ssize_t n = ::recv(client, buffer, sizeof buffer, 0);
      if (n <= 0) return;
      head.append(buffer, static_cast<size_t>(n));
    }
    const bool post = head.starts_with("POST");
    posts += post;
    const std::string out =
        post ? answer_ : "HTTP/1.1 200 OK\r\nContent-Length: 28\r\nConnection: close\r\n\r\nvllm:num_requests_waiting 0\n";
    (void)!::send(client, out.data(), out.size(), MSG_NOSIGNAL);
  }
  std::string answer_;
  int fd_, port_ = 0;
  std::thread thread_;
};

}  // namespace baton::gateway
