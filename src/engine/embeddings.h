#pragma once
// /v1/embeddings and /pooling: every input is one sequence whose prompt is computed and whose hidden states are pooled
// (core_events.cc); then cut to the dimensions asked for and normalised. A client that leaves ends them. An engine that generates
// has no such routes.
#include "engine/serving.h"
#include "net/http.h"

namespace baton::engine {

net::Task<> embeddings(const Serving& serving, net::Request& request, net::ResponseWriter& out);
net::Task<> pooled(const Serving& serving, net::Request& request, net::ResponseWriter& out);  // the same, in /pooling's words

}  // namespace baton::engine
