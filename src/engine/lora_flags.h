#pragma once
// The flags of LoRA as vLLM takes them, checked together: --enable-lora, --lora-modules, --max-loras, --max-lora-rank, --max-cpu-loras.
#include "engine/config.h"

namespace baton::engine {

// "name=path", or JSON {"name", "path", "base_model_name"}.
Result<LoraModule> parse_lora_module(std::string_view text);
// Fills config.loras. All that is wrong, one line each.
Result<> read_lora_flags(EngineConfig& config);

}  // namespace baton::engine
