#pragma once
// ChatMessage: one answer of a chat as the parts of an assistant's message, where a tool or reasoning parser is configured: turns
// choices of plain text into choices with reasoning, content and tool calls, whole or as the chunks of a stream.
// Lives on the request's I/O thread. Source: facts sheet "engine" 1.6.
#include <string>
#include <string_view>
#include <vector>

#include "engine/serving.h"
#include "parse/message.h"
#include "wire/openai.h"
#include "wire/openai_response.h"

namespace baton::engine {

// What the answer to this request is made of. prompt: as the template rendered it. An error where the tools want a parser that is
// not configured.
Result<parse::MessageFormat> message_format(const Serving& serving, const wire::ChatRequest& request, std::string_view prompt);

// The tags that the answer is taken apart by are special tokens: its text must keep them, whatever skip_special_tokens says.
bool keeps_special_tokens(const Serving& serving, const parse::MessageFormat& format);

// The answer is complete: its text becomes parts.
void split_whole(const parse::MessageFormat& format, wire::Choice& choice);

class ChatMessage {
 public:
  explicit ChatMessage(const parse::MessageFormat& format) : format_(format), parser_(format) {}
  // The chunks that one step's text makes, none where it is held back; its logprobs and token ids go with the next chunk then.
  // The last step (choice.stop is set) makes at least one.
  std::vector<wire::Choice> stream(wire::Choice choice);

 private:
  wire::Choice chunk(int32_t index, const parse::Event& event);

  parse::MessageFormat format_;
  parse::MessageParser parser_;
  int32_t calls_ = 0;
  std::vector<wire::LogprobRow> rows_;
  std::vector<int32_t> ids_;
};

}  // namespace baton::engine
