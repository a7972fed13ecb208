#pragma once
// --reasoning-config as vLLM takes it, and what --reasoning-parser says without it: the marks that thinking_token_budget counts from
// and writes. Keys: reasoning_start_str, reasoning_end_str (a phrase may stand before the parser's own closing mark) and
// reasoning_parser, which --reasoning-parser overrides.
#include <memory>
#include <string>

#include "engine/config.h"
#include "engine/thinking_budget.h"
#include "text/tokenizer.h"

namespace baton::engine {

struct ReasoningMarks {
  std::string open, close, forced;  // as ThinkingMarks; open or forced "" = nothing says how thoughts begin and end
};

Result<ReasoningMarks> reasoning_marks(const EngineConfig& config);  // kInvalidArgument: wrong JSON, an unknown key or parser

// nullptr: there are none. kInvalidArgument also: a mark that no token stands for.
Result<std::shared_ptr<const ThinkingMarks>> thinking_marks(const EngineConfig& config, const text::Tokenizer& tokenizer);

}  // namespace baton::engine
