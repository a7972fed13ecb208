#pragma once
// /v1/responses: the request, and the answer's Shape: a `response` object, or its typed events in order (response.created,
// .in_progress, .output_item.added, ..., .completed) with sequence numbers and no [DONE], as vLLM sends them.
// Requires: body parsed from `source` with kRequestJson. Guarantees: what can be said in a chat request is; what cannot is
// refused by name (tools that are no functions, prompt templates). Pure values. Source: vLLM's entrypoints/openai/responses;
// OpenAI's API reference.
#include <string>
#include <vector>

#include "wire/chat_body.h"
#include "wire/shape.h"

namespace baton::wire {

struct ResponsesRequest {
  std::string instructions{};  // a system message, or ""
  std::string messages{};      // of `input`, as chat messages: JSON objects, comma separated
  std::string chat_fields{};   // the rest of the chat request: JSON members, comma separated, or ""
  std::string previous_response_id{}, request_id{};
  bool store = true, background = false, stream = false;
  // What the answer repeats, as JSON ("" = null).
  std::string echo_instructions{}, echo_metadata{}, echo_tools{}, echo_tool_choice{}, echo_reasoning{}, echo_text{}, echo_user{},
      echo_service_tier{}, echo_truncation{}, echo_max_tool_calls{}, echo_top_logprobs{};
  bool parallel_tool_calls = true;
};

Result<ResponsesRequest> parse_responses_request(const Json& body, std::string_view source);
// The chat request; before: messages of the conversation so far, comma separated, or "".
std::string chat_body(const ResponsesRequest& request, std::string_view before);

class ResponsesShape : public Shape {
 public:
  explicit ResponsesShape(ResponsesRequest request) : request_(std::move(request)) {}
  std::string whole(const Head& head, std::span<const Choice> choices, const Usage& usage,
                    std::string_view kv_transfer_params) override;
  std::string open(const Head& head, const Choice& first, const Usage& so_far) override;
  std::string chunk(const Head& head, const Choice& part, const Usage& so_far) override;
  std::string end(const Head& head, const Usage& usage) override;
  std::string fail(const ApiError& error) override;
  void resolved(const Resolved& resolved) override { resolved_ = resolved; }

  // The response as it stands while nothing of it is there: status "queued", "in_progress", "cancelled" or "failed".
  std::string unfinished(const Head& head, std::string_view status) const;
  // After whole() or end(): the response, and its output as chat messages for the next turn (comma separated, "" if none).
  const std::string& final_response() const { return final_; }
  std::string final_messages() { return said_.empty() ? "" : said_.take(); }

 private:
  enum class Item : uint8_t { kNone, kReasoning, kText, kCall };
  std::string response(const Head& head, std::string_view status, const Usage* usage, std::string_view kv) const;
  std::string event(std::string_view type, std::string_view members);
  std::string place() const;  // members: item_id, output_index, and content_index
  std::string begin(Item item);
  std::string begin_call(const ToolCall& call);
  std::string more(std::string_view delta, const Choice& part);
  std::string close();
  void keep(std::string item);
  void say_text(const Choice& choice);

  ResponsesRequest request_;
  Resolved resolved_;
  std::string output_;       // finished items, comma separated
  int32_t items_ = 0;        // in output_
  Item item_ = Item::kNone;  // the open one
  std::string item_id_, text_, blank_, call_id_, call_name_, logprobs_;
  int64_t sequence_ = 0;
  std::string finish_;  // finish_reason
  std::string final_;
  AssistantMessage said_;
};

}  // namespace baton::wire
