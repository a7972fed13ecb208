#pragma once
// POST /v1/completions/render, and the same behind chat/completions, messages and responses: what a request is in tokens and
// sampling parameters, without computing it. Each answer is a body for /inference/v1/generate, as vLLM's is; pickers read its token_ids.
#include "engine/serving.h"
#include "net/http.h"

namespace baton::engine {

net::Task<> render_completion(const Serving& serving, net::Request& request, net::ResponseWriter& out);
net::Task<> render_chat_completion(const Serving& serving, net::Request& request, net::ResponseWriter& out);
net::Task<> render_messages(const Serving& serving, net::Request& request, net::ResponseWriter& out);
net::Task<> render_response(const Serving& serving, net::Request& request, net::ResponseWriter& out);

}  // namespace baton::engine
