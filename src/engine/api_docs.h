#pragma once
// /openapi.json and /docs, made from the engine's own table of routes (frontend.cc), so that they cannot drift from it. Pure.
#include <span>
#include <string>
#include <string_view>

namespace baton::engine {

struct RouteDoc {
  std::string_view method, path, summary;  // path: "{name}" stands for a part of it
};
std::string openapi_json(std::span<const RouteDoc> routes, std::string_view version, std::string_view root_path);
std::string docs_html(std::span<const RouteDoc> routes, std::string_view root_path);

}  // namespace baton::engine
