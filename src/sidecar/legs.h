#pragma once
// The bodies of the nixlv2 protocol as functions of text: what the prefiller is sent, what its answer says, what the engine is
// sent. Edits are byte splices: a field nobody here knows, and every 64-bit integer, arrives as the client wrote it. Source:
// facts sheet "kv_transfer" 1.5 (token-limit fields by API) and 1.6 (the flow, step by step).
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "net/http.h"

namespace baton::sidecar {

enum class Api { kChat, kCompletions, kMessages, kResponses, kGenerate };

// The API of an intercepted request, nullopt if it is only passed on.
std::optional<Api> intercepted(std::string_view method, std::string_view path);

struct HostPort {
  std::string host;
  int port = 0;
  std::string text() const { return host.find(':') == std::string::npos ? cat(host, ':', port) : cat('[', host, "]:", port); }
};
// "10.0.0.1:8000", "[::1]:8000", with or without "http://".
std::optional<HostPort> parse_host_port(std::string_view text);
// The prefillers a request names, in order: repeated headers or comma lists. nullopt if it names none; unusable ones are left
// out.
std::optional<std::vector<HostPort>> prefillers(const net::Headers& headers);

// A request body, an object within wire's limits. The error is a 400 for the client.
Result<Json> parse_body(std::string_view body);
std::string prefill_body(Api api, std::string_view body, const Json& root);
std::string decode_body(std::string_view body, const Json& root, std::string_view kv_params);
// The body without kv_transfer_params, wherever a lenient reader could find them; the same bytes if there are none.
Result<std::string> without_kv_params(std::string body);

struct PrefillReply {
  std::string kv_params = "null";  // the object's own bytes
  // Of usage.prompt_tokens_details, nullopt if the prefiller reports no such details: then the engine's own usage stands, null as
  // the guides show it, where llm-d would write a 0 nobody measured.
  std::optional<int64_t> cached_tokens;
};
Result<PrefillReply> read_prefill_reply(std::string_view body);

// {"object":"error",...}: the sidecar's own errors, in llm-d's shape (1.12).
std::string error_body(int status, std::string_view message);

}  // namespace baton::sidecar
