#pragma once
// The flags of `vllm serve` that are not ours: each is taken with a note of what it comes to here, or refused by name with the
// reason, so that a command line written for vLLM either means the same or says where it does not. A flag is a name in the table.
// Source: the arguments of `vllm serve` 0.32.
#include "base/config.h"
#include "engine/config.h"

namespace baton::engine {

void add_vllm_flags(Options& options, EngineConfig& config);  // notes go to config.flag_notes
// --default-chat-template-kwargs, --override-generation-config, --tokenizer: JSON into values, checks.
Result<> read_vllm_flags(EngineConfig& config);

}  // namespace baton::engine
