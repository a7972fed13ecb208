#include "engine/reply.h"

#include "wire/limits.h"

namespace baton::engine {

Result<Json> parse_body(const net::Request& request) {
  const std::string_view type = request.headers.get("content-type").value_or("");
  const std::string_view media = type.substr(0, type.find(';'));
  if (!media.starts_with("application/json")) {
    return fail(Code::kInvalidArgument, "Unsupported Media Type: Only 'application/json' is allowed");
  }
  auto body = parse_json(request.body, wire::kRequestJson);
  if (!body) return fail(Code::kInvalidArgument, "JSON decode error: ", body.error().message);
  return body;
}

net::Task<> send_error(net::ResponseWriter& out, const Error& error,
                       std::function<std::string(const wire::ApiError&)> error_json) {
  wire::ApiError api = wire::api_error(error);
  if (error.code == Code::kNotFound) api.param = "model";
  net::Response response = net::Response::json(api.status, error_json ? error_json(api) : wire::error_json(api));
  if (api.status == 503 || api.status == 429) response.headers.set("Retry-After", "1");
  co_await out.send(std::move(response));
}

}  // namespace baton::engine
