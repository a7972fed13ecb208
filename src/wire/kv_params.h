#pragma once
// kv_transfer_params: what prefill tells decode, a superset of vLLM's (facts sheets "kv_transfer" 2.2, 8.2 and "peers").
// Lenient in: flat or nested block ids, string or int port, unknown keys kept verbatim. Exact out: vLLM 0.32's key order, then x_kv.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace baton::wire {

// Our namespaced part. A vLLM consumer ignores it; ours needs it.
struct XKv {
  int version = 1;
  std::string grant;                     // 32 hex digits
  uint64_t incarnation = 0;
  int lease_ms = 0;
  int32_t first_token = 0, n_tokens = 0; // positions whose KV is offered
  std::string prompt_digest;             // 64 hex digits
  std::string layout;                    // kv::KvLayout::id()
  std::optional<int32_t> first_token_id; // prefill's sampled token
  int64_t queue_us = 0, prefill_us = 0;  // waterfall of the prefill leg
  bool can_push = false;                 // that engine takes push_token
};

struct KvParams {
  bool do_remote_prefill = false;
  bool do_remote_decode = false;
  std::vector<int64_t> remote_block_ids;
  std::string remote_engine_id, remote_request_id, remote_host;
  int remote_port = 0;
  int32_t remote_num_tokens = 0;
  std::optional<XKv> x_kv;
  std::string push_token = {};  // x_kv.push: the sidecar's token of a hand-over that both legs begin at once, 32 hex digits; "" = none
};

// Never fails the request for a field it does not need: an unusable object gives an error that the engine logs before it recomputes.
Result<KvParams> parse_kv_params(const Json& object);
std::string format_kv_params(const KvParams& params);   // the prefill response's object
// What the sidecar tells the two legs of a push: the prefill leg one key more in nixlv2's object, which a vLLM server ignores
// ("x_kv":{...}), the decode leg an object of its own.
std::string push_field(std::string_view token);
std::string push_decode_params(std::string_view token, std::string_view engine_id, std::string_view host, int port);

}  // namespace baton::wire
