#pragma once
// TestSocket: a plain blocking TCP client for tests that must send what no proper client would. Every wait ends after 10 s with
// what there is, so that a broken server fails a test instead of hanging it.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace baton::net {

class TestSocket {
 public:
  static constexpr int kNoWait = -1;  // as receive_buffer: start to connect, do not wait for it
  struct Accepted {
    int fd;
  };
  explicit TestSocket(Accepted accepted) : fd_(accepted.fd) {}
  explicit TestSocket(int port, int receive_buffer = 0)
      : fd_(::socket(AF_INET, SOCK_STREAM | (receive_buffer == kNoWait ? SOCK_NONBLOCK : 0), 0)) {
    if (receive_buffer > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int connected = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    BATON_CHECK(connected == 0 || receive_buffer == kNoWait);
    int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  ~TestSocket() { close(); }
  TestSocket(const TestSocket&) = delete;

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  void half_close() { ::shutdown(fd_, SHUT_WR); }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void reset() {  // close with RST
    linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }

  // The peer has closed or reset the connection, and all it sent was read.
  bool ended() const {
    char byte;
    ssize_t n = ::recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
  }

  // One recv(); "" at the end, on a reset and after 10 s.
  std::string read_some() {
    pollfd p{fd_, POLLIN, 0};
    char bytes[65536];
    if (::poll(&p, 1, 10'000) <= 0) return {};
    ssize_t n = ::recv(fd_, bytes, sizeof bytes, 0);
    return n > 0 ? std::string(bytes, static_cast<size_t>(n)) : std::string();
  }
  std::string read_to_end() {
    for (std::string all = std::exchange(held_, {}), more;; all += more) {
      more = read_some();
      if (more.empty()) return all;
    }
  }
  // Up to and including `mark`; what came behind it is kept for the next read. All there was if the stream ends first.
  std::string read_until(std::string_view mark) {
    for (;;) {
      if (size_t at = held_.find(mark); at != std::string::npos) {
        std::string found = held_.substr(0, at + mark.size());
        held_.erase(0, found.size());
        return found;
      }
      std::string more = read_some();
      if (more.empty()) return std::exchange(held_, {});
      held_ += more;
    }
  }
  std::string read_bytes(size_t n) {
    while (held_.size() < n) {
      std::string more = read_some();
      if (more.empty()) return std::exchange(held_, {});
      held_ += more;
    }
    std::string found = held_.substr(0, n);
    held_.erase(0, n);
    return found;
  }

 private:
  int fd_;
  std::string held_;
};

// TestListener: accepts on a free loopback port.
class TestListener {
 public:
  explicit TestListener(int backlog = 16) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    BATON_CHECK(::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && ::listen(fd_, backlog) == 0);
  }
  ~TestListener() { ::close(fd_); }
  TestListener(const TestListener&) = delete;
  int port() const {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.sin_port);
  }
  int accept() const {  // blocks, at most 10 s
    pollfd p{fd_, POLLIN, 0};
    BATON_CHECK(::poll(&p, 1, 10'000) == 1);
    return ::accept(fd_, nullptr, nullptr);
  }

 private:
  int fd_;
};

}  // namespace baton::net
