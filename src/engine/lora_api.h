#pragma once
// POST /v1/load_lora_adapter and /v1/unload_lora_adapter, in vLLM's words and statuses; there only where --allow-runtime-lora-updating
// (VLLM_ALLOW_RUNTIME_LORA_UPDATING) says so. Files are read on a thread of their own.
#include "engine/serving.h"
#include "net/http.h"

namespace baton::engine {

net::Task<> load_lora_adapter(const Serving& serving, net::Request& request, net::ResponseWriter& out);
net::Task<> unload_lora_adapter(const Serving& serving, net::Request& request, net::ResponseWriter& out);

}  // namespace baton::engine
