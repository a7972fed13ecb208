#pragma once
// Frontend: the engine's HTTP routes (facts sheet "engine" 1.1, 1.9): models, health, metrics, tokenizer endpoints, and the
// generating ones through generate.h. make_frontend() gives net::Server its handlers; they share one const Serving, which must
// outlive the server.
#include "engine/serving.h"
#include "net/http.h"

namespace baton::engine {

// What answers call system_fingerprint: equal where version, ranks and model are. "" = null, as --fingerprint-mode none wants.
std::string system_fingerprint(const EngineConfig& config, std::string_view model_fingerprint);

net::HandlerFactory make_frontend(const Serving& serving);

}  // namespace baton::engine
