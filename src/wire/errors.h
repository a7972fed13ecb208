#pragma once
// The OpenAI-shaped error body, in vLLM's envelope: {"error":{"message","type","param","code"}}, `code` being the HTTP status.
// Type names per status are vLLM's and its simulator's; a status that only the HTTP layer gives has its reason phrase as type.
// Source: facts sheet "engine" 1.2.
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace baton::wire {

std::string_view error_type(int status);     // "BadRequestError" for 400, ...
std::string_view reason_phrase(int status);  // "Bad Request"; "" if unknown

struct ApiError {
  int status = 500;
  std::string message;
  std::string type;                  // "" = error_type(status)
  std::optional<std::string> param;  // null if absent
};

std::string error_json(const ApiError& error);
std::string error_json(int status, std::string_view message);
ApiError api_error(const Error& error);  // status from the code; type and param from what the refuser said

// Why a request is refused (kInvalidArgument). About: what it asks for; `param` names it as vLLM does. At: the form of the body,
// at a path ("messages[0].role"; "" = the body as a whole), which the message begins with; the answer's param is
// "body.messages.0.role".
struct About {
  std::string_view param;
};
struct At {
  std::string_view path;
};

std::unexpected<Error> refused(About about, std::string message);
std::unexpected<Error> refused(At at, std::string_view what);

template <class Reason, class... Args>
std::unexpected<Error> refuse(Reason reason, const Args&... args) {
  return refused(reason, cat(args...));
}

}  // namespace baton::wire
