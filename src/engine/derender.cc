#include "engine/derender.h"

#include <algorithm>

#include "engine/answer.h"
#include "engine/chat_message.h"
#include "engine/prepare.h"
#include "engine/reply.h"
#include "wire/errors.h"
#include "wire/fields.h"
#include "wire/limits.h"
#include "wire/openai_response.h"

namespace baton::engine {
namespace {

using net::Response;
using net::Task;

Result<wire::LogprobEntry> entry_of(const Serving& s, const Json& json) {
  const Json *id = json.find("token_id"), *logprob = json.find("logprob"), *rank = json.find("rank");
  const auto token = id ? id->as_int() : std::nullopt;
  if (!token || *token < 0 || *token >= s.model->vocab)
    return wire::refuse(wire::At{"logprobs.content"}, "token_id is out of vocabulary");
  const auto n = static_cast<int32_t>(*token);
  std::string text = token_string(*s.tokenizer, n, s.config->return_tokens_as_token_ids), bytes(s.tokenizer->token_bytes(n));
  if (bytes.empty()) bytes = text;
  return wire::LogprobEntry{
      .id = n,
      .token = std::move(text),
      .bytes = std::move(bytes),
      .logprob = static_cast<float>(logprob ? logprob->as_double().value_or(-9999) : -9999),
      .rank = rank ? static_cast<int32_t>(std::clamp<int64_t>(rank->as_int().value_or(0), 0, INT32_MAX)) : 0};
}

// The sampled token first, the others behind it without repeating it.
Result<wire::LogprobRow> row_of(const Serving& s, const Json& position) {
  wire::LogprobRow row;
  BATON_TRY(row.emplace_back(), entry_of(s, position));
  const Json* top = position.find("top_logprobs");
  for (const Json& other : top ? top->items : std::vector<Json>()) {
    BATON_TRY(wire::LogprobEntry e, entry_of(s, other));
    if (e.id != row[0].id) row.push_back(std::move(e));
  }
  return row;
}

Result<> read_logprobs(const Serving& s, const Json& json, wire::Choice& choice) {
  const Json* content = json.find_path({"logprobs", "content"});
  if (!content || !content->is_array()) return {};
  choice.logprobs = true;
  for (const Json& position : content->items) {
    BATON_TRY(choice.rows.emplace_back(), row_of(s, position));
    const Json* top = position.find("top_logprobs");
    if (top) choice.top = std::max(choice.top, static_cast<int32_t>(top->items.size()));
  }
  return {};
}

void read_stop(const Json& json, wire::Stop& stop) {
  const Json *finish = json.find("finish_reason"), *reason = json.find("stop_reason");
  stop.finish_reason = finish && finish->is_string() ? finish->text : "stop";
  if (reason && reason->is_string()) stop.stop_string = reason->text;
  const auto id = reason ? reason->as_int() : std::nullopt;
  if (id && *id >= 0 && *id <= INT32_MAX) stop.stop_token = static_cast<int32_t>(*id);
}

struct Read {
  std::string id, kv;
  std::vector<wire::Choice> choices;
  int64_t tokens = 0;
};

Result<Read> read_response(const Serving& s, const Json& json, std::string_view source, bool skip_special) {
  const Json* choices = json.find("choices");
  if (!choices || !choices->is_array()) return wire::refuse(wire::At{"generate_response.choices"}, "Field required");
  if (choices->items.size() > static_cast<size_t>(wire::kChoicesMax))
    return fail(Code::kInvalidArgument, "choices count (", choices->items.size(), ") exceeds server maximum (", wire::kChoicesMax,
                ").");
  Read out;
  if (const Json* id = json.find("request_id")) out.id = id->as_string().value_or("");
  if (const Json* kv = json.find("kv_transfer_params"); kv && kv->is_object()) out.kv = kv->raw(source);
  for (const Json& item : choices->items) {
    if (!item.is_object()) return wire::refuse(wire::At{"generate_response.choices"}, "Input should be a valid dictionary");
    wire::Fields f(item);
    std::vector<int32_t> ids;
    f.integers("token_ids", ids, static_cast<size_t>(s.max_model_len));
    if (f.error()) return std::unexpected(*f.error());
    BATON_OK(prompt_tokens(s, ids, false));
    wire::Choice& choice = out.choices.emplace_back(wire::Choice{.index = static_cast<int32_t>(out.choices.size())});
    choice.text = s.tokenizer->decode(ids, skip_special);
    read_stop(item, choice.stop);
    BATON_OK(read_logprobs(s, item, choice));
    out.tokens += static_cast<int64_t>(ids.size());
  }
  return out;
}

Result<Json> body_of(const Serving& s, const net::Request& request) {
  BATON_TRY(Json body, parse_body(request));
  if (!body.is_object()) return wire::refuse(wire::At{}, "Input should be a valid dictionary, got ", body.kind_name());
  wire::Fields f(body);
  std::string model;
  bool stream = false;
  f.text("model", model, 1024);
  f.flag("stream", stream);
  if (stream) f.reject(Code::kUnimplemented, "derender with `stream` is not supported by this engine");
  if (f.error()) return std::unexpected(*f.error());
  BATON_OK(check_model_name(s, model));
  return body;
}

wire::Head head_of(const Serving& s, const Json& body, const Read& first) {
  const Json* model = body.find("model");
  return {.id = first.id, .model = answered_name(s, model ? model->as_string().value_or("") : ""), .created = unix_seconds()};
}

Result<std::string> chat(const Serving& s, const net::Request& request) {
  BATON_TRY(const Json body, body_of(s, request));
  const Json *response = body.find("generate_response"), *asked = body.find("chat_request"),
             *prompt_tokens = body.find("prompt_tokens");
  if (!response || !response->is_object()) return wire::refuse(wire::At{"generate_response"}, "Field required");
  std::optional<wire::ChatRequest> chat_request;
  if (asked && asked->is_object()) {
    BATON_TRY(chat_request, wire::parse_chat_request(*asked));
  }
  const bool parsers = !s.config->tool_call_parser.empty() || !s.config->reasoning_parser.empty();
  if (parsers && !chat_request)
    return fail(Code::kInvalidArgument,
                "chat_request is required when a tool or reasoning parser is configured because plain detokenization would leak "
                "raw parser markup into content.");
  bool skip_special = true;
  parse::MessageFormat format;
  if (chat_request) {
    BATON_TRY(const std::string prompt, render_chat(s, *chat_request));
    BATON_TRY(format, message_format(s, *chat_request, prompt));
    skip_special = chat_request->skip_special_tokens && !keeps_special_tokens(s, format);
  }
  BATON_TRY(Read read, read_response(s, *response, request.body, skip_special));
  if (format.active()) {
    for (wire::Choice& choice : read.choices) split_whole(format, choice);
  }
  const wire::Usage usage{.prompt_tokens = prompt_tokens ? prompt_tokens->as_int().value_or(0) : 0,
                          .completion_tokens = read.tokens};
  return wire::chat_response(head_of(s, body, read), read.choices, usage, read.kv);
}

Result<std::string> completion(const Serving& s, const net::Request& request) {
  BATON_TRY(const Json body, body_of(s, request));
  const Json *responses = body.find("generate_responses"), *counts = body.find("prompt_tokens");
  if (!responses || !responses->is_array()) return wire::refuse(wire::At{"generate_responses"}, "Field required");
  if (responses->items.empty()) return fail(Code::kInvalidArgument, "generate_responses must not be empty");
  if (counts && counts->is_array() && counts->items.size() != responses->items.size())
    return fail(Code::kInvalidArgument, "prompt_tokens length (", counts->items.size(),
                ") must equal generate_responses length (", responses->items.size(), ")");
  const Json* skip = body.find_path({"completion_request", "skip_special_tokens"});
  Read all;
  wire::Usage usage;
  for (size_t i = 0; i < responses->items.size(); ++i) {
    BATON_TRY(Read one, read_response(s, responses->items[i], request.body, !skip || skip->as_bool() != false));
    if (i == 0) all.id = one.id, all.kv = one.kv;
    if (one.kv != all.kv) all.kv.clear();
    for (wire::Choice& choice : one.choices) {
      choice.index = static_cast<int32_t>(all.choices.size());
      all.choices.push_back(std::move(choice));
    }
    if (all.choices.size() > static_cast<size_t>(wire::kChoicesMax))
      return fail(Code::kInvalidArgument, "generate_responses count exceeds server maximum (", wire::kChoicesMax, ").");
    usage.completion_tokens += one.tokens;
    if (counts && counts->is_array()) usage.prompt_tokens += counts->items[i].as_int().value_or(0);
  }
  return wire::completion_response(head_of(s, body, all), all.choices, usage, all.kv);
}

}  // namespace

Task<> derender_completion(const Serving& s, net::Request& request, net::ResponseWriter& out) {
  const auto reply = completion(s, request);
  if (!reply) co_return co_await send_error(out, reply.error());
  co_await out.send(Response::json(200, *reply));
}

Task<> derender_chat_completion(const Serving& s, net::Request& request, net::ResponseWriter& out) {
  const auto reply = chat(s, request);
  if (!reply) co_return co_await send_error(out, reply.error());
  co_await out.send(Response::json(200, *reply));
}

}  // namespace baton::engine
