#include "wire/errors.h"

#include <algorithm>
#include <cctype>
#include <iterator>

#include "base/json.h"

namespace baton::wire {
namespace {

struct Status {
  int code;
  std::string_view reason;
  std::string_view type;  // "" = the reason phrase
};

// Sorted by code. RFC 9110 section 15, plus 499, which proxies log for a client that left.
constexpr Status kStatuses[] = {
    {100, "Continue", ""},
    {101, "Switching Protocols", ""},
    {200, "OK", ""},
    {201, "Created", ""},
    {202, "Accepted", ""},
    {204, "No Content", ""},
    {206, "Partial Content", ""},
    {301, "Moved Permanently", ""},
    {302, "Found", ""},
    {303, "See Other", ""},
    {304, "Not Modified", ""},
    {307, "Temporary Redirect", ""},
    {308, "Permanent Redirect", ""},
    {400, "Bad Request", "BadRequestError"},
    {401, "Unauthorized", "AuthenticationError"},
    {403, "Forbidden", "PermissionDeniedError"},
    {404, "Not Found", "NotFoundError"},
    {405, "Method Not Allowed", ""},
    {406, "Not Acceptable", ""},
    {408, "Request Timeout", ""},
    {409, "Conflict", ""},
    {410, "Gone", ""},
    {411, "Length Required", ""},
    {412, "Precondition Failed", ""},
    {413, "Content Too Large", ""},
    {414, "URI Too Long", ""},
    {415, "Unsupported Media Type", ""},
    {417, "Expectation Failed", ""},
    {422, "Unprocessable Entity", "UnprocessableEntityError"},
    {429, "Too Many Requests", "RateLimitError"},
    {431, "Request Header Fields Too Large", ""},
    {499, "Client Closed Request", ""},
    {500, "Internal Server Error", "InternalServerError"},
    {501, "Not Implemented", "NotImplementedError"},
    {502, "Bad Gateway", "InternalServerError"},
    {503, "Service Unavailable", "InternalServerError"},
    {504, "Gateway Timeout", "InternalServerError"},
    {505, "HTTP Version Not Supported", ""},
    {507, "Insufficient Storage", "InternalServerError"},
};

const Status* find(int code) {
  auto at = std::ranges::lower_bound(kStatuses, code, {}, &Status::code);
  return at != std::end(kStatuses) && at->code == code ? at : nullptr;
}

// What vLLM says beside a refusal's message, by how that begins: the field it is about, and whether the body's schema refused it,
// which has the reason phrase as its type, or the engine behind it. param "" = null.
struct KnownRefusal {
  std::string_view begin, param;
  bool schema;
};
constexpr KnownRefusal kKnownRefusals[] = {
    {"temperature must", "temperature", false},
    {"top_p must", "top_p", false},
    {"max_tokens must be at least", "max_tokens", false},
    {"This model's maximum context length", "input_tokens", false},
    {"max_tokens=", "max_tokens", false},
    {"max_completion_tokens=", "max_completion_tokens", false},
    {"max_output_tokens=", "max_output_tokens", false},
    {"truncate_prompt_tokens=", "truncate_prompt_tokens", false},
    {"Requested sample logprobs", "logprobs", false},
    {"Requested prompt logprobs", "prompt_logprobs", false},
    {"token_id(s) in stop_token_ids", "stop_token_ids", false},
    {"token_id(s)", "logit_bias", false},
    {"logit_bias contains key(s)", "logit_bias", false},
    {"allowed_token_ids contains", "allowed_token_ids", false},
    {"allowed_token_ids is not None", "allowed_token_ids", false},
    {"Stream options can only", "stream_options", false},
    {"Either prompt or prompt_embeds", "prompt", false},
    {"suffix is not", "suffix", false},
    {"`prompt_logprobs`", "prompt_logprobs", false},
    {"prompt_logprobs: ", "prompt_logprobs", false},
    {"`top_logprobs`", "top_logprobs", false},
    {"top_logprobs: ", "top_logprobs", false},
    {"`logprobs`", "logprobs", false},
    {"when using `top_logprobs`", "top_logprobs", false},
    {"When response_format type is", "response_format", false},
    {"You can only use one kind", "structured_outputs", false},
    {"Parameter 'cache_salt'", "cache_salt", false},
    {"When using `tool_choice`", "tool_choice", false},
    {"Invalid value for `tool_choice`", "tool_choice", false},
    {"The tool specified in `tool_choice`", "tool_choice", false},
    {"background can only be used", "background", false},
    {"prompt template is not supported", "prompt", false},
    {"Input should be a valid dictionary", "body", true},
    {"JSON decode error", "body", true},
    {"Unsupported Media Type", "", true},
};

// "messages[0].role: Field required": the path of a field, as "body.messages.0.role"; "" if the message names none.
std::string field_path(std::string_view message) {
  const size_t colon = message.find(": ");
  if (colon == std::string_view::npos) return "";
  std::string out = "body.";
  for (const char c : message.substr(0, colon)) {
    const bool part = std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
    if (!part && c != '.' && c != '[' && c != ']') return "";
    if (c != ']') out += c == '[' ? '.' : c;
  }
  return out.back() == '.' ? "" : out;
}

}  // namespace

std::string_view reason_phrase(int status) {
  const Status* row = find(status);
  return row ? row->reason : std::string_view();
}

std::string_view error_type(int status) {
  const Status* row = find(status);
  if (!row) return status >= 500 ? "InternalServerError" : "BadRequestError";
  return row->type.empty() ? row->reason : row->type;
}

std::string error_json(const ApiError& error) {
  // A message may quote what a stranger sent; JSON must be UTF-8 all the same.
  std::string message = error.message;
  if (!valid_utf8(message)) {
    for (char& c : message) {
      if (static_cast<unsigned char>(c) >= 0x80) c = '?';
    }
  }
  JsonWriter w;
  w.object().key("error").object();
  w.field("message", message).field("type", error.type.empty() ? std::string(error_type(error.status)) : error.type);
  if (error.param) {
    w.field("param", *error.param);
  } else {
    w.field_null("param");
  }
  w.field("code", error.status).end().end();
  return w.take();
}

std::string error_json(int status, std::string_view message) {
  return error_json(ApiError{.status = status, .message = std::string(message), .type = {}, .param = {}});
}

ApiError api_error(const Error& error) {
  ApiError out{.status = http_status(error.code), .message = error.message, .type = {}, .param = {}};
  if (error.code != Code::kInvalidArgument) return out;
  bool schema = false;
  const auto known = std::ranges::find_if(kKnownRefusals, [&](const KnownRefusal& row) { return error.message.starts_with(row.begin); });
  if (known != std::end(kKnownRefusals)) {
    if (!known->param.empty()) out.param = known->param;
    schema = known->schema;
  } else if (std::string path = field_path(error.message); !path.empty()) {
    out.param = std::move(path);
    schema = true;
  }
  if (schema) out.type = reason_phrase(out.status);
  return out;
}

}  // namespace baton::wire
