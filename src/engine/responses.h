#pragma once
// /v1/responses: create, retrieve, cancel. Storing and everything that needs it (previous_response_id, background) works where
// serving.responses is there (one that is made in the background and streamed goes on without its client, and GET with
// stream=true and starting_after follows it again); else it is as vLLM without VLLM_ENABLE_RESPONSES_API_STORE: `store` is
// ignored, background refused.
#include "engine/serving.h"
#include "net/http.h"

namespace baton::engine {

net::Task<> create_response(const Serving& serving, net::Request& request, net::ResponseWriter& out);
net::Task<> retrieve_response(const Serving& serving, net::Request& request, std::string id, net::ResponseWriter& out);
net::Task<> cancel_response(const Serving& serving, net::Request& request, std::string id, net::ResponseWriter& out);

}  // namespace baton::engine
