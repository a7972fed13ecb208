#pragma once
// HTTP/2 frames by hand, for tests and fuzzers that break rules. HPACK without tables or Huffman codes.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace baton::net {

inline constexpr std::string_view kTestPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum class Frame : uint8_t { kData, kHeaders, kPriority, kReset, kSettings, kPush, kPing, kGoaway, kWindow, kContinuation };
inline constexpr uint8_t kEndStream = 1, kAck = 1, kEndHeaders = 4;

inline std::string frame(Frame type, uint8_t flags, uint32_t id, std::string_view payload = {}) {
  auto byte = [](size_t v) { return static_cast<char>(v & 255); };
  size_t n = payload.size();
  std::string out = {byte(n >> 16), byte(n >> 8), byte(n), static_cast<char>(type), static_cast<char>(flags),
                     byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)};
  out += payload;
  return out;
}

inline std::string header_block(const std::vector<std::pair<std::string, std::string>>& fields) {
  std::string out;
  auto text = [&](std::string_view s) {  // lengths below 127 + 128 * 128
    if (s.size() < 127) {
      out += static_cast<char>(s.size());
    } else {
      size_t rest = s.size() - 127;
      out += static_cast<char>(127);
      for (; rest >= 128; rest >>= 7) out += static_cast<char>(128 | (rest & 127));
      out += static_cast<char>(rest);
    }
    out += s;
  };
  for (const auto& [name, value] : fields) {
    out += '\0';  // literal, not indexed
    text(name);
    text(value);
  }
  return out;
}

inline std::string grpc_head(std::string_view path) {
  return header_block({{":method", "POST"},
                       {":scheme", "http"},
                       {":path", std::string(path)},
                       {":authority", "test"},
                       {"content-type", "application/grpc"}});
}

}  // namespace baton::net
