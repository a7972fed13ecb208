#include "wire/openai_response.h"

#include <gtest/gtest.h>

namespace baton::wire {
namespace {

// The two answers below have the keys, order and nulls of the curl outputs in the users' guides, and beside them those of vLLM 0.32.
TEST(Response, ChatIsKeyForKeyTheGuides) {
  const Head head{
      .id = "chatcmpl-5471a768-14e5-4de7-b2f3-38fe9aa62298", .model = "meta-llama/Llama-3.2-3B-Instruct", .created = 1760594331};
  const Choice choice{.index = 0, .text = "Prefill-decode\n\"x\"", .stop = {.finish_reason = "length"}};
  EXPECT_EQ(
      chat_response(head, {&choice, 1}, {.prompt_tokens = 50, .completion_tokens = 150}, ""),
      R"({"id":"chatcmpl-5471a768-14e5-4de7-b2f3-38fe9aa62298","object":"chat.completion","created":1760594331,"model":"meta-llama/Llama-3.2-3B-Instruct",)"
      R"("choices":[{"index":0,"message":{"role":"assistant","content":"Prefill-decode\n\"x\"","refusal":null,"annotations":null,"audio":null,)"
      R"("function_call":null,"tool_calls":[],"reasoning_content":null,"reasoning":null},"logprobs":null,"finish_reason":"length","stop_reason":null,)"
      R"("token_ids":null,"routed_experts":null}],"service_tier":null,"system_fingerprint":null,"usage":{"prompt_tokens":50,"total_tokens":200,)"
      R"("completion_tokens":150,"prompt_tokens_details":null,"completion_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,)"
      R"("prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null})");
}

TEST(Response, CompletionIsKeyForKeyTheGuides) {
  const Head head{.id = "cmpl-e", .model = "m", .created = 7, .system_fingerprint = "who"};
  const Choice choice{.index = 0, .text = " I hope", .stop = {.finish_reason = "stop", .stop_token = 12}};
  EXPECT_EQ(
      completion_response(head, {&choice, 1}, {.prompt_tokens = 6, .completion_tokens = 64}, "{\"uuid\":1223960640850184400}"),
      R"({"id":"cmpl-e","object":"text_completion","created":7,"model":"m","choices":[{"index":0,"text":" I hope","logprobs":null,)"
      R"("finish_reason":"stop","stop_reason":12,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}],)"
      R"("service_tier":null,"system_fingerprint":"who","usage":{"prompt_tokens":6,"total_tokens":70,"completion_tokens":64,)"
      R"("prompt_tokens_details":null,"completion_tokens_details":null},"kv_transfer_params":{"uuid":1223960640850184400},)"
      R"("ec_transfer_params":null,"metrics":null})");
}

TEST(Response, ChatChunks) {
  const Head head{.id = "c", .model = "m", .created = 1};
  Choice choice{.index = 1};
  EXPECT_EQ(
      chat_chunk(head, choice, Delta::kRole, nullptr),
      R"({"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":1,"delta":{"role":"assistant","content":""},)"
      R"("logprobs":null,"finish_reason":null}]})");
  choice.text = "é";
  choice.stop = {.finish_reason = "stop", .stop_string = "END"};
  const Usage usage{.prompt_tokens = 3, .completion_tokens = 2};
  EXPECT_EQ(
      chat_chunk(head, choice, Delta::kContent, &usage),
      R"({"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":1,"delta":{"content":"é"},"logprobs":null,)"
      R"("finish_reason":"stop","stop_reason":"END"}],"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2}})");
  EXPECT_EQ(
      usage_chunk(head, true, {.prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1}),
      R"({"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":3,"total_tokens":5,)"
      R"("completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}})");
  EXPECT_EQ(sse_event("{}"), "data: {}\n\n");
}

// Once a stream: in the usage at its end, or where there is none, in the chunk that ends a choice.
TEST(Response, AStreamsLastChunkSaysWhoAnswered) {
  const Head head{.id = "c", .model = "m", .created = 1, .system_fingerprint = "who"};
  const Choice text{.text = "a"}, last{.text = "a", .stop = {.finish_reason = "stop"}};
  const auto says = [](const std::string& chunk) { return chunk.find(R"("system_fingerprint":"who")") != std::string::npos; };
  for (const bool last_says_who : {false, true}) {
    EXPECT_FALSE(says(chat_chunk(head, text, Delta::kContent, nullptr, last_says_who)));
    EXPECT_FALSE(says(completion_chunk(head, text, nullptr, last_says_who)));
    EXPECT_EQ(says(chat_chunk(head, last, Delta::kContent, nullptr, last_says_who)), last_says_who);
    EXPECT_EQ(says(completion_chunk(head, last, nullptr, last_says_who)), last_says_who);
  }
  EXPECT_TRUE(says(usage_chunk(head, true, {})));
  EXPECT_EQ(usage_chunk({}, true, {}).find("fingerprint"), std::string::npos) << "null is left out";
}

// Ids in the place of words; "text" has both.
TEST(Response, GenerateHasLogprobsByIdsOrByWords) {
  Choice c{.text = "ab", .stop = {.finish_reason = "length"}, .logprobs = true};
  c.rows = {{{7, "a", "a", -0.5f, 2}, {8, "b", "b", -0.25f, 1}}};
  c.token_ids = std::vector<int32_t>{7};
  c.prompt_token_ids = std::vector<int32_t>{1, 2};
  const Head head{.id = "generate-tokens-1", .model = "m", .created = 3};
  const std::string ids = generate_response(head, {&c, 1}, {.prompt_tokens = 2, .completion_tokens = 1}, "", {});
  EXPECT_NE(ids.find(R"("content":[{"token_id":7,"logprob":-0.5,"rank":2,"top_logprobs":[{"token_id":7,"logprob":-0.5,"rank":2}]}])"), std::string::npos)
      << ids;
  EXPECT_NE(ids.find(R"("prompt_token_ids":null)"), std::string::npos);
  EXPECT_NE(ids.find(R"("output_mode":"tokens")"), std::string::npos);
  EXPECT_EQ(ids.find("\"text\":"), std::string::npos);
  const std::string text = generate_response(head, {&c, 1}, {}, "", {.text = true, .prompt_ids = true});
  EXPECT_NE(text.find(R"("text":"ab","logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],)"), std::string::npos) << text;
  EXPECT_NE(text.find(R"("prompt_token_ids":[1,2])"), std::string::npos);
  EXPECT_EQ(generate_usage_chunk(head, {.prompt_tokens = 2, .completion_tokens = 1}, {}),
            R"({"request_id":"generate-tokens-1","usage":{"prompt_tokens":2,"total_tokens":3,"completion_tokens":1},"output_mode":"tokens","choices":[]})");
}

TEST(Response, CompletionChunkAlwaysSaysWhyItStopped) {
  EXPECT_EQ(
      completion_chunk({.id = "c", .model = "m", .created = 1}, {.index = 0, .text = "a"}, nullptr),
      R"({"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null,)"
      R"("stop_reason":null}]})");
}

Choice with_rows() {
  Choice c{.index = 0, .text = "ab", .stop = {.finish_reason = "length"}, .logprobs = true};
  c.rows = {{{1, "a", "a", -0.5f, 1}, {2, "é", "\xC3\xA9", -1.0f, 2}},
            {{3, "b", "b", -2.0f, 3}, {1, "a", "a", -0.25f, 1}, {4, "a", "a", -0.5f, 2}}};
  c.top = 1;
  return c;
}

TEST(Response, ChatLogprobsShowTheFirstTopEntries) {
  const std::string out = chat_chunk({.id = "c", .model = "m", .created = 1}, with_rows(), Delta::kContent, nullptr);
  EXPECT_NE(
      out.find(
          R"("logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]}]},)"
          R"({"token":"b","logprob":-2.0,"bytes":[98],"top_logprobs":[{"token":"b","logprob":-2.0,"bytes":[98]}]}]})"),
      std::string::npos)
      << out;
}

TEST(Response, CompletionLogprobsCountCharactersAndCollapseEqualTexts) {
  Choice c = with_rows();
  c.top = 2;
  c.rows[0][1].logprob = -INFINITY;
  const std::string out = completion_chunk({.id = "c", .model = "m", .created = 1}, c, nullptr);
  EXPECT_NE(
      out.find(
          R"("logprobs":{"text_offset":[0,1],"token_logprobs":[-0.5,-2.0],"tokens":["a","b"],"top_logprobs":[{"a":-0.5,"é":-9999.0},{"b":-2.0,"a":-0.25}]})"),
      std::string::npos)
      << out;
}

TEST(Response, EchoedPromptStartsWithNull) {
  Choice c = with_rows();
  c.echo_rows = 2;
  c.prompt_rows = c.rows;
  const std::string out = completion_response({.id = "c", .model = "m", .created = 1}, {&c, 1}, {}, "");
  EXPECT_NE(out.find(R"("token_logprobs":[null,-2.0])"), std::string::npos) << out;
  EXPECT_NE(out.find(R"("prompt_logprobs":[null,{"3":{"logprob":-2.0,"rank":3,"decoded_token":"b"})"), std::string::npos) << out;
}

TEST(Response, ModelListIsTheGuides) {
  const ModelCard card{.id = "m", .root = "r", .permission_id = "modelperm-0", .created = 5, .max_model_len = 32000};
  EXPECT_EQ(
      model_list({&card, 1}),
      R"({"object":"list","data":[{"id":"m","object":"model","created":5,"owned_by":"vllm","root":"r","parent":null,"max_model_len":32000,)"
      R"("permission":[{"id":"modelperm-0","object":"model_permission","created":5,"allow_create_engine":false,"allow_sampling":true,)"
      R"("allow_logprobs":true,"allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*","group":null,)"
      R"("is_blocking":false}]}]})");
}

TEST(Response, Tokenize) {
  const std::vector<int32_t> ids{1, 2};
  EXPECT_EQ(tokenize_response(ids, 10, nullptr), R"({"count":2,"max_model_len":10,"tokens":[1,2],"token_strs":null})");
  EXPECT_EQ(detokenize_response("a\"b"), R"({"prompt":"a\"b"})");
}

TEST(ChatResponse, ToolCallsAndReasoning) {
  Choice choice{.stop = {.finish_reason = "tool_calls"}, .no_content = true, .reasoning = "hm",
                .tool_calls = {{.id = "chatcmpl-tool-1", .name = "f", .arguments = "{\"a\": 1}"}}};
  const std::string whole = chat_response({.id = "chatcmpl-1", .model = "m"}, {&choice, 1}, {}, "");
  EXPECT_NE(whole.find(R"("message":{"role":"assistant","content":null,"refusal":null,"annotations":null,"audio":null,)"
                       R"("function_call":null,"tool_calls":[{"id":"chatcmpl-tool-1","type":"function","function":{"name":"f",)"
                       R"("arguments":"{\"a\": 1}"}}],"reasoning_content":"hm","reasoning":"hm"})"),
            std::string::npos)
      << whole;
  choice.reasoning.reset();
  choice.tool_calls[0].arguments.clear();
  EXPECT_NE(chat_chunk({}, choice, Delta::kContent, nullptr)
                .find(R"("delta":{"tool_calls":[{"index":0,"id":"chatcmpl-tool-1","type":"function","function":{"name":"f",)"
                      R"("arguments":""}}]})"),
            std::string::npos);
  choice.tool_calls = {{.index = 1, .arguments = "{"}};
  EXPECT_NE(chat_chunk({}, choice, Delta::kContent, nullptr)
                .find(R"("delta":{"tool_calls":[{"index":1,"function":{"arguments":"{"}}]})"),
            std::string::npos);
  EXPECT_NE(chat_chunk({}, {.no_content = true, .reasoning = "x"}, Delta::kContent, nullptr)
                .find(R"("delta":{"reasoning_content":"x","reasoning":"x"})"),
            std::string::npos);
}

}  // namespace
}  // namespace baton::wire
