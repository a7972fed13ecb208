#include "wire/responses.h"

#include <gtest/gtest.h>

#include "wire/limits.h"

namespace baton::wire {
namespace {

// The chat request that a body becomes, or what is wrong with it.
std::string chat_of(const std::string& body, std::string_view before = "") {
  const auto json = parse_json(body, kRequestJson);
  if (!json) return json.error().message;
  const auto request = parse_responses_request(*json, body);
  if (!request) return request.error().message;
  const std::string chat = chat_body(*request, before);
  EXPECT_TRUE(parse_json(chat, kRequestJson)) << chat;
  return chat;
}

TEST(ResponsesRequest, TextIsAUsersMessage) {
  EXPECT_EQ(chat_of(R"({"model":"m","input":"Hi \"you\"","instructions":"Be brief.","max_output_tokens":7,"temperature":0})"),
            R"({"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi \"you\""}],)"
            R"("model":"m","max_completion_tokens":7,"temperature":0})");
  EXPECT_EQ(
      chat_of(R"({"input":"next"})", R"({"role":"user","content":"first"},{"role":"assistant","content":"one"})"),
      R"({"messages":[{"role":"user","content":"first"},{"role":"assistant","content":"one"},{"role":"user","content":"next"}]})");
}

TEST(ResponsesRequest, ItemsOfOneTurnAreOneMessage) {
  EXPECT_EQ(
      chat_of(
          R"({"input":[{"role":"user","content":[{"type":"input_text","text":"Weather"},{"type":"input_text","text":"?"}]},)"
          R"({"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"look"}]},)"
          R"({"type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Let me see"}]},)"
          R"({"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1}"},)"
          R"({"type":"function_call","call_id":"c2","name":"g","arguments":"{}"},)"
          R"({"type":"function_call_output","call_id":"c1","output":"sun"}]})"),
      R"({"messages":[{"role":"user","content":"Weather?"},)"
      R"({"role":"assistant","content":"Let me see","reasoning_content":"look","reasoning":"look","tool_calls":[)"
      R"({"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},)"
      R"({"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]},)"
      R"({"role":"tool","tool_call_id":"c1","content":"sun"}]})");
}

TEST(ResponsesRequest, ToolsFormatsAndTheRest) {
  EXPECT_EQ(
      chat_of(
          R"({"input":"x","tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object"},"strict":true}],)"
          R"("tool_choice":{"type":"function","name":"f"}})"),
      R"({"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","description":"d",)"
      R"("parameters":{"type":"object"}}}],"tool_choice":{"type":"function","function":{"name":"f"}}})");
  EXPECT_EQ(chat_of(R"({"input":"x","tools":[],"tool_choice":"auto"})"), R"({"messages":[{"role":"user","content":"x"}]})");
  EXPECT_EQ(
      chat_of(R"({"input":"x","text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true}}})"),
      R"({"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":)"
      R"({"name":"n","schema":{"type":"object"},"strict":true}}})");
  EXPECT_EQ(chat_of(R"({"input":"x","include":["message.output_text.logprobs"],"top_logprobs":2,"reasoning":{"effort":"low"},)"
                    R"("truncation":"auto"})"),
            R"({"messages":[{"role":"user","content":"x"}],"truncate_prompt_tokens":-1,"logprobs":true,"top_logprobs":2,)"
            R"("reasoning_effort":"low"})");
  EXPECT_EQ(chat_of(R"({"input":[{"role":"user","content":"x"},{"type":"message","role":"assistant","status":"incomplete",)"
                    R"("content":[{"type":"output_text","text":"The"}]}]})"),
            R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"The"}],)"
            R"("continue_final_message":true,"add_generation_prompt":false})");
}

TEST(ResponsesRequest, RefusesByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "input: Field required"},
      {R"([1])", "Input should be a valid dictionary, got array"},
      {R"({"input":7})", "input: Input should be a valid string or list"},
      {R"({"input":[7]})", "input[0]: Input should be a valid dictionary"},
      {R"({"input":[{"type":"computer_call"}]})", "input[0]: items of type 'computer_call' are not supported by this engine"},
      {R"({"input":[{"role":"user"}]})", "input[0].content: Field required"},
      {R"({"input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}]})",
       "At most 0 image(s) may be provided in one prompt: the model takes text only."},
      {R"({"input":[{"type":"function_call","name":"f"}]})", "input[0].call_id: Field required"},
      {R"({"input":"x","tools":[{"type":"web_search"}]})", "tools[0]: type 'web_search' is not supported by this engine"},
      {R"({"input":"x","tool_choice":"required"})", "When using `tool_choice`, `tools` must be set."},
      {R"({"input":"x","prompt":{"id":"p"}})", "prompt template is not supported"},
      {R"({"input":"x","conversation":"c"})", "conversation is not supported by this engine"},
      {R"({"input":"x","background":true,"store":false})", "background can only be used when `store` is true"},
      {R"({"input":"x","truncation":"some"})", "truncation: Input should be 'auto' or 'disabled'"},
      {R"({"input":"x","include":["all"]})", "include: Input should be 'code_interpreter_call.outputs', ..., got 'all'"},
  };
  for (const auto& [body, message] : cases) EXPECT_EQ(chat_of(body), message) << body;
}

// type and sequence number of each event, and the last one's data.
std::string types(const std::string& stream) {
  std::string out;
  int64_t next = 0;
  for (size_t at = 0; at < stream.size();) {
    const size_t end = stream.find("\n\n", at), data = stream.find("\ndata: ", at);
    const auto json = parse_json(stream.substr(data + 7, end - data - 7));
    EXPECT_TRUE(json.has_value()) << stream.substr(at, end - at);
    EXPECT_EQ(cat("event: ", json->find("type")->text), stream.substr(at, data - at));
    EXPECT_EQ(json->find("sequence_number")->as_int(), next++);
    out += json->find("type")->text.substr(9) + " ";
    at = end + 2;
  }
  return out;
}

TEST(ResponsesShape, EventsComeInOrder) {
  ResponsesShape shape({.store = false});
  shape.resolved({.temperature = 0.5, .top_p = 1, .max_tokens = 9});
  const Head head{.id = "resp_1", .model = "m", .created = 7};
  std::string out = shape.open(head, {}, {});
  const auto say = [&](Choice part) { out += shape.chunk(head, part, {}); };
  say({.no_content = true, .reasoning = "hm"});
  say({.text = "\n\n"});  // stands before a call: no message
  say({.no_content = true, .tool_calls = {{.id = "c1", .name = "f"}}});
  say({.no_content = true, .tool_calls = {{.arguments = "{\"a\""}}});
  say({.no_content = true, .tool_calls = {{.arguments = ":1}"}}});
  say({.text = " Done"});
  say({.text = ".", .stop = {.finish_reason = "length"}});
  out += shape.end(head, {.prompt_tokens = 3, .completion_tokens = 5, .cached_tokens = 1, .reasoning_tokens = 2});
  EXPECT_EQ(
      types(out),
      "created in_progress output_item.added reasoning_part.added reasoning_text.delta reasoning_text.done reasoning_part.done "
      "output_item.done output_item.added function_call_arguments.delta function_call_arguments.delta "
      "function_call_arguments.done output_item.done output_item.added content_part.added output_text.delta output_text.delta "
      "output_text.done content_part.done output_item.done completed ");
  const Json last = parse_json(shape.final_response()).value();
  EXPECT_EQ(last.find("status")->text, "incomplete");
  EXPECT_EQ(last.find_path({"incomplete_details", "reason"})->text, "max_output_tokens");
  ASSERT_EQ(last.find("output")->items.size(), 3u);
  EXPECT_EQ(last.find("output")->items[1].find("arguments")->text, "{\"a\":1}");
  EXPECT_EQ(last.find_path({"usage", "output_tokens_details", "reasoning_tokens"})->as_int(), 2);
  EXPECT_EQ(
      shape.final_messages(),
      R"({"role":"assistant","content":" Done.","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]})");
}

TEST(ResponsesShape, WholeSaysTheSame) {
  ResponsesShape shape({.echo_metadata = R"({"k":"v"})", .parallel_tool_calls = false});
  const Choice choice{.text = "Hi", .stop = {.finish_reason = "stop"}, .reasoning = "hm"};
  const Json json =
      parse_json(shape.whole({.id = "resp_1", .model = "m", .created = 7}, {&choice, 1}, {.prompt_tokens = 3}, "{}")).value();
  EXPECT_EQ(json.keys, (std::vector<std::string>{"id",
                                                 "created_at",
                                                 "incomplete_details",
                                                 "instructions",
                                                 "metadata",
                                                 "model",
                                                 "object",
                                                 "output",
                                                 "parallel_tool_calls",
                                                 "temperature",
                                                 "tool_choice",
                                                 "tools",
                                                 "top_p",
                                                 "background",
                                                 "max_output_tokens",
                                                 "max_tool_calls",
                                                 "previous_response_id",
                                                 "prompt",
                                                 "reasoning",
                                                 "service_tier",
                                                 "status",
                                                 "text",
                                                 "top_logprobs",
                                                 "truncation",
                                                 "usage",
                                                 "user",
                                                 "presence_penalty",
                                                 "frequency_penalty",
                                                 "input_messages",
                                                 "output_messages",
                                                 "kv_transfer_params",
                                                 "ec_transfer_params"}));
  EXPECT_EQ(json.find("status")->text, "completed");
  EXPECT_EQ(json.find_path({"metadata", "k"})->text, "v");
  const auto& output = json.find("output")->items;
  ASSERT_EQ(output.size(), 2u);
  EXPECT_EQ(output[0].find("content")->items[0].find("text")->text, "hm");
  EXPECT_EQ(output[1].find("content")->items[0].find("text")->text, "Hi");
  EXPECT_TRUE(output[1].find("content")->items[0].find("logprobs")->is_null());
}

}  // namespace
}  // namespace baton::wire
