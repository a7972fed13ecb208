#pragma once
// gpt-oss's format around what a constraint asks for: the model may think first, and what is asked for stands in the channel
// final, or is a call. Its tags are special tokens, and no text that a model writes with others: in rules and in the vocabulary
// they have bytes that no text has (special_bytes), so nothing else that is let in can be mistaken for one. Source: OpenAI's
// description of the harmony response format; vLLM's structural tag for it.
#include <string>
#include <string_view>
#include <vector>

#include "grammar/rules.h"

namespace baton::grammar {

// Those that may be written under a constraint. The ends of an answer (<|return|>, <|call|>) are the sampler's.
inline constexpr std::string_view kHarmonyTokens[] = {"<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>"};
std::string special_bytes(std::string_view token);

// `inside` in the channel final. json: its header may say that it is.
ExprId harmony_final(Rules& rules, ExprId inside, bool json);

struct HarmonyCall {
  std::string name;
  ExprId arguments;
};
// One call of these, perhaps with a preamble in the channel commentary.
ExprId harmony_call(Rules& rules, const std::vector<HarmonyCall>& calls);

}  // namespace baton::grammar
