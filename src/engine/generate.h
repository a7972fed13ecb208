#pragma once
// The two generating endpoints: one coroutine a request on its I/O thread, from the JSON body to the last byte of the answer.
// Guarantees: a client that leaves aborts its sequences at once; a grant named in kv_transfer_params is fetched or declined on
// every path; the response head is sent when the first token is ready, with the waterfall in x-baton-ttft.
#include "engine/serving.h"
#include "net/http.h"

namespace baton::engine {

enum class Endpoint : uint8_t { kChat, kCompletion };

net::Task<> serve_generate(const Serving& serving, Endpoint endpoint, net::Request& request, net::ResponseWriter& out);

// Shared with the other endpoints.
net::Task<> send_error(net::ResponseWriter& out, const Error& error);
Result<Json> parse_body(const net::Request& request);

}  // namespace baton::engine
