#pragma once
// What every endpoint needs around its own work: the request's JSON, and answers that are errors.
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "net/http.h"
#include "wire/errors.h"

namespace baton::engine {

// The values of a query parameter that needs no decoding; of its first one, "" if there is none.
std::vector<std::string_view> query_parameters(std::string_view query, std::string_view name);
std::string_view query_parameter(std::string_view query, std::string_view name);

Result<Json> parse_body(const net::Request& request);

// error_json: the body, in the shape of the API that was called.
net::Task<> send_error(net::ResponseWriter& out, const Error& error,
                       std::function<std::string(const wire::ApiError&)> error_json = {});

}  // namespace baton::engine
