#pragma once
// gRPC's message framing, without sockets. GrpcDeframer: messages out of DATA bytes; a message that lies inside one feed() is
// given as it lies, others are put together here, growing as bytes arrive (a lying length reserves nothing). Source: gRPC over
// HTTP/2, "Length-Prefixed-Message", "Status-Message".
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/spares.h"

namespace baton::net {

inline constexpr size_t kGrpcPrefixBytes = 5;  // compressed flag, 32 bit length, big endian

struct GrpcPrefix {
  explicit GrpcPrefix(size_t bytes, bool compressed = false)
      : text{static_cast<char>(compressed), static_cast<char>(bytes >> 24), static_cast<char>(bytes >> 16),
             static_cast<char>(bytes >> 8), static_cast<char>(bytes)} {}
  std::string_view view() const { return {text, kGrpcPrefixBytes}; }
  char text[kGrpcPrefixBytes];
};

class GrpcDeframer {
 public:
  // f(message, compressed) -> bool: false ends the feed, the rest is dropped.
  template <class F>
  Result<> feed(std::string_view bytes, size_t message_bytes_max, F&& f) {
    while (!bytes.empty() || need_ == 0) {
      if (need_ == kUnknown) {
        auto head = take_prefix(bytes, message_bytes_max);
        if (!head) return std::unexpected(std::move(head).error());
        if (!*head) return {};
      }
      bool more;
      if (held_.empty() && bytes.size() >= need_) {
        std::string_view whole = bytes.substr(0, need_);
        bytes.remove_prefix(need_);
        need_ = kUnknown;
        more = f(whole, compressed_);
      } else {
        size_t n = std::min(need_ - held_.size(), bytes.size());
        if (held_.empty()) Spares::here().lend(held_, need_);
        held_.append(bytes.substr(0, n));
        bytes.remove_prefix(n);
        if (held_.size() < need_) return {};
        need_ = kUnknown;
        more = f(std::string_view(held_), compressed_);
        drop_held();
      }
      if (!more) return {};
    }
    return {};
  }
  size_t held() const { return held_.size(); }
  bool inside() const { return need_ != kUnknown || prefix_bytes_ > 0; }  // a message has begun and is not complete

 private:
  static constexpr size_t kUnknown = ~size_t{0};
  Result<bool> take_prefix(std::string_view& bytes, size_t message_bytes_max);
  void drop_held();

  std::string held_;
  size_t need_ = kUnknown;  // bytes of the message at hand
  unsigned char prefix_[kGrpcPrefixBytes];
  unsigned prefix_bytes_ = 0;
  bool compressed_ = false;
};

Result<std::string> gunzip(std::string_view bytes, size_t bytes_max);
std::string grpc_percent_encoded(std::string_view message);
std::string grpc_percent_decoded(std::string_view message);

}  // namespace baton::net
