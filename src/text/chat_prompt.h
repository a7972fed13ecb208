#pragma once
// From chat messages to the text a model reads, as vLLM makes it: content as the template wants it (one string, or parts), past
// tool calls' arguments as objects, a template of the request's own, a final message to be continued. Shared by the engine, which
// serves it, and the picker, which must know the same tokens to find who holds them. Errors carry vLLM's wording. Pure.
// Source: facts sheet "engine" 1.4, 4.6.
#include <span>
#include <string>
#include <string_view>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace baton::text {

struct ChatPrompt {
  std::span<const Json> messages;                   // objects
  const Json &tools, &documents, &template_kwargs;  // null if absent
  std::string_view chat_template{};                 // "" = the model's own
  bool add_generation_prompt = true, continue_final_message = false;
};

// model_template: nullptr if the model has none.
Result<std::string> render_chat(const ChatTemplate* model_template, const Tokenizer& tokenizer, const ChatPrompt& prompt);

}  // namespace baton::text
