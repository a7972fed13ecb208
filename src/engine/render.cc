#include "engine/render.h"

#include "base/prng.h"
#include "engine/prepare.h"
#include "engine/reply.h"
#include "wire/limits.h"
#include "wire/messages.h"
#include "wire/responses.h"

namespace baton::engine {
namespace {

using net::Response;
using net::Task;

void write_ids(JsonWriter& w, std::string_view key, std::span<const int32_t> ids) {
  w.key(key).array();
  for (const int32_t id : ids) w.value(id);
  w.end();
}

void write_texts(JsonWriter& w, std::string_view key, std::span<const std::string> texts) {
  w.key(key).array();
  for (const std::string& text : texts) w.value(text);
  w.end();
}

template <class T>
void write_optional(JsonWriter& w, std::string_view key, const std::optional<T>& value) {
  if (value)
    w.field(key, *value);
  else
    w.field_null(key);
}

// What the answer must be, in the form that sampling parameters have it.
void write_structured(JsonWriter& w, const Json& body, std::string_view source) {
  w.key("structured_outputs");
  const Json *given = body.find("structured_outputs"), *format = body.find("response_format");
  const Json* schema = body.find_path({"response_format", "json_schema", "schema"});
  const Json* type = format ? format->find("type") : nullptr;
  if (given && given->is_object())
    w.raw(given->raw(source));
  else if (schema && schema->is_object())
    w.object().key("json").raw(schema->raw(source)).end();
  else if (type && (type->text == "json_object" || type->text == "json_schema"))
    w.object().field("json_object", true).end();
  else if (type && type->text == "structural_tag")
    w.object().field("structural_tag", format->raw(source)).end();
  else
    w.null();
}

// Resolved: the model's defaults and the length there is room for are in it.
void write_sampling(JsonWriter& w, const wire::GenerateFields& f, const Submission& s) {
  const SamplingParams& p = s.sampling;
  w.field("n", f.n).field("presence_penalty", p.presence_penalty).field("frequency_penalty", p.frequency_penalty);
  w.field("repetition_penalty", p.repetition_penalty).field("temperature", p.temperature).field("top_p", p.top_p);
  w.field("top_k", p.top_k).field("min_p", p.min_p);
  write_optional(w, "seed", f.seed);
  write_texts(w, "stop", f.stop);
  write_ids(w, "stop_token_ids", f.stop_token_ids);
  w.field("ignore_eos", f.ignore_eos).field("max_tokens", s.max_tokens).field("min_tokens", f.min_tokens);
  write_optional(w, "logprobs", f.logprob_token_ids.empty() ? f.logprobs : std::nullopt);
  write_optional(w, "prompt_logprobs", f.prompt_logprobs);
  if (!f.logprob_token_ids.empty()) write_ids(w, "logprob_token_ids", f.logprob_token_ids);
  if (f.thinking_token_budget) w.field("thinking_token_budget", *f.thinking_token_budget);
  if (const wire::RepetitionDetection& d = f.repetition; d.max_pattern > 0) {
    w.key("repetition_detection").object().field("max_pattern_size", d.max_pattern);
    w.field("min_pattern_size", d.min_pattern).field("min_count", d.min_count).end();
  }
  w.field("skip_special_tokens", f.skip_special_tokens).field("include_stop_str_in_output", f.include_stop_str_in_output);
  write_texts(w, "bad_words", f.bad_words);
  w.key("logit_bias");
  if (f.logit_bias.empty()) {
    w.null();
  } else {
    w.object();
    for (const auto& [id, bias] : f.logit_bias) w.field(std::to_string(id), static_cast<double>(bias));
    w.end();
  }
  if (f.allowed_token_ids)
    write_ids(w, "allowed_token_ids", *f.allowed_token_ids);
  else
    w.field_null("allowed_token_ids");
}

void write_raw(JsonWriter& w, const Json& body, std::string_view source, std::string_view key) {
  const Json* value = body.find(key);
  w.key(key);
  if (value)
    w.raw(value->raw(source));
  else
    w.null();
}

Result<std::string> rendered(const Serving& s, const wire::GenerateFields& f, std::vector<int32_t> tokens, const Json& body,
                             std::string_view source) {
  BATON_TRY(const Submission submission, prepare_submission(s, f, std::move(tokens), false));
  JsonWriter w;
  w.object().field("request_id", f.request_id.empty() ? cat("render-", random_hex(32)) : f.request_id);
  write_ids(w, "token_ids", submission.prompt);
  w.field_null("token_offsets").field_null("features").field_null("content_parts").key("sampling_params").object();
  write_sampling(w, f, submission);
  write_structured(w, body, source);
  w.end().field("model", answered_name(s, f.model)).field_null("reasoning_ended").field_null("reasoning_parser_kwargs");
  write_raw(w, body, source, "return_token_ids");
  w.field("output_mode", "tokens").field("stream", f.stream);
  write_raw(w, body, source, "stream_options");
  write_raw(w, body, source, "cache_salt");
  w.field("priority", f.priority);
  write_raw(w, body, source, "kv_transfer_params");
  write_raw(w, body, source, "ec_transfer_params");
  w.end();
  return w.take();
}

// source: what `body` was parsed from.
Result<std::string> rendered_chat(const Serving& s, const Json& body, std::string_view source) {
  BATON_TRY(const wire::ChatRequest r, wire::parse_chat_request(body));
  BATON_OK(check_model_name(s, r.model));
  BATON_TRY(auto tokens, chat_tokens(s, r));
  return rendered(s, r, std::move(tokens), body, source);
}

Task<> send(net::ResponseWriter& out, const Result<std::string>& reply) {
  if (!reply) co_return co_await send_error(out, reply.error());
  co_await out.send(Response::json(200, *reply));
}

}  // namespace

Task<> render_completion(const Serving& s, net::Request& request, net::ResponseWriter& out) {
  const auto reply = [&]() -> Result<std::string> {
    BATON_TRY(const Json body, parse_body(request));
    BATON_TRY(const wire::CompletionRequest r, wire::parse_completion_request(body));
    BATON_OK(check_model_name(s, r.model));
    std::string list = "[";
    for (const wire::Prompt& prompt : r.prompts) {
      BATON_TRY(auto tokens, prompt_tokens(s, prompt, r.add_special_tokens));
      BATON_TRY(const std::string one, rendered(s, r, std::move(tokens), body, request.body));
      list += cat(list.size() > 1 ? "," : "", one);
    }
    return list + "]";
  }();
  co_await send(out, reply);
}

Task<> render_chat_completion(const Serving& s, net::Request& request, net::ResponseWriter& out) {
  const auto reply = [&]() -> Result<std::string> {
    BATON_TRY(const Json body, parse_body(request));
    return rendered_chat(s, body, request.body);
  }();
  co_await send(out, reply);
}

Task<> render_messages(const Serving& s, net::Request& request, net::ResponseWriter& out) {
  const auto reply = [&]() -> Result<std::string> {
    BATON_TRY(const Json body, parse_body(request));
    BATON_TRY(const std::string text, wire::chat_body_of_messages(body, request.body, false));
    BATON_TRY(const Json chat, parse_json(text, wire::kRequestJson));
    return rendered_chat(s, chat, text);
  }();
  co_await send(out, reply);
}

Task<> render_response(const Serving& s, net::Request& request, net::ResponseWriter& out) {
  const auto reply = [&]() -> Result<std::string> {
    BATON_TRY(const Json body, parse_body(request));
    BATON_TRY(const wire::ResponsesRequest r, wire::parse_responses_request(body, request.body));
    if (!r.previous_response_id.empty()) {
      return wire::refuse(wire::About{"previous_response_id"},
                          "previous_response_id is not supported by the stateless render endpoint.");
    }
    const std::string text = wire::chat_body(r, "");
    BATON_TRY(const Json chat, parse_json(text, wire::kRequestJson));
    return rendered_chat(s, chat, text);
  }();
  co_await send(out, reply);
}

}  // namespace baton::engine
