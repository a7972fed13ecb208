#pragma once
// Asked: what a request of any API comes to: prompts in tokens, sampling fields, what its text is taken apart into, and the Shape
// that writes the answer. One row of kApis per API; generate.h does the rest, the same for all.
// Errors carry vLLM's wording. Pure but for what a Shape draws; any thread.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/constrain.h"
#include "engine/serving.h"
#include "parse/message.h"
#include "wire/openai.h"
#include "wire/shape.h"

namespace baton::engine {

struct AskedPrompt {
  std::vector<int32_t> ids;
  std::string echo_text;  // goes before the answer; "" = nothing
  std::optional<std::string> shown{};  // what the answer shows as its prompt's text
};

struct Asked {
  std::string id_prefix;
  std::string_view request_type = "chat_completions";  // as vllm:tool_call_parser_invocations names it
  wire::GenerateFields fields;
  std::vector<AskedPrompt> prompts;  // not empty
  parse::MessageFormat format;
  Constraint constraint;  // what the answer must be
  grammar::Begin constraint_begin;
  bool echo = false, echo_only = false,
       echo_rows = false;       // only: no token of the answer is shown; rows: the prompt's logprobs too
  bool cached_details = false;  // usage tells cached tokens whatever the configuration says
  std::unique_ptr<wire::Shape> shape;
  std::function<void()> finished;  // called once, when the whole answer is known and before its last byte goes out; may be empty
};

// From the request's JSON and the text it was parsed from.
using ReadAsked = std::function<Result<Asked>(const Json& body, std::string_view text)>;

struct Api {
  std::string_view name;  // as errors call it
  Result<Asked> (*read)(const Serving&, const Json& body, std::string_view text);
  std::string (*error_json)(const wire::ApiError&);
};
extern const Api kChatApi, kCompletionApi, kMessagesApi, kGenerateApi;

// A chat request of whatever origin; the shape is the caller's to set.
Result<Asked> ask_chat(const Serving& serving, wire::ChatRequest request);
std::string openai_error_json(const wire::ApiError& error);

}  // namespace baton::engine
