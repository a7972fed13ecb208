#include "engine/asked.h"

#include "engine/chat_message.h"
#include "engine/prepare.h"
#include "wire/limits.h"
#include "wire/messages.h"
#include "wire/token_api.h"

namespace baton::engine {
namespace {

// vLLM's words: its library for this format knows three.
Result<> check_effort(const wire::ChatRequest& r) {
  const Json* effort = r.template_kwargs.find("reasoning_effort");
  if (effort == nullptr || !effort->is_string()) return {};
  if (effort->text == "none") return fail(Code::kInvalidArgument, "Harmony does not support reasoning_effort='none'");
  if (effort->text == "low" || effort->text == "medium" || effort->text == "high") return {};
  return fail(Code::kInvalidArgument, "reasoning_effort='", effort->text,
              "' is not supported by Harmony. Supported values are: high, medium, low.");
}

// What flags say of every request.
void server_defaults(const Serving& s, wire::GenerateFields& f) {
  if (s.config->force_include_usage && f.stream) f.include_usage = f.continuous_usage = true;
  f.return_tokens_as_token_ids |= s.config->return_tokens_as_token_ids;
}

Result<Constraint> compiled(const Serving& s, const std::optional<grammar::Constraint>& wanted) {
  return wanted ? s.constraints->get(*wanted) : Constraint();
}

Result<Asked> read_chat(const Serving& s, const Json& body, std::string_view) {
  BATON_TRY(wire::ChatRequest request, wire::parse_chat_request(body));
  BATON_TRY(Asked asked, ask_chat(s, std::move(request)));
  asked.id_prefix = "chatcmpl-";
  asked.shape = wire::chat_shape(asked.fields);
  return asked;
}

Result<Asked> ask_completion(const Serving& s, const Json& body) {
  BATON_TRY(wire::CompletionRequest r, wire::parse_completion_request(body));
  BATON_OK(check_model_name(s, r.model));
  Asked asked;
  asked.echo = asked.echo_rows = r.echo;
  asked.echo_only = r.echo && r.max_tokens == 0;
  for (const wire::Prompt& prompt : r.prompts) {
    AskedPrompt& p = asked.prompts.emplace_back();
    BATON_TRY(p.ids, prompt_tokens(s, prompt, r.add_special_tokens));
    const auto* text = std::get_if<std::string>(&prompt);
    if (r.echo) p.echo_text = text ? *text : s.tokenizer->decode(p.ids, false);
  }
  BATON_TRY(asked.constraint, compiled(s, constraint_of(static_cast<const wire::GenerateFields&>(r))));
  asked.fields = std::move(static_cast<wire::GenerateFields&>(r));
  server_defaults(s, asked.fields);
  return asked;
}

Result<Asked> read_completion(const Serving& s, const Json& body, std::string_view) {
  BATON_TRY(Asked asked, ask_completion(s, body));
  asked.id_prefix = "cmpl-";
  asked.shape = wire::completion_shape(asked.fields);
  return asked;
}

Result<Asked> read_messages(const Serving& s, const Json& body, std::string_view text) {
  BATON_TRY(const std::string chat, wire::chat_body_of_messages(body, text, false));
  BATON_TRY(const Json parsed, parse_json(chat, wire::kRequestJson));
  BATON_TRY(wire::ChatRequest request, wire::parse_chat_request(parsed));
  BATON_TRY(Asked asked, ask_chat(s, std::move(request)));
  asked.id_prefix = "chatcmpl-";
  asked.shape = std::make_unique<wire::MessagesShape>();
  return asked;
}

Result<Asked> read_generate(const Serving& s, const Json& body, std::string_view text) {
  BATON_TRY(const std::string completion, wire::completion_body_of_generate(body, text));
  BATON_TRY(const Json parsed, parse_json(completion, wire::kRequestJson));
  BATON_TRY(Asked asked, ask_completion(s, parsed));
  if (!parsed.find("max_tokens")) asked.fields.max_tokens.reset();  // as much as there is room for, not a completion's 16
  asked.id_prefix = "generate-tokens-";
  asked.shape = wire::generate_shape(asked.fields, body);
  return asked;
}

}  // namespace

const Api kChatApi{"Chat Completions API", read_chat, openai_error_json};
const Api kCompletionApi{"Completions API", read_completion, openai_error_json};
const Api kMessagesApi{"Messages API", read_messages, wire::messages_error_json};
const Api kGenerateApi{"Generate API", read_generate, openai_error_json};

std::string openai_error_json(const wire::ApiError& error) { return wire::error_json(error); }

Result<Asked> ask_chat(const Serving& s, wire::ChatRequest r) {
  BATON_OK(check_model_name(s, r.model));
  BATON_TRY(const std::string text, render_chat(s, r));
  Asked asked;
  AskedPrompt& prompt = asked.prompts.emplace_back();
  BATON_TRY(prompt.ids, s.tokenizer->encode(text, r.add_special_tokens));
  BATON_TRY(asked.format, message_format(s, r, text));
  if (asked.format.harmony) BATON_OK(check_effort(r));
  auto wanted = constraint_of(r);
  if (wanted) wanted->harmony = asked.format.harmony == parse::kHarmonyHeader && s.constraints->harmony();
  BATON_TRY(asked.constraint, compiled(s, wanted));
  asked.constraint_begin = begin_of(asked.format);
  if (keeps_special_tokens(s, asked.format)) r.skip_special_tokens = false;
  const Json* role = r.messages.back().find("role");
  const Json* content = r.messages.back().find("content");
  asked.echo = r.echo && role->text == "assistant" && content && content->is_string();
  if (asked.echo) prompt.echo_text = content->text;
  if (r.return_prompt_text) prompt.shown = text;
  asked.fields = std::move(static_cast<wire::GenerateFields&>(r));
  server_defaults(s, asked.fields);
  return asked;
}

}  // namespace baton::engine
