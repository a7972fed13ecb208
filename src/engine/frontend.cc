#include "engine/frontend.h"

#include <algorithm>
#include <charconv>

#include "base/prng.h"
#include "base/sha256.h"
#include "engine/admin.h"
#include "engine/api_docs.h"
#include "engine/derender.h"
#include "engine/edge.h"
#include "engine/embeddings.h"
#include "engine/generate.h"
#include "engine/limits.h"
#include "engine/lora_api.h"
#include "engine/prepare.h"
#include "engine/render.h"
#include "engine/responses.h"
#include "wire/errors.h"
#include "wire/headers.h"
#include "wire/limits.h"
#include "wire/messages.h"
#include "wire/openai_response.h"

#ifndef BATON_VERSION
#define BATON_VERSION "0.1.0"
#endif

namespace baton::engine {
namespace {

using net::Request;
using net::Response;
using net::ResponseWriter;
using net::Task;

wire::ModelCard card(const Serving& s, const std::string& name) {
  return {.id = name,
          .root = s.config->model,
          .permission_id = cat("modelperm-", random_hex(32)),
          .created = unix_seconds(),
          .max_model_len = s.max_model_len};
}

// Base models, then adapters, whose parent is the model they were loaded for.
std::vector<wire::ModelCard> all_cards(const Serving& s) {
  std::vector<wire::ModelCard> cards;
  const auto& names = s.config->served_model_names;
  for (const std::string& name : names) cards.push_back(card(s, name));
  for (const LoraModule& module : s.adapters ? s.adapters->list() : std::vector<LoraModule>()) {
    wire::ModelCard& c = cards.emplace_back(card(s, module.name));
    c.root = module.path;
    c.parent = std::find(names.begin(), names.end(), module.base_model) != names.end() ? module.base_model : s.name();
  }
  return cards;
}

Task<> models(const Serving& s, Request&, ResponseWriter& out) {
  const std::vector<wire::ModelCard> cards = all_cards(s);
  co_await out.send(Response::json(200, wire::model_list(cards)));
}

// "%2F" and the like; what is no escape stays as it is.
std::string percent_decoded(std::string_view path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    int byte = 0;
    const char* digits = path.data() + i + 1;
    if (path[i] == '%' && i + 2 < path.size() && std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += path[i];
    }
  }
  return out;
}

Task<> one_model(const Serving& s, Request&, std::string name, ResponseWriter& out) {
  for (const wire::ModelCard& c : all_cards(s)) {
    if (c.id != name) continue;
    co_await out.send(Response::json(200, wire::model_card(c)));
    co_return;
  }
  co_await send_error(out, no_such_model(name));
}

// Ready once every configured KV peer was reached or refused us, so that no request meets a handshake. A peer that stays away
// holds readiness up for kPeersWaitMs, and none does later on.
bool peers_settled(const Serving& s) {
  if (!s.node || s.peers_settled) return true;
  const std::vector<transfer::PeerStatus> peers = s.node->peers();
  const bool all = std::all_of(peers.begin(), peers.end(), [](const auto& p) { return p.state != "connecting"; });
  if ((all && peers.size() >= s.config->kv_peers.size()) || s.clock->now_ms() > s.started_ms + kPeersWaitMs)
    s.peers_settled = true;
  return s.peers_settled;
}

Task<> health(const Serving& s, Request&, ResponseWriter& out) {
  const std::string lost = s.asleep.lost();
  Response response{.status = s.loop->alive() && peers_settled(s) && lost.empty() ? 200 : 503, .headers = {}, .body = {}};
  if (!lost.empty()) response = Response::json(503, wire::error_json({.status = 503, .message = lost, .type = {}, .param = {}}));
  if (s.kv_transfer) response.headers.set(wire::kCapabilities, wire::kCapabilityPush);
  co_await out.send(std::move(response));
}

Task<> version(const Serving&, Request&, ResponseWriter& out) {
  co_await out.send(Response::json(200, "{\"version\":\"" BATON_VERSION "\"}"));
}

Task<> load(const Serving& s, Request&, ResponseWriter& out) {
  const int in_flight = s.config->load_tracking ? s.in_flight.load() : 0;
  co_await out.send(Response::json(200, cat("{\"server_load\":", in_flight, "}")));
}

Task<> metrics(const Serving& s, Request&, ResponseWriter& out) {
  Response response{.status = 200, .headers = {}, .body = s.metrics->registry().text()};
  response.headers.set("Content-Type", Metrics::kContentType);
  co_await out.send(std::move(response));
}

Task<> tokenize(const Serving& s, Request& request, ResponseWriter& out) {
  const auto reply = [&]() -> Result<std::string> {
    BATON_TRY(const Json body, parse_body(request));
    BATON_TRY(wire::TokenizeRequest r, wire::parse_tokenize_request(body));
    BATON_OK(check_model_name(s, r.model));
    r.chat.add_special_tokens = r.add_special_tokens;
    auto tokens = r.prompt ? s.tokenizer->encode(*r.prompt, r.add_special_tokens) : chat_tokens(s, r.chat);
    if (!tokens) return std::unexpected(tokens.error());
    std::vector<std::string> strings;
    if (r.return_token_strs) {
      for (int32_t id : *tokens) strings.push_back(s.tokenizer->token_text(id));
    }
    return wire::tokenize_response(*tokens, s.max_model_len, r.return_token_strs ? &strings : nullptr);
  }();
  if (!reply) co_return co_await send_error(out, reply.error());
  co_await out.send(Response::json(200, *reply));
}

Task<> detokenize(const Serving& s, Request& request, ResponseWriter& out) {
  const auto reply = [&]() -> Result<std::string> {
    BATON_TRY(const Json body, parse_body(request));
    BATON_TRY(const wire::DetokenizeRequest r, wire::parse_detokenize_request(body));
    BATON_OK(check_model_name(s, r.model));
    BATON_OK(prompt_tokens(s, r.tokens, false));
    return wire::detokenize_response(s.tokenizer->decode(r.tokens, false));
  }();
  if (!reply) co_return co_await send_error(out, reply.error());
  co_await out.send(Response::json(200, *reply));
}

Task<> count_tokens(const Serving& s, Request& request, ResponseWriter& out) {
  const auto reply = [&]() -> Result<std::string> {
    BATON_TRY(const Json body, parse_body(request));
    BATON_TRY(const std::string text, wire::chat_body_of_messages(body, request.body, true));
    BATON_TRY(const Json chat, parse_json(text, wire::kRequestJson));
    BATON_TRY(const wire::ChatRequest r, wire::parse_chat_request(chat));
    BATON_OK(check_model_name(s, r.model));
    BATON_TRY(const auto tokens, chat_tokens(s, r));
    return wire::count_tokens_response(tokens.size());
  }();
  if (!reply) co_return co_await send_error(out, reply.error(), wire::messages_error_json);
  co_await out.send(Response::json(200, *reply));
}

template <const Api& api>
Task<> generate(const Serving& s, Request& request, ResponseWriter& out) {
  return serve_generate(s, api, request, out);
}

// SageMaker's one route: the body says which API is meant.
Task<> invocations(const Serving& s, Request& request, ResponseWriter& out) {
  const auto body = parse_body(request);
  if (!body) co_return co_await send_error(out, body.error());
  if (!body->is_object()) {
    const std::string_view apis = s.pooling.on ? "EmbeddingRequest" : "ChatCompletionRequest', 'CompletionRequest";
    const std::string message = cat("Cannot find suitable handler for request. Expected one of: ['", apis, "']");
    co_return co_await send_error(out, Error{.code = Code::kInvalidArgument, .message = message});
  }
  if (s.pooling.on) co_return co_await embeddings(s, request, out);
  co_await serve_generate(s, body->find("messages") ? kChatApi : kCompletionApi, request, out);
}

Task<> openapi(const Serving&, Request&, ResponseWriter&);
Task<> docs(const Serving&, Request&, ResponseWriter&);

struct Route {
  std::string_view method, path, summary;
  Task<> (*serve)(const Serving&, Request&, ResponseWriter&);
};
constexpr Route kRoutes[] = {
    {"POST", "/v1/chat/completions", "Answer a conversation", generate<kChatApi>},
    {"POST", "/v1/completions", "Continue a text", generate<kCompletionApi>},
    {"POST", "/v1/responses", "Answer in OpenAI's Responses API", create_response},
    {"POST", "/v1/messages", "Answer in Anthropic's Messages API", generate<kMessagesApi>},
    {"POST", "/v1/messages/count_tokens", "Tokens of a Messages request", count_tokens},
    {"POST", "/v1/embeddings", "Embeddings of texts or tokens", embeddings},
    {"POST", "/pooling", "The same", pooled},
    {"POST", "/inference/v1/generate", "Tokens in, tokens out", generate<kGenerateApi>},
    {"POST", "/v1/chat/completions/render", "Tokens of a conversation", render_chat_completion},
    {"POST", "/v1/completions/render", "Tokens of a completion's prompts", render_completion},
    {"POST", "/v1/messages/render", "Tokens of a Messages request", render_messages},
    {"POST", "/v1/responses/render", "Tokens of a Responses request", render_response},
    {"POST", "/v1/chat/completions/derender", "A chat's answer of tokens", derender_chat_completion},
    {"POST", "/v1/completions/derender", "A completion's answer of tokens", derender_completion},
    {"POST", "/invocations", "A chat or a completion, by what the body has (SageMaker)", invocations},
    {"GET", "/v1/models", "Models served", models},
    {"POST", "/v1/load_lora_adapter", "Load a LoRA adapter (--allow-runtime-lora-updating)", load_lora_adapter},
    {"POST", "/v1/unload_lora_adapter", "The opposite", unload_lora_adapter},
    {"GET", "/health", "Is the engine able to answer", health},
    {"GET", "/ping", "The same", health},
    {"POST", "/ping", "The same", health},
    {"GET", "/version", "Version", version},
    {"GET", "/load", "Requests in flight", load},
    {"GET", "/metrics", "Metrics for Prometheus", metrics},
    {"POST", "/tokenize", "Text to tokens", tokenize},
    {"POST", "/detokenize", "Tokens to text", detokenize},
    {"GET", "/tokenizer_info", "The tokenizer's configuration (--enable-tokenizer-info-endpoint)", tokenizer_info},
    {"POST", "/reset_prefix_cache", "Forget cached prefixes (development mode)", reset_prefix_cache},
    {"POST", "/reset_mm_cache", "Forget cached images: there are none (development mode)", reset_nothing},
    {"POST", "/reset_encoder_cache", "Likewise", reset_nothing},
    {"POST", "/sleep", "Give the memory of the KV cache back, at level 2 of the weights too (development mode)", fall_asleep},
    {"POST", "/wake_up", "The opposite (development mode)", wake_up},
    {"GET", "/is_sleeping", "Does it sleep (development mode)", is_sleeping},
    {"GET", "/openapi.json", "This list for programs", openapi},
    {"GET", "/docs", "This list", docs},
};

// Routes with a {name} in their path.
struct NamedRoute {
  std::string_view method, path, summary;
  Task<> (*serve)(const Serving&, Request&, std::string name, ResponseWriter&);
  std::string_view before() const { return path.substr(0, path.find('{')); }
  std::string_view after() const { return path.substr(path.find('}') + 1); }
};
constexpr NamedRoute kNamedRoutes[] = {
    {"GET", "/v1/models/{model}", "One model", one_model},
    {"POST", "/v1/responses/{response_id}/cancel", "End a response that is made in the background", cancel_response},
    {"GET", "/v1/responses/{response_id}", "A stored response", retrieve_response},
};

std::vector<RouteDoc> documented() {
  std::vector<RouteDoc> out;
  for (const Route& r : kRoutes) out.push_back({r.method, r.path, r.summary});
  for (const NamedRoute& r : kNamedRoutes) out.push_back({r.method, r.path, r.summary});
  return out;
}

Task<> openapi(const Serving& s, Request&, ResponseWriter& out) {
  if (!s.config->docs) co_return co_await framework_error(out, 404);
  co_await out.send(Response::json(200, openapi_json(documented(), BATON_VERSION, s.config->root_path)));
}

Task<> docs(const Serving& s, Request&, ResponseWriter& out) {
  if (!s.config->docs) co_return co_await framework_error(out, 404);
  Response response{.status = 200, .headers = {}, .body = docs_html(documented(), s.config->root_path)};
  response.headers.set("Content-Type", "text/html; charset=utf-8");
  co_await out.send(std::move(response));
}

bool is_route_but_for_a_slash(std::string_view path) {
  if (path.size() < 2 || !path.ends_with('/')) return false;
  path.remove_suffix(1);
  return std::any_of(std::begin(kRoutes), std::end(kRoutes), [&](const Route& r) { return r.path == path; });
}

// Constant time in the key's content, so that a key cannot be guessed byte by byte.
bool equal_secret(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference = static_cast<unsigned char>(difference | (a[i] ^ b[i]));
  return difference == 0;
}

bool authorised(const Serving& s, const Request& request) {
  const auto& keys = s.config->api_keys;
  if (keys.empty() || !(request.path.starts_with("/v1") || request.path.starts_with("/v2") || request.path.starts_with("/inference")) || request.method == "OPTIONS")
    return true;
  std::string_view given = request.headers.get("authorization").value_or("");
  const size_t space = given.find(' ');
  if (space == std::string_view::npos || !net::same_header_name(given.substr(0, space), "bearer")) return false;
  given.remove_prefix(space + 1);
  bool ok = false;
  for (const std::string& key : keys) ok |= equal_secret(key, given);
  return ok;
}

Task<> serve(const Serving& s, Request& request, EdgeWriter& out) {
  if (auto answer = preflight(*s.config, request)) {
    co_await out.send(std::move(*answer));
    co_return;
  }
  request.path = percent_decoded(request.path);  // before keys are asked for: no spelling of a path goes past them
  if (const std::string& root = s.config->root_path; !root.empty() && request.path.starts_with(root + "/")) {
    request.path.erase(0, root.size());
  }
  if (!authorised(s, request)) {
    co_await out.send(Response::json(401, "{\"error\":\"Unauthorized\"}"));
    co_return;
  }
  std::string allow;  // the methods that the path has
  for (const Route& route : kRoutes) {
    if (route.path != request.path) continue;
    allow += cat(allow.empty() ? "" : ", ", route.method);
    out.handled_by(route.path);
    if (route.method == request.method || (route.method == "GET" && request.method == "HEAD")) {
      co_return co_await route.serve(s, request, out);
    }
  }
  for (const NamedRoute& route : kNamedRoutes) {
    std::string_view name = request.path;
    if (!name.starts_with(route.before()) || !name.ends_with(route.after())) continue;
    if (name.size() <= route.before().size() + route.after().size()) continue;
    name.remove_prefix(route.before().size());
    name.remove_suffix(route.after().size());
    allow += cat(allow.empty() ? "" : ", ", route.method);
    out.handled_by(route.path);
    if (route.method == request.method) co_return co_await route.serve(s, request, std::string(name), out);
  }
  if (allow.empty() && is_route_but_for_a_slash(request.path)) {
    Response moved{.status = 307, .headers = {}, .body = {}};
    const std::string_view host = request.headers.get("host").value_or("");
    const std::string scheme = s.config->ssl_certfile.empty() ? "http" : "https";
    std::string path = s.config->root_path + request.path.substr(0, request.path.size() - 1);
    moved.headers.set("Location", cat(host.empty() ? "" : cat(scheme, "://", host), path, request.query.empty() ? "" : "?", request.query));
    co_await out.send(std::move(moved));
    co_return;
  }
  co_await framework_error(out, allow.empty() ? 404 : 405, allow);
}

}  // namespace

std::string system_fingerprint(const EngineConfig& c, std::string_view model_fingerprint) {
  if (c.fingerprint_mode == "none") return "";
  if (c.fingerprint_mode == "custom") return c.fingerprint_value;
  const std::string ranks = c.fingerprint_mode == "full" && c.tensor_parallel_size > 1 ? cat("-tp", c.tensor_parallel_size) : "";
  const std::string model = hex(Sha256().update(model_fingerprint).finish());
  return cat("baton-", BATON_VERSION, ranks, "-", model.substr(0, 8));
}

net::HandlerFactory make_frontend(const Serving& serving) {
  return [&serving]() -> net::Handler {
    return [&serving](Request& request, ResponseWriter& out) -> Task<> {
      struct InFlight {
        std::atomic<int>& count;
        explicit InFlight(std::atomic<int>& c) : count(c) { ++count; }
        ~InFlight() { --count; }
      } in_flight(serving.in_flight);
      EdgeWriter edge(serving, request, out);
      co_await serve(serving, request, edge);
    };
  };
}

}  // namespace baton::engine
