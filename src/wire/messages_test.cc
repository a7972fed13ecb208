#include "wire/messages.h"

#include <gtest/gtest.h>

#include "wire/limits.h"

namespace baton::wire {
namespace {

std::string chat_of(const std::string& body, bool count_only = false) {
  const auto json = parse_json(body, kRequestJson);
  if (!json) return json.error().message;
  const auto chat = chat_body_of_messages(*json, body, count_only);
  if (!chat) return chat.error().message;
  EXPECT_TRUE(parse_json(*chat, kRequestJson)) << *chat;
  return *chat;
}

TEST(MessagesRequest, BecomesAChat) {
  EXPECT_EQ(chat_of(R"({"model":"m","max_tokens":9,"system":[{"type":"text","text":"Be"},{"type":"text","text":" brief."}],)"
                    R"("messages":[{"role":"user","content":"Hi"}],"stop_sequences":["x"],"top_k":3,"stream":true})"),
            R"({"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],"model":"m","max_tokens":9,)"
            R"("stop":["x"],"top_k":3,"stream":true})");
  EXPECT_EQ(chat_of(R"({"model":"m","messages":[{"role":"user","content":"Hi"}]})", true),
            R"({"messages":[{"role":"user","content":"Hi"}],"model":"m"})");
}

TEST(MessagesRequest, ToolsAndTheirResults) {
  EXPECT_EQ(
      chat_of(
          R"({"model":"m","max_tokens":9,"messages":[)"
          R"({"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"Look."},)"
          R"({"type":"tool_use","id":"t1","name":"f","input":{"a": 1}}]},)"
          R"({"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"sun"}]},)"
          R"({"type":"text","text":"So?"}]}],)"
          R"("tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],)"
          R"("tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true}})"),
      R"({"messages":[{"role":"assistant","content":"Look.","reasoning_content":"hm","reasoning":"hm","tool_calls":[)"
      R"({"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]},)"
      R"({"role":"tool","tool_call_id":"t1","content":"sun"},{"role":"user","content":"So?"}],)"
      R"("tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}],)"
      R"("parallel_tool_calls":false,"tool_choice":{"type":"function","function":{"name":"f"}},"model":"m","max_tokens":9})");
}

TEST(MessagesRequest, RefusesByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"max_tokens":1,"messages":[]})", "model: Field required"},
      {R"({"model":"m","messages":[]})", "max_tokens: Field required"},
      {R"({"model":"m","max_tokens":0,"messages":[]})", "max_tokens must be positive"},
      {R"({"model":"m","max_tokens":1})", "messages: Input should be a valid list"},
      {R"({"model":"m","max_tokens":1,"messages":[]})", "messages must contain at least one item"},
      {R"({"model":"m","max_tokens":1,"messages":[{"role":"user","content":[]}]})", "message content must not be empty"},
      {R"({"model":"m","max_tokens":1,"messages":[{"role":"bot","content":"x"}]})",
       "messages[0].role: Input should be 'user', 'assistant' or 'system'"},
      {R"({"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image","source":{}}]}]})",
       "At most 0 image(s) may be provided in one prompt: the model takes text only."},
      {R"({"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"tool_use","name":"f"}]}]})",
       "messages[0].content[0].type: 'tool_use' is not known, or not in a message of the user"},
      {R"({"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":[{"type":"bash_20250124","name":"bash"}]})",
       "tools[0]: type 'bash_20250124' is not supported by this engine"},
      {R"({"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":[{"name":"f"}]})",
       "tools[0].input_schema: Input should be a valid dictionary"},
      {R"({"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"tool_choice":{"type":"tool"}})",
       "tool_choice.name is required when tool_choice.type is 'tool'"},
  };
  for (const auto& [body, message] : cases) EXPECT_EQ(chat_of(body), message) << body;
}

TEST(MessagesShape, WholeAndErrors) {
  MessagesShape shape;
  const Choice choice{.text = "\n",
                      .stop = {.finish_reason = "tool_calls"},
                      .reasoning = "hm",
                      .tool_calls = {{.id = "t1", .name = "f", .arguments = R"({"a": 1})"}}};
  EXPECT_EQ(
      shape.whole({.id = "chatcmpl-1", .model = "m"}, {&choice, 1},
                  {.prompt_tokens = 3, .completion_tokens = 4, .cached_tokens = 2}, R"({"x":1})"),
      R"({"id":"chatcmpl-1","type":"message","role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":""},)"
      R"({"type":"tool_use","id":"t1","name":"f","input":{"a": 1}}],"model":"m","stop_reason":"tool_use","stop_sequence":null,)"
      R"("usage":{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":2},"kv_transfer_params":{"x":1}})");
  EXPECT_EQ(shape.error({.status = 404, .message = "no", .type = {}, .param = "model"}),
            R"({"type":"error","error":{"type":"NotFoundError","message":"no"}})");
}

TEST(MessagesShape, StreamsBlocks) {
  MessagesShape shape;
  const Head head{.id = "1", .model = "m"};
  EXPECT_EQ(shape.open(head, {}, {.prompt_tokens = 3}),
            "event: message_start\ndata: "
            "{\"type\":\"message_start\",\"message\":{\"id\":\"1\",\"type\":\"message\",\"role\":\"assistant\","
            "\"content\":[],\"model\":\"m\",\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":3,\"output_"
            "tokens\":0}}}\n\n");
  EXPECT_EQ(shape.chunk(head, {.text = "Hi"}, {}),
            "event: content_block_start\ndata: "
            "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
            "event: content_block_delta\ndata: "
            "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n");
  EXPECT_EQ(shape.chunk(head, {.no_content = true, .tool_calls = {{.id = "t", .name = "f"}}}, {}),
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":"
            "{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}}\n\n");
  EXPECT_EQ(shape.chunk(head, {.no_content = true, .tool_calls = {{.arguments = "{}"}}}, {}),
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":"
            "{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}\n\n");
  EXPECT_EQ(shape.chunk(head, {.stop = {.finish_reason = "stop", .stop_string = "END"}, .no_content = true}, {}), "");
  EXPECT_EQ(shape.end(head, {.prompt_tokens = 3, .completion_tokens = 5}),
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n"
            "event: message_delta\ndata: "
            "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"stop_sequence\",\"stop_sequence\":\"END\"},"
            "\"usage\":{\"input_tokens\":3,\"output_tokens\":5}}\n\n"
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

}  // namespace
}  // namespace baton::wire
