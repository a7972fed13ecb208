#pragma once
// read_request(): the little the gateway must know of a body, read once: model, prompt size, prefix hash chain. The body itself
// is forwarded as it came; only kv_transfer_params, which would let a client read other people's KV, is cut out when present.
// Requires: body bytes as sent. Errors (kInvalidArgument) are 400s; what the gateway does not need it does not judge, the engine
// does. Source: facts sheets "epp" 4.7 (token estimate: four bytes a token), "kv_transfer" 8.8.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace baton::gateway {

enum class Api : uint8_t { kChat, kCompletions, kOther };

struct RequestView {
  std::string model;  // "" = not said
  bool stream = false;
  int64_t prompt_tokens = 1;  // estimate
  std::vector<uint64_t> chain;
  std::string cleaned;  // the body without kv_transfer_params; only if `cut`
  bool cut = false;
};

Result<RequestView> read_request(std::string_view body, Api api, uint64_t hash_seed, int block_tokens);

}  // namespace baton::gateway
