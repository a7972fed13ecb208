// What a refusal says beside its message, as vLLM does: which parameter is meant, and whether the form of the body was wrong
// ("Bad Request") or what it asks for ("BadRequestError").
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using ::testing::HasSubstr;
using testing::Reply;
using testing::TestEngine;

struct RefusalCase {
  const char* path;
  const char* body;
  const char* begin;  // of the message
  const char* type;
  const char* param;  // "" = null
};

constexpr const char* kCompletions = "/v1/completions";
constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kResponses = "/v1/responses";
constexpr const char* kAsked = "BadRequestError";
constexpr const char* kForm = "Bad Request";

void expect_refused(TestEngine& e, const RefusalCase& c) {
  std::string body = c.body;
  if (body.starts_with(",")) {
    const bool chat = std::string_view(c.path) == kChat;
    const bool input = std::string_view(c.path) == kResponses;
    body = cat("{",
               chat    ? R"("messages":[{"role":"user","content":"a"}])"
               : input ? R"("input":"a")"
                       : R"("prompt":"a")",
               body, "}");
  }
  const Reply reply = e.post(c.path, body);
  EXPECT_TRUE(reply.error().starts_with(c.begin)) << body << ": " << reply.error();
  const Json json = reply.json();
  EXPECT_EQ(json.find_path({"error", "type"})->text, c.type) << body;
  const Json* param = json.find_path({"error", "param"});
  EXPECT_EQ(param->is_null() ? "" : param->text, c.param) << body;
}

TEST(Refusals, OfWhatIsAskedNameTheParameter) {
  TestEngine e;
  const RefusalCase cases[] = {
      {kCompletions, R"(,"temperature":-1)", "temperature must be non-negative", kAsked, "temperature"},
      {kCompletions, R"(,"temperature":3)", "temperature must be in [0, 2]", kAsked, "temperature"},
      {kCompletions, R"(,"top_p":0)", "top_p must", kAsked, "top_p"},
      {kCompletions, R"(,"max_tokens":0)", "max_tokens must be at least 1", kAsked, "max_tokens"},
      {kCompletions, R"(,"max_tokens":99999)", "max_tokens=99999 cannot", kAsked, "max_tokens"},
      {kChat, R"(,"max_completion_tokens":99999)", "max_completion_tokens=99999", kAsked, "max_completion_tokens"},
      {kResponses, R"(,"max_output_tokens":99999)", "max_output_tokens=99999", kAsked, "max_output_tokens"},
      {kCompletions, R"(,"truncate_prompt_tokens":9999)", "truncate_prompt_tokens=9999", kAsked, "truncate_prompt_tokens"},
      {kCompletions, R"(,"logprobs":21)", "Requested sample logprobs of 21", kAsked, "logprobs"},
      {kCompletions, R"(,"logprobs":-2)", "`logprobs` must", kAsked, "logprobs"},
      {kCompletions, R"(,"prompt_logprobs":21)", "Requested prompt logprobs of 21", kAsked, "prompt_logprobs"},
      {kCompletions, R"(,"prompt_logprobs":-2)", "`prompt_logprobs` must", kAsked, "prompt_logprobs"},
      {kCompletions, R"(,"prompt_logprobs":1,"stream":true)", "`prompt_logprobs` are not", kAsked, "prompt_logprobs"},
      {kCompletions, R"(,"prompt_logprobs":"x")", "prompt_logprobs: Input should be a valid integer", kAsked, "prompt_logprobs"},
      {kCompletions, R"(,"stop_token_ids":[300])", "token_id(s) in stop_token_ids [300]", kAsked, "stop_token_ids"},
      {kCompletions, R"(,"logit_bias":{"300":1})", "token_id(s) [300] in logit_bias", kAsked, "logit_bias"},
      {kCompletions, R"(,"logit_bias":{"x":1})", "logit_bias contains key(s)", kAsked, "logit_bias"},
      {kCompletions, R"(,"allowed_token_ids":[300])", "allowed_token_ids contains", kAsked, "allowed_token_ids"},
      {kCompletions, R"(,"allowed_token_ids":[])", "allowed_token_ids is not None", kAsked, "allowed_token_ids"},
      {kCompletions, R"(,"stream_options":{"include_usage":true})", "Stream options can only", kAsked, "stream_options"},
      {kCompletions, "{}", "Either prompt or prompt_embeds", kAsked, "prompt"},
      {kCompletions, R"({"prompt":[]})", "Either prompt or prompt_embeds", kAsked, "prompt"},
      {kCompletions, R"(,"suffix":"b")", "suffix is not", kAsked, "suffix"},
      {kCompletions, R"(,"cache_salt":"")", "Parameter 'cache_salt'", kAsked, "cache_salt"},
      {kCompletions, R"(,"response_format":{"type":"json_schema"})", "When response_format type", kAsked, "response_format"},
      {kCompletions, R"(,"guided_regex":"a","guided_choice":["a"])", "You can only use one kind", kAsked, "structured_outputs"},
      {kChat, R"(,"top_logprobs":2)", "when using `top_logprobs`", kAsked, "top_logprobs"},
      {kChat, R"(,"top_logprobs":-2)", "`top_logprobs` must", kAsked, "top_logprobs"},
      {kChat, R"(,"top_logprobs":"x")", "top_logprobs: Input should be a valid integer", kAsked, "top_logprobs"},
      {kResponses, R"(,"top_logprobs":"x")", "top_logprobs: Input should be a valid integer", kAsked, "top_logprobs"},
      {kChat, R"(,"tool_choice":"auto")", "When using `tool_choice`", kAsked, "tool_choice"},
      {kResponses, R"(,"tool_choice":"required")", "When using `tool_choice`", kAsked, "tool_choice"},
      {kChat, R"(,"tools":[{"function":{"name":"f"}}],"tool_choice":"x")", "Invalid value for `tool_choice`", kAsked,
       "tool_choice"},
      {kChat, R"(,"tools":[{"function":{"name":"f"}}],"tool_choice":{"function":{"name":"g"}})", "The tool specified", kAsked,
       "tool_choice"},
      {kResponses, R"(,"background":true,"store":false)", "background can only", kAsked, "background"},
      {kResponses, R"(,"prompt":{"id":"p"})", "prompt template", kAsked, "prompt"},
      {kCompletions, R"(,"min_tokens":-1)", "min_tokens must", kAsked, ""},
      {kCompletions, R"(,"model":"x")", "The model `x` does not exist", "NotFoundError", "model"},
  };
  for (const RefusalCase& c : cases) expect_refused(e, c);
  const std::string long_prompt = cat(R"({"prompt":")", std::string(5000, 'x'), "\"}");
  expect_refused(e, {kCompletions, long_prompt.c_str(), "This model's maximum context length", kAsked, "input_tokens"});
  EXPECT_THAT(e.complete(R"("prompt":"a","model":"x")").error(), HasSubstr("The model `x` does not exist. Valid aliases: tiny."));
}

TEST(Refusals, OfTheFormNameThePath) {
  TestEngine e;
  const RefusalCase cases[] = {
      {kCompletions, R"(,"n":"two")", "n: Input should be a valid integer", kForm, "body.n"},
      {kCompletions, R"({"prompt":["a",7]})", "prompt: Input should be a valid string", kForm, "body.prompt"},
      {kCompletions, R"(,"logit_bias":{"5":"x"})", "logit_bias.5: Input should", kForm, "body.logit_bias.5"},
      {kCompletions, R"(,"stream":true,"stream_options":{"include_usage":7})", "stream_options.include_usage: ", kForm,
       "body.stream_options.include_usage"},
      {kCompletions, R"(,"guided_json":7)", "guided_json: Input", kForm, "body.guided_json"},
      {kCompletions, R"(,"structured_outputs":{"regex":7})", "structured_outputs.regex: Input should be a valid string", kForm,
       "body.structured_outputs.regex"},
      {kCompletions, R"(,"structured_outputs":{"regex":"a","disable_any_whitespace":7})",
       "structured_outputs.disable_any_whitespace: Input", kForm, "body.structured_outputs.disable_any_whitespace"},
      {kCompletions, R"(,"structured_outputs":{"choice":[]})", "structured_outputs.choice: List", kForm,
       "body.structured_outputs.choice"},
      {kChat, "{}", "messages: Field required", kForm, "body.messages"},
      {kChat, R"({"messages":[{"content":"x"}]})", "messages[0].role: Field required", kForm, "body.messages.0.role"},
      {kChat, R"(,"tools":[{"type":"x"}])", "tools[0].type: Input", kForm, "body.tools.0.type"},
      {kResponses, R"({"input":[{"role":"user","content":[{"type":"input_text"}]}]})",
       "input[0].content: a part of type 'input_text'", kForm, "body.input.0.content"},
      {"/v1/completions/derender", R"({"generate_responses":[{"choices":[7]}]})", "generate_response.choices: Input", kForm,
       "body.generate_response.choices"},
      {kCompletions, "[1]", "Input should be a valid dictionary", kForm, "body"},
      {kCompletions, "{", "JSON decode error", kForm, "body"},
  };
  for (const RefusalCase& c : cases) expect_refused(e, c);
  const Json media = e.post(kCompletions, "{}", {{"content-type", "text/plain"}}).json();
  EXPECT_EQ(media.find_path({"error", "type"})->text, kForm);
  EXPECT_TRUE(media.find_path({"error", "param"})->is_null());
}

// A chat template's own words may look like a path; they are none.
TEST(Refusals, WordsOfAChatTemplateNameNoParameter) {
  TestEngine e;
  expect_refused(e, {kChat, R"(,"chat_template":"{{ raise_exception('messages: they must alternate') }}")",
                     "messages: they must alternate", kAsked, ""});
}

}  // namespace
}  // namespace baton::engine
