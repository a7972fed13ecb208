#include "engine/reply.h"

#include <algorithm>

#include "wire/limits.h"

namespace baton::engine {

std::vector<std::string_view> query_parameters(std::string_view query, std::string_view name) {
  std::vector<std::string_view> values;
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    if (pair.starts_with(name) && pair.substr(name.size()).starts_with('=')) values.push_back(pair.substr(name.size() + 1));
  }
  return values;
}

std::string_view query_parameter(std::string_view query, std::string_view name) {
  const auto values = query_parameters(query, name);
  return values.empty() ? "" : values.front();
}

Result<Json> parse_body(const net::Request& request) {
  const std::string_view type = request.headers.get("content-type").value_or("");
  const std::string_view media = type.substr(0, type.find(';'));
  if (!net::same_header_name(media, "application/json")) {  // as names, media types compare without case
    return std::unexpected(Error{
        .code = Code::kInvalidArgument, .message = "Unsupported Media Type: Only 'application/json' is allowed", .form = true});
  }
  if (request.body.empty()) return wire::refuse(wire::At{}, "Field required");
  auto body = parse_json(request.body, wire::kRequestJson);
  if (!body) return wire::refuse(wire::At{}, "JSON decode error: ", body.error().message);
  if (body->is_null()) return wire::refuse(wire::At{}, "Field required");
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
