#include "net/grpc_message.h"

#include <zlib.h>

#include <algorithm>

#include "net/limits.h"

namespace baton::net {

Result<bool> GrpcDeframer::take_prefix(std::string_view& bytes, size_t message_bytes_max) {
  while (prefix_bytes_ < kGrpcPrefixBytes && !bytes.empty()) {
    prefix_[prefix_bytes_++] = static_cast<unsigned char>(bytes.front());
    bytes.remove_prefix(1);
  }
  if (prefix_bytes_ < kGrpcPrefixBytes) return false;
  prefix_bytes_ = 0;
  if (prefix_[0] > 1) return fail(Code::kInternal, "grpc: message flag ", int{prefix_[0]}, " is neither 0 nor 1");
  compressed_ = prefix_[0] == 1;
  size_t size = size_t{prefix_[1]} << 24 | size_t{prefix_[2]} << 16 | size_t{prefix_[3]} << 8 | prefix_[4];
  if (size > message_bytes_max) {
    return fail(Code::kResourceExhausted, "grpc: received message larger than max (", size, " vs. ", message_bytes_max, ")");
  }
  need_ = size;
  return true;
}

void GrpcDeframer::drop_held() { Spares::here().take_back(held_); }

Result<std::string> gunzip(std::string_view bytes, size_t bytes_max) {
  z_stream z{};
  if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) return fail(Code::kInternal, "grpc: cannot start zlib");
  std::string out;
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  z.avail_in = static_cast<uInt>(bytes.size());
  int rc = Z_OK;
  while (rc == Z_OK && out.size() <= bytes_max) {
    size_t at = out.size(), room = std::min(std::max<size_t>(2 * at, 4096), bytes_max + 1 - at);
    out.resize(at + room);
    z.next_out = reinterpret_cast<Bytef*>(out.data() + at);
    z.avail_out = static_cast<uInt>(room);
    rc = inflate(&z, Z_NO_FLUSH);
    out.resize(at + room - z.avail_out);
  }
  bool all = rc == Z_STREAM_END && z.avail_in == 0;
  inflateEnd(&z);
  if (out.size() > bytes_max) {
    return fail(Code::kResourceExhausted, "grpc: message after decompression larger than max ", bytes_max);
  }
  if (!all) return fail(Code::kInternal, "grpc: failed to decompress the received message");
  return out;
}

std::string grpc_percent_encoded(std::string_view message) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(message.size());
  for (char c : message) {
    auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '%') {
      out += c;
    } else {
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

std::string grpc_percent_decoded(std::string_view message) {
  auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  std::string out;
  for (size_t i = 0; i < message.size(); ++i) {
    int high = -1, low = -1;
    if (message[i] == '%' && i + 2 < message.size()) high = digit(message[i + 1]), low = digit(message[i + 2]);
    if (high < 0 || low < 0) {
      out += message[i];
    } else {
      out += static_cast<char>(high * 16 + low);
      i += 2;
    }
  }
  return out;
}

}  // namespace baton::net
