#include "wire/errors.h"

#include <algorithm>
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
  if (!error.param.empty()) out.param = error.param;
  if (error.form) out.type = reason_phrase(out.status);
  return out;
}

std::unexpected<Error> refused(About about, std::string message) {
  return std::unexpected(Error{.code = Code::kInvalidArgument, .message = std::move(message), .param = std::string(about.param)});
}

std::unexpected<Error> refused(At at, std::string_view what) {
  std::string param = "body";
  if (!at.path.empty()) param += '.';
  for (const char c : at.path) {
    if (c != ']') param += c == '[' ? '.' : c;
  }
  return std::unexpected(Error{.code = Code::kInvalidArgument,
                               .message = cat(at.path, at.path.empty() ? "" : ": ", what),
                               .param = std::move(param),
                               .form = true});
}

}  // namespace baton::wire
