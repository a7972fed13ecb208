#pragma once
// POST /v1/completions/derender and /v1/chat/completions/derender: answers of /inference/v1/generate made into completions or a
// chat's answer, in words, by whoever has the tokenizer. Whole answers only.
#include "engine/serving.h"
#include "net/http.h"

namespace baton::engine {

net::Task<> derender_completion(const Serving& serving, net::Request& request, net::ResponseWriter& out);
net::Task<> derender_chat_completion(const Serving& serving, net::Request& request, net::ResponseWriter& out);

}  // namespace baton::engine
