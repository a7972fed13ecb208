#include "wire/openai.h"

#include <gtest/gtest.h>

#include "wire/limits.h"

namespace baton::wire {
namespace {

Result<ChatRequest> chat(const std::string& fields) {
  auto json = parse_json(cat("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]", fields.empty() ? "" : ",", fields, "}"),
                         kRequestJson);
  EXPECT_TRUE(json.has_value()) << fields;
  return parse_chat_request(*json);
}

Result<CompletionRequest> completion(const std::string& fields) {
  auto json = parse_json(cat("{", fields, "}"), kRequestJson);
  EXPECT_TRUE(json.has_value()) << fields;
  return parse_completion_request(*json);
}

std::string chat_error(const std::string& fields) {
  auto r = chat(fields);
  return r ? "accepted" : r.error().message;
}
std::string completion_error(const std::string& fields) {
  auto r = completion(fields);
  return r ? "accepted" : r.error().message;
}

TEST(ChatRequest, DefaultsAreVllms) {
  auto r = chat("");
  ASSERT_TRUE(r.has_value());
  EXPECT_FALSE(r->max_tokens || r->temperature || r->logprobs || r->seed);
  EXPECT_TRUE(r->add_generation_prompt && r->skip_special_tokens && !r->add_special_tokens && !r->stream);
  EXPECT_EQ(r->n, 1);
}

TEST(ChatRequest, NullMeansAbsentForEveryField) {
  std::string fields;
  for (const char* key : {"model",
                          "temperature",
                          "top_p",
                          "top_k",
                          "min_p",
                          "frequency_penalty",
                          "presence_penalty",
                          "repetition_penalty",
                          "seed",
                          "n",
                          "stop",
                          "stop_token_ids",
                          "include_stop_str_in_output",
                          "ignore_eos",
                          "min_tokens",
                          "bad_words",
                          "logit_bias",
                          "allowed_token_ids",
                          "skip_special_tokens",
                          "truncate_prompt_tokens",
                          "prompt_logprobs",
                          "stream",
                          "stream_options",
                          "priority",
                          "request_id",
                          "user",
                          "cache_salt",
                          "kv_transfer_params",
                          "return_token_ids",
                          "response_format",
                          "tools",
                          "tool_choice",
                          "max_tokens",
                          "max_completion_tokens",
                          "logprobs",
                          "top_logprobs",
                          "echo",
                          "add_generation_prompt",
                          "continue_final_message",
                          "chat_template",
                          "chat_template_kwargs",
                          "documents",
                          "guided_json",
                          "structured_outputs",
                          "use_beam_search",
                          "logits_processors"}) {
    fields += cat(fields.empty() ? "" : ",", "\"", key, "\":null");
  }
  auto r = chat(fields);
  ASSERT_TRUE(r.has_value()) << r.error().message;
  EXPECT_TRUE(r->unknown.empty());
  EXPECT_FALSE(r->kv_transfer_params);
}

TEST(ChatRequest, UnknownFieldsAreNotedNotRefused) {
  auto r = chat("\"frobnicate\":{\"a\":[1]},\"wibble\":3");
  ASSERT_TRUE(r.has_value());
  EXPECT_EQ(r->unknown, (std::vector<std::string>{"frobnicate", "wibble"}));
}

TEST(ChatRequest, ReadsEveryField) {
  auto r = chat(R"("model":"m","temperature":0.5,"top_p":0.9,"top_k":-1,"min_p":0.1,"frequency_penalty":-2,"presence_penalty":2,
      "repetition_penalty":1.1,"seed":9223372036854775807,"n":3,"stop":"x","stop_token_ids":[1,2],"min_tokens":2,"bad_words":["w"],
      "logit_bias":{"5":200,"6":-1.5},"allowed_token_ids":[5],"truncate_prompt_tokens":-1,"stream":true,"stream_options":{},
      "priority":-3,"max_tokens":10,"max_completion_tokens":20,"logprobs":true,"top_logprobs":4,"cache_salt":"s",
      "kv_transfer_params":{"uuid":1223960640850184400})");
  ASSERT_TRUE(r.has_value()) << r.error().message;
  EXPECT_EQ(r->seed, INT64_MAX);
  EXPECT_EQ(r->max_tokens, 20);  // max_completion_tokens wins
  EXPECT_EQ(r->stop, std::vector<std::string>{"x"});
  EXPECT_EQ(r->logit_bias, (std::vector<std::pair<int32_t, float>>{{5, 100.0f}, {6, -1.5f}}));  // clamped
  EXPECT_FALSE(r->include_usage);
  EXPECT_FALSE(chat(R"("stream":true,"stream_options":{"continuous_usage_stats":true})")->continuous_usage);  // not without the other
  EXPECT_EQ(r->logprobs, 4);
  EXPECT_EQ(r->kv_transfer_params->find("uuid")->as_int(), 1223960640850184400);
}

TEST(ChatRequest, WordsItsRefusalsAsVllmDoes) {
  const std::pair<const char*, const char*> cases[] = {
      {"\"temperature\":-1", "temperature must be non-negative, got -1."},
      {"\"top_p\":0", "top_p must be in (0, 1], got 0."},
      {"\"top_p\":1.5", "top_p must be in (0, 1], got 1.5."},
      {"\"top_k\":-2", "top_k must be 0 (disable), or at least 1, got -2."},
      {"\"min_p\":2", "min_p must be in [0, 1], got 2."},
      {"\"frequency_penalty\":3", "frequency_penalty must be in [-2, 2], got 3."},
      {"\"presence_penalty\":-3", "presence_penalty must be in [-2, 2], got -3."},
      {"\"repetition_penalty\":0", "repetition_penalty must be greater than zero, got 0."},
      {"\"n\":0", "n must be at least 1, got 0."},
      {"\"n\":2,\"temperature\":0", "n must be 1 when using greedy sampling, got 2."},
      {"\"max_tokens\":0", "max_tokens must be at least 1, got 0."},
      {"\"min_tokens\":-1", "min_tokens must be greater than or equal to 0, got -1."},
      {"\"min_tokens\":5,\"max_tokens\":4", "min_tokens must be less than or equal to max_tokens=4, got 5."},
      {"\"stop\":[\"a\",\"\"]", "stop cannot contain an empty string."},
      {"\"allowed_token_ids\":[]", "allowed_token_ids is not None and empty!"},
      {"\"truncate_prompt_tokens\":0", "truncate_prompt_tokens must be >= 1, got 0"},
      {"\"stream_options\":{\"include_usage\":true}", "Stream options can only be defined when `stream=True`."},
      {"\"stream\":true,\"prompt_logprobs\":1", "`prompt_logprobs` are not available when `stream=True`."},
      {"\"top_logprobs\":2", "when using `top_logprobs`, `logprobs` must be set to true."},
      {"\"tool_choice\":\"auto\"", "When using `tool_choice`, `tools` must be set."},
      {"\"tools\":[{\"type\":\"function\"}]", "tools[0].function: Field required"},
      {"\"tools\":[7]", "tools[0]: Input should be a valid dictionary"},
      {"\"tools\":[{\"type\":\"x\"}]", "tools[0].type: Input should be 'function'"},
      {"\"tools\":[{\"function\":{\"name\":\"f\"}}],\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}",
       "The tool specified in `tool_choice` does not match any of the specified `tools`"},
      {"\"tools\":[{\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"always\"",
       "Invalid value for `tool_choice`: only named tools, \"none\", \"auto\" or \"required\" are supported."},
      {"\"reasoning_effort\":\"huge\"",
       "reasoning_effort: Input should be 'none', 'minimal', 'low', 'medium', 'high', 'xhigh' or 'max'"},
      {"\"continue_final_message\":true", "Cannot set both `continue_final_message` and `add_generation_prompt` to True."},
      {"\"cache_salt\":\"\"", "Parameter 'cache_salt' must be a non-empty string if provided."},
      {"\"temperature\":\"hot\"", "temperature: Input should be a valid number"},
      {"\"n\":1.5", "n: Input should be a valid integer"},
      {"\"temperature\":2.5", "temperature must be in [0, 2], got 2.5."},
      {"\"stream\":\"maybe\"", "stream: Input should be a valid boolean"},
      {"\"stream\":2", "stream: Input should be a valid boolean"},
      {"\"n\":\"two\"", "n: Input should be a valid integer"},
      {"\"n\":\"1.5\"", "n: Input should be a valid integer"},
      {"\"n\":\"1 2\"", "n: Input should be a valid integer"},
      {"\"logit_bias\":{\"x\":1}", "logit_bias contains key(s) that cannot be converted to integer token IDs: ['x']"},
      {"\"messages\":[]", "messages: List should have at least 1 item after validation, not 0"},
      {"\"messages\":null", "messages: Field required"},
      {"\"kv_transfer_params\":7", "kv_transfer_params: Input should be a valid dictionary"},
  };
  for (auto [fields, message] : cases) EXPECT_EQ(chat_error(fields), message) << fields;
}

TEST(ChatRequest, NumbersAndTruthsMayBeWrittenInStrings) {
  const auto r = chat(R"("max_tokens":"16","temperature":"0.5","seed":" -3 ","stream":"True","n":2.0,"ignore_eos":1,"top_k":"7","stop_token_ids":["5",6],
      "logprobs":"off","stream_options":{"include_usage":"yes"})");
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ(r->max_tokens, 16);
  EXPECT_EQ(r->temperature, 0.5);
  EXPECT_EQ(r->seed, -3);
  EXPECT_EQ(r->n, 2);
  EXPECT_EQ(r->top_k, 7);
  EXPECT_EQ(r->stop_token_ids, (std::vector<int32_t>{5, 6}));
  EXPECT_TRUE(r->stream && r->ignore_eos && r->include_usage);
  EXPECT_FALSE(r->logprobs);
}

TEST(ChatRequest, WhatWeDoNotDoIsSaidAs501) {
  for (const char* fields :
       {"\"use_beam_search\":true,\"stop\":[\"x\"]", "\"logits_processors\":[\"x\"]"}) {
    auto r = chat(fields);
    ASSERT_FALSE(r.has_value()) << fields;
    EXPECT_EQ(r.error().code, Code::kUnimplemented) << fields;
  }
  EXPECT_EQ(chat_error("\"response_format\":{\"type\":\"text\"},\"use_beam_search\":false,\"tools\":[],\"tool_choice\":\"none\""),
            "accepted");
  auto image = chat(R"("messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x"}}]}])");
  ASSERT_FALSE(image.has_value());
  EXPECT_EQ(image.error().code, Code::kInvalidArgument);
}

TEST(ChatRequest, Tools) {
  const std::string tools = R"("tools":[{"type":"function","function":{"name":"f","parameters":{}}}])";
  EXPECT_EQ(chat("")->tool_choice, ToolChoice::kNone);
  EXPECT_EQ(chat(tools)->tool_choice, ToolChoice::kAuto);
  EXPECT_EQ(chat(tools + R"(,"tool_choice":"auto","parallel_tool_calls":false)")->parallel_tool_calls, false);
  auto none = chat(tools + R"(,"tool_choice":"none")");
  EXPECT_EQ(none->tool_choice, ToolChoice::kNone);
  EXPECT_EQ(none->tools.items.size(), 1u);  // the template still shows them
  EXPECT_EQ(chat(tools + R"(,"tool_choice":"required")")->tool_choice, ToolChoice::kRequired);
  auto named = chat(tools + R"(,"tool_choice":{"type":"function","function":{"name":"f"}})");
  EXPECT_EQ(named->tool_choice, ToolChoice::kNamed);
  EXPECT_EQ(named->named_tool, "f");
}

TEST(ChatRequest, StructuredOutputs) {
  using Kind = StructuredOutput::Kind;
  EXPECT_FALSE(chat("")->structured);
  EXPECT_FALSE(chat(R"("response_format":{"type":"text"})")->structured);
  EXPECT_EQ(chat(R"("response_format":{"type":"json_object"})")->structured->kind, Kind::kJsonObject);
  auto schema = chat(R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"null"}}})");
  EXPECT_EQ(schema->structured->schema.find("type")->text, "null");
  EXPECT_EQ(chat(R"("structured_outputs":{"regex":"a","whitespace_pattern":" "})")->structured->text, "a");
  EXPECT_EQ(chat(R"("structured_outputs":{"json":"{\"type\":\"null\"}","disable_any_whitespace":true})")->structured->any_whitespace, false);
  EXPECT_EQ(chat(R"("guided_choice":["a","b"],"guided_decoding_backend":"xgrammar")")->structured->choices.size(), 2u);
  EXPECT_EQ(chat(R"("guided_grammar":"root ::= x")")->structured->kind, Kind::kGrammar);
  EXPECT_EQ(chat_error(R"("guided_json":{},"response_format":{"type":"json_object"})"),
            "You can only use one kind of structured outputs constraint but multiple are specified: response_format, guided_json");
  EXPECT_EQ(chat_error(R"("response_format":{"type":"json_schema","json_schema":{"schema":{}}})"), "response_format.json_schema.name: Field required");
}

TEST(ChatRequest, ReasoningEffortIsTheTemplates) {
  auto r = chat(R"("reasoning_effort":"low","include_reasoning":false,"chat_template_kwargs":{"enable_thinking":true})");
  EXPECT_EQ(r->template_kwargs.find("reasoning_effort")->text, "low");
  EXPECT_TRUE(r->template_kwargs.find("enable_thinking")->boolean);
  EXPECT_FALSE(r->include_reasoning);
  auto own = chat(R"("reasoning_effort":"low","chat_template_kwargs":{"reasoning_effort":"x"})");
  EXPECT_EQ(own->template_kwargs.find("reasoning_effort")->text, "x");
  EXPECT_TRUE(chat("")->template_kwargs.is_null());
}

TEST(ChatRequest, LimitsAreNamed) {
  std::string many = "\"stop\":[";
  for (size_t i = 0; i <= kStopStringsMax; ++i) many += cat(i ? "," : "", "\"s\"");
  EXPECT_NE(chat_error(many + "]").find(cat("at most ", kStopStringsMax)), std::string::npos);
  EXPECT_NE(chat_error(cat("\"n\":", kChoicesMax + 1)).find(cat("at most ", kChoicesMax)), std::string::npos);
  EXPECT_NE(chat_error(cat("\"request_id\":\"", std::string(kRequestIdBytesMax + 1, 'a'), "\"")).find("at most"),
            std::string::npos);
}

TEST(CompletionRequest, TakesTheFourFormsOfAPrompt) {
  EXPECT_EQ(completion("\"prompt\":\"a\"")->prompts, (std::vector<Prompt>{"a"}));
  EXPECT_EQ(completion("\"prompt\":[\"a\",\"b\"]")->prompts, (std::vector<Prompt>{"a", "b"}));
  EXPECT_EQ(completion("\"prompt\":[1,2]")->prompts, (std::vector<Prompt>{std::vector<int32_t>{1, 2}}));
  EXPECT_EQ(completion("\"prompt\":[[1],[2,3]]")->prompts,
            (std::vector<Prompt>{std::vector<int32_t>{1}, std::vector<int32_t>{2, 3}}));
  for (const char* bad : {"\"x\":1", "\"prompt\":[]", "\"prompt\":7", "\"prompt\":[1,\"a\"]", "\"prompt\":[[1],2]",
                          "\"prompt\":[-1]", "\"prompt\":[[1.5]]", "\"prompt\":{}"}) {
    EXPECT_NE(completion_error(bad), "accepted") << bad;
  }
}

TEST(CompletionRequest, DefaultsAndEchoScoring) {
  auto r = completion("\"prompt\":\"a\"");
  EXPECT_EQ(r->max_tokens, 16);
  EXPECT_TRUE(r->add_special_tokens);
  EXPECT_EQ(completion_error("\"prompt\":\"a\",\"max_tokens\":0"), "max_tokens must be at least 1, got 0.");
  auto score = completion("\"prompt\":\"a\",\"max_tokens\":0,\"echo\":true,\"logprobs\":1");
  ASSERT_TRUE(score.has_value());
  EXPECT_EQ(score->prompt_logprobs, 1);
  EXPECT_EQ(completion_error("\"prompt\":\"a\",\"suffix\":\"b\""), "suffix is not currently supported");
}

TEST(TokenizeRequest, PromptOrMessages) {
  auto prompt = parse_tokenize_request(*parse_json(R"({"prompt":"a"})"));
  EXPECT_EQ(prompt->prompt, "a");
  EXPECT_TRUE(prompt->add_special_tokens);
  auto messages = parse_tokenize_request(*parse_json(R"({"messages":[{"role":"user","content":"x"}]})"));
  EXPECT_FALSE(messages->prompt);
  EXPECT_FALSE(messages->add_special_tokens);
  EXPECT_FALSE(parse_tokenize_request(*parse_json("{}")).has_value());
  EXPECT_FALSE(parse_detokenize_request(*parse_json(R"({"tokens":[-1]})")).has_value());
  EXPECT_FALSE(parse_detokenize_request(*parse_json("[]")).has_value());
}

}  // namespace
}  // namespace baton::wire
