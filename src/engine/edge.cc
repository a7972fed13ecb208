#include "engine/edge.h"

#include <algorithm>
#include <utility>

#include "base/prng.h"
#include "wire/headers.h"
#include "wire/request_id.h"

namespace baton::engine {
namespace {

bool has(const std::vector<std::string>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

bool allows(const EngineConfig& c, std::string_view origin) {
  return has(c.allowed_origins, "*") || has(c.allowed_origins, origin);
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += cat(out.empty() ? "" : ", ", word);
  return out;
}

void allow_origin(const EngineConfig& c, std::string_view origin, net::Headers& headers) {
  // With credentials a browser takes no "*".
  const bool all = has(c.allowed_origins, "*") && !c.allow_credentials;
  headers.set("Access-Control-Allow-Origin", all ? "*" : origin);
  if (!all) headers.add("Vary", "Origin");
  if (c.allow_credentials) headers.set("Access-Control-Allow-Credentials", "true");
}

constexpr std::string_view kMethods[] = {"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"};

// Probes and scrapes are not counted.
constexpr std::string_view kUncounted[] = {"/metrics", "/health", "/load", "/ping", "/version"};

}  // namespace

std::optional<net::Response> preflight(const EngineConfig& c, const net::Request& request) {
  const auto origin = request.headers.get("origin"), method = request.headers.get("access-control-request-method");
  if (request.method != "OPTIONS" || !origin || !method) return std::nullopt;
  constexpr std::string_view kAll = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
  net::Response out = net::Response::text(200, "OK");
  std::string refused;
  if (!allows(c, *origin)) refused = "origin";
  if (!has(c.allowed_methods, "*") && !has(c.allowed_methods, *method)) refused += cat(refused.empty() ? "" : ", ", "method");
  if (!refused.empty()) {
    out.status = 400;
    out.body = cat("Disallowed CORS ", refused);
  }
  if (allows(c, *origin)) allow_origin(c, *origin, out.headers);
  out.headers.set("Access-Control-Allow-Methods", has(c.allowed_methods, "*") ? std::string(kAll) : joined(c.allowed_methods));
  out.headers.set("Access-Control-Max-Age", "600");
  const auto fields = request.headers.get("access-control-request-headers");
  if (!has(c.allowed_headers, "*"))
    out.headers.set("Access-Control-Allow-Headers", joined(c.allowed_headers));
  else if (fields)
    out.headers.set("Access-Control-Allow-Headers", *fields);
  return out;
}

EdgeWriter::EdgeWriter(const Serving& serving, const net::Request& request, net::ResponseWriter& inner)
    : s_(serving),
      inner_(inner),
      method_(std::find(std::begin(kMethods), std::end(kMethods), request.method) != std::end(kMethods) ? request.method
                                                                                                        : "other"),
      origin_(request.headers.get("origin").value_or("")),
      request_id_([&]() -> std::string {
        if (!serving.config->request_id_headers) return "";
        const std::string_view given = request.headers.get(wire::kRequestId).value_or("");
        return wire::usable_request_id(given) ? std::string(given) : random_hex(32);
      }()),
      begin_ns_(serving.clock->now_ns()) {}

void EdgeWriter::add_fields(net::Headers& headers) const {
  if (!request_id_.empty() && !headers.get("x-request-id")) headers.set("X-Request-Id", request_id_);
  if (!origin_.empty() && allows(*s_.config, origin_) && !headers.get("access-control-allow-origin"))
    allow_origin(*s_.config, origin_, headers);
}

net::Task<Result<>> EdgeWriter::send(net::Response response) {
  status_ = response.status;
  add_fields(response.headers);
  count();
  return inner_.send(std::move(response));
}

net::Task<Result<>> EdgeWriter::begin(int status, net::Headers headers) {
  status_ = status;
  add_fields(headers);
  return inner_.begin(status, std::move(headers));
}

net::Task<Result<>> EdgeWriter::finish() {
  count();
  return inner_.finish();
}

void EdgeWriter::count() {
  if (std::exchange(counted_, true)) return;
  if (std::find(std::begin(kUncounted), std::end(kUncounted), route_) != std::end(kUncounted)) return;
  s_.metrics->count_http(method_, route_, status_, static_cast<double>(s_.clock->now_ns() - begin_ns_) * 1e-9);
}

}  // namespace baton::engine
