#pragma once
// Raw: one end of a connection, driven by hand, for peers that lie. Blocks its caller, a minute at most. Owner: the test.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "transfer/frame.h"
#include "transfer/socket.h"

namespace baton::transfer::testing {

class Raw {
 public:
  explicit Raw(Fd fd) : fd_(std::move(fd)) {}
  static Raw dial(int port) {
    auto fd = tcp_connect((*resolve({"127.0.0.1", port}, true))[0]);
    BATON_CHECK(fd.has_value());
    pollfd p{fd->get(), POLLOUT, 0};
    ::poll(&p, 1, 60'000);
    return Raw(*std::move(fd));
  }
  // False: the other side closed.
  bool send(std::string_view bytes, int times = 1) {
    for (auto rest = bytes; times > 0; rest = bytes, --times) {
      while (!rest.empty()) {
        pollfd p{fd_.get(), POLLOUT, 0};
        ::poll(&p, 1, 60'000);
        auto n = ::send(fd_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
        if (n < 0) return false;
        rest.remove_prefix(static_cast<size_t>(n));
      }
    }
    return true;
  }
  // The next frame; kind 0 when the connection was closed.
  std::pair<FrameType, std::string> receive() {
    std::string header = exactly(kFrameHeaderBytes);
    if (header.empty()) return {};
    auto h = decode_header(std::as_bytes(std::span(header)));
    BATON_CHECK(h.has_value());
    return {static_cast<FrameType>(h->type), exactly(h->length)};
  }
  template <class M>
  M expect() {
    auto [type, body] = receive();
    EXPECT_EQ(static_cast<int>(type), static_cast<int>(M::kType));
    auto m = decode<M>(std::as_bytes(std::span(body)));
    EXPECT_TRUE(m);
    return m.value_or(M{});
  }
  bool closed() {
    while (true) {
      if (auto [type, body] = receive(); static_cast<int>(type) == 0) return true;
    }
  }

 private:
  std::string exactly(size_t n) {
    std::string out(n, '\0');
    for (size_t at = 0; at < n;) {
      pollfd p{fd_.get(), POLLIN, 0};
      if (::poll(&p, 1, 60'000) != 1) return {};
      auto r = ::recv(fd_.get(), out.data() + at, n - at, 0);
      if (r <= 0) return {};
      at += static_cast<size_t>(r);
    }
    return out;
  }
  Fd fd_;
};

}  // namespace baton::transfer::testing
