#include "engine/api_docs.h"

#include <algorithm>
#include <vector>

#include "base/json.h"

namespace baton::engine {
namespace {

std::string lower(std::string_view s) {
  std::string out(s);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// "POST", "/v1/chat/completions" -> "post_v1_chat_completions"
std::string operation_id(const RouteDoc& route) {
  std::string out = lower(route.method);
  for (const char c : route.path) {
    if (std::isalnum(static_cast<unsigned char>(c)))
      out += c;
    else if (out.back() != '_')
      out += '_';
  }
  if (out.back() == '_') out.pop_back();
  return out;
}

void write_operation(JsonWriter& w, const RouteDoc& route) {
  w.key(lower(route.method)).object().field("summary", route.summary).field("operationId", operation_id(route));
  if (const size_t open = route.path.find('{'); open != std::string_view::npos) {
    const std::string_view name = route.path.substr(open + 1, route.path.find('}') - open - 1);
    w.key("parameters").array().object().field("name", name).field("in", "path").field("required", true);
    w.key("schema").object().field("type", "string").end().end().end();
  }
  if (route.method == "POST") {
    w.key("requestBody").object().key("content").object().key("application/json").object();
    w.key("schema").object().field("type", "object").end().end().end().end();
  }
  w.key("responses").object().key("200").object().field("description", "Successful Response").end().end().end();
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
  return out;
}

}  // namespace

std::string openapi_json(std::span<const RouteDoc> routes, std::string_view version, std::string_view root_path) {
  JsonWriter w;
  w.object().field("openapi", "3.1.0").key("info").object().field("title", "Baton").field("version", version).end();
  if (!root_path.empty()) w.key("servers").array().object().field("url", root_path).end().end();
  w.key("paths").object();
  std::vector<std::string_view> done;
  for (const RouteDoc& route : routes) {
    if (std::find(done.begin(), done.end(), route.path) != done.end()) continue;
    done.push_back(route.path);
    w.key(route.path).object();
    for (const RouteDoc& same : routes) {
      if (same.path == route.path) write_operation(w, same);
    }
    w.end();
  }
  w.end().end();
  return w.take();
}

std::string docs_html(std::span<const RouteDoc> routes, std::string_view root_path) {
  std::string out =
      "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Baton - API</title><style>"
      "body{font:16px sans-serif;margin:2em auto;max-width:60em;padding:0 1em}td{padding:.3em .8em;border-bottom:1px solid #ddd}"
      "code{font-weight:bold}</style></head><body><h1>Baton</h1><p>The same for programs: <a href=\"";
  out += escaped(root_path) + "/openapi.json\">openapi.json</a></p><table>";
  for (const RouteDoc& route : routes) {
    out += cat("<tr><td>", route.method, "</td><td><code>", escaped(route.path), "</code></td><td>", escaped(route.summary),
               "</td></tr>");
  }
  return out + "</table></body></html>\n";
}

}  // namespace baton::engine
