#pragma once
// --speculative-config: vLLM's JSON, of which we have the method "ngram" (prompt lookup). Names, defaults and messages are vLLM's
// (facts sheet "engine" 3 and vllm/config/speculative.py); what belongs to other methods is refused by name.
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"

namespace baton::engine {

struct SpeculativeConfig {
  int32_t num_speculative_tokens = 0;  // most draft tokens of a step; 1 to kDraftTokensMax
  int32_t prompt_lookup_min = 5, prompt_lookup_max = 5;
  std::optional<int32_t> disable_by_batch_size{};  // no drafts while more sequences run
};

Result<SpeculativeConfig> parse_speculative_config(std::string_view json);

}  // namespace baton::engine
