#pragma once
// What the protocol fuzzers need: choices taken from the input (a generator seeded by it goes on behind its end, so that short
// inputs make long conversations too), and the far end of a socket pair that is read and written without waiting.
#include <sys/socket.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/prng.h"
#include "transfer/checksum.h"
#include "transfer/conn.h"

namespace baton::transfer::testing {

class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : rest_(data, size) {}
  bool done() { return rest_.empty() && steps_left_-- == 0; }
  uint8_t byte() {
    if (rest_.empty()) return static_cast<uint8_t>(tail_.next());
    auto b = rest_[0];
    rest_ = rest_.subspan(1);
    return b;
  }
  bool chance() { return (byte() & 1) != 0; }
  // Mostly what makes sense, now and then what does not.
  template <class T>
  T number(T sensible) {
    static constexpr int64_t kOdd[] = {0, -1, 1, 15, 16, 17, 255, 256, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    auto b = byte();
    return b < 230 ? sensible : static_cast<T>(kOdd[b % std::size(kOdd)]);
  }

 private:
  std::span<const uint8_t> rest_;
  Prng tail_{checksum(std::as_bytes(rest_))};
  int steps_left_ = 60;
};

class FarEnd {
 public:
  // The near end, for the code under test.
  Fd open() {
    int ends[2];
    BATON_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    fd_ = Fd(ends[0]);
    return Fd(ends[1]);
  }
  void send(std::string_view bytes) { [[maybe_unused]] auto n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  void close() { fd_ = Fd(); }
  std::string receive() {
    std::string out;
    char part[16384];
    while (fd_) {
      auto n = ::recv(fd_.get(), part, sizeof part, 0);
      if (n <= 0) break;
      out.append(part, static_cast<size_t>(n));
    }
    return out;
  }

 private:
  Fd fd_;
};

}  // namespace baton::transfer::testing
