#pragma once
// Whose kv_transfer_params an engine believes. They name a host and a grant to read KV from, so only our own hops may set them:
// with
// --kv-params-trust=token the sidecar shows a shared token, and an engine reads the params of no other request.
#include <cstdint>
#include <string_view>

namespace baton::wire {

inline constexpr std::string_view kKvParamsToken = "x-baton-kv-token";

// Takes the same time wherever the two differ.
inline bool same_token(std::string_view a, std::string_view b) {
  if (a.empty() || a.size() != b.size()) return false;
  uint8_t difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<uint8_t>(a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace baton::wire
