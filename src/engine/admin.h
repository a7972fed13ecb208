#pragma once
// Endpoints for an operator and for tools, beside the ones clients use: the development ones (VLLM_SERVER_DEV_MODE: sleep,
// wake_up, is_sleeping, reset_prefix_cache) and tokenizer_info. A sleeping engine answers 503 and has given its KV memory back to
// the system, at level 2 the packed weights' too (level 1 has nothing to offload: they are in CPU memory). /wake_up takes both
// again, or what `tags` names; weights that cannot be loaded are an error, and /health says 503 until they can.
#include "engine/serving.h"
#include "net/http.h"

namespace baton::engine {

net::Task<> reset_prefix_cache(const Serving& serving, net::Request& request, net::ResponseWriter& out);
net::Task<> reset_nothing(const Serving& serving, net::Request& request, net::ResponseWriter& out);  // of caches that we lack
net::Task<> fall_asleep(const Serving& serving, net::Request& request, net::ResponseWriter& out);
net::Task<> wake_up(const Serving& serving, net::Request& request, net::ResponseWriter& out);
net::Task<> is_sleeping(const Serving& serving, net::Request& request, net::ResponseWriter& out);
net::Task<> tokenizer_info(const Serving& serving, net::Request& request, net::ResponseWriter& out);

// An error of the HTTP layer itself: its reason phrase.
net::Task<> framework_error(net::ResponseWriter& out, int status, std::string_view allow = "");  // allow: of a 405

}  // namespace baton::engine
