#pragma once
// /v1/messages and /v1/messages/count_tokens in Anthropic's shape: the request becomes a chat request, and the answer's Shape is
// a `message` object, or its events: message_start, content_block_*, message_delta, message_stop. Errors are
// {"type":"error",...}. Requires: body parsed from `source` with kRequestJson. What cannot be said in a chat request is refused
// by name. Pure values. Source: vLLM's entrypoints/anthropic; Anthropic's API reference.
#include <string>

#include "wire/shape.h"

namespace baton::wire {

// The body of the chat request. count_only: max_tokens is not wanted.
Result<std::string> chat_body_of_messages(const Json& body, std::string_view source, bool count_only);

class MessagesShape : public Shape {
 public:
  std::string whole(const Head& head, std::span<const Choice> choices, const Usage& usage,
                    std::string_view kv_transfer_params) override;
  std::string open(const Head& head, const Choice& first, const Usage& so_far) override;
  std::string chunk(const Head& head, const Choice& part, const Usage& so_far) override;
  std::string end(const Head& head, const Usage& usage) override;
  std::string fail(const ApiError& error) override;
  std::string error(const ApiError& error) const override;

 private:
  enum class Block : uint8_t { kNone, kThinking, kText, kToolUse };
  std::string begin(Block block, const ToolCall* call);
  std::string delta(std::string_view type, std::string_view key, std::string_view text) const;
  std::string close();

  Block block_ = Block::kNone;
  int32_t index_ = 0;  // of the open block, or of the next
  std::string blank_;  // white space that may turn out to stand before a call
  Stop stop_;
};

std::string messages_error_json(const ApiError& error);
std::string count_tokens_response(size_t tokens);

}  // namespace baton::wire
