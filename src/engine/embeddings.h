#pragma once
// /v1/embeddings: every input is one sequence whose prompt is computed and whose hidden states are pooled (core_events.cc); then
// cut to the dimensions asked for and normalised. A client that leaves ends them. A generative model is refused as vLLM does.
#include "engine/serving.h"
#include "net/http.h"

namespace baton::engine {

net::Task<> embeddings(const Serving& serving, net::Request& request, net::ResponseWriter& out);

}  // namespace baton::engine
