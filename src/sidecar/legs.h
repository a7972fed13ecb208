#pragma once
// The bodies of the two legs as functions of text: what a prefiller is sent, what its answer says, what the engine is sent.
// Edits are byte splices: a field nobody here knows, and every 64-bit integer, arrives as the client wrote it. Source: facts
// sheet "kv_transfer" 1.5 (token-limit fields by API) and 1.6 to 1.10.
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "sidecar/hosts.h"
#include "wire/splice.h"

namespace baton::sidecar {

enum class Api { kChat, kCompletions, kMessages, kResponses, kGenerate };

inline constexpr std::string_view kKvParams = "kv_transfer_params";
inline constexpr std::string_view kEcParams = "ec_transfer_params";
inline constexpr std::string_view kCacheHitThreshold = "cache_hit_threshold";

// The API of an intercepted request, nullopt if it is only passed on.
std::optional<Api> intercepted(std::string_view method, std::string_view path);

// A request body, an object within wire's limits; of what lies deeper than `depth` and of long strings only the place is kept.
// The error is a 400 for the client.
Result<Json> parse_body(std::string_view body, int depth = 2);

// Edits that make a request end after one token.
enum class OneToken {
  kEveryLimit,  // all limits of the API are set, as nixlv2 does
  kAsClient     // the API's own limit, the others only where the client set them, as the newer protocols do
};
void ask_for_one_token(wire::Splice& edit, Api api, const Json& root, OneToken how);
void ask_for_no_stream(wire::Splice& edit);

// nixlv2's prefill leg; `more` is added to kv_transfer_params, as in R"("key":1)".
std::string prefill_body(Api api, std::string_view body, const Json& root, std::string_view more = {});
std::string decode_body(std::string_view body, const Json& root, std::string_view kv_params);

// Without the fields that only workers and their proxies may send (kv_transfer_params, ec_transfer_params, sglang's bootstrap_*),
// wherever a lenient reader could find them; the same bytes if there are none.
Result<std::string> without_worker_fields(std::string body);
// The same for a body that is parsed already: nullopt if there is nothing to remove.
std::optional<std::string> without_worker_fields(std::string_view body, const Json& root);

struct PrefillReply {
  std::string kv_params = "null";  // the object's own bytes
  // Of the answer's usage, nullopt if the prefiller reports no such details: then the engine's own usage stands, null as the
  // guides show it, where llm-d would write a 0 nobody measured.
  std::optional<int64_t> cached_tokens{};
};
Result<PrefillReply> read_prefill_reply(Api api, std::string_view body);

// {"object":"error",...}: the sidecar's own errors, in llm-d's shape (1.12).
std::string error_body(int status, std::string_view message);

}  // namespace baton::sidecar
