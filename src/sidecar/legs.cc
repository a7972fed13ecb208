#include "sidecar/legs.h"

#include <charconv>

#include "sidecar/limits.h"
#include "wire/headers.h"
#include "wire/limits.h"
#include "wire/splice.h"

namespace baton::sidecar {
namespace {

constexpr std::string_view kKvParams = "kv_transfer_params";
constexpr std::string_view kPrefillParams =
    R"({"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,)"
    R"("remote_host":null,"remote_port":null})";

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

// "/v1/%63ompletions" is "/v1/completions" to an engine that decodes paths (uvicorn does), so it must be to us.
std::string percent_decoded(std::string_view path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    int byte = 0;
    if (path[i] == '%' && i + 2 < path.size() &&
        std::from_chars(path.data() + i + 1, path.data() + i + 3, byte, 16).ptr == path.data() + i + 3) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += path[i];
    }
  }
  return out;
}

}  // namespace

std::optional<Api> intercepted(std::string_view method, std::string_view path) {
  static constexpr std::pair<std::string_view, Api> kPaths[] = {{"/v1/chat/completions", Api::kChat},
                                                                {"/v1/completions", Api::kCompletions},
                                                                {"/v1/messages", Api::kMessages},
                                                                {"/v1/responses", Api::kResponses},
                                                                {"/inference/v1/generate", Api::kGenerate}};
  if (method != "POST") return std::nullopt;
  std::string decoded = percent_decoded(path);
  for (const auto& [known, api] : kPaths) {
    if (decoded == known) return api;
  }
  return std::nullopt;
}

std::optional<HostPort> parse_host_port(std::string_view text) {
  text = trimmed(text);
  if (text.starts_with("http://")) text.remove_prefix(7);
  if (text.ends_with('/')) text.remove_suffix(1);
  size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  std::string_view host = text.substr(0, colon), port = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return std::nullopt;
  }
  int n = 0;
  auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), n);
  if (ec != std::errc() || end != port.data() + port.size() || n < 1 || n > 65535) return std::nullopt;
  if (host.empty() || host.find_first_of("/?#@ \t[]") != std::string_view::npos) return std::nullopt;
  return HostPort{std::string(host), n};
}

std::optional<std::vector<HostPort>> prefillers(const net::Headers& headers) {
  auto values = headers.get_all(wire::kPrefillerHostPort);
  if (values.empty()) values = headers.get_all(wire::kPrefillerUrl);
  if (values.empty()) return std::nullopt;
  std::vector<HostPort> hosts;
  bool named = false;
  for (std::string_view value : values) {
    while (!value.empty()) {
      size_t comma = value.find(',');
      std::string_view one = trimmed(value.substr(0, comma));
      value = comma == std::string_view::npos ? std::string_view() : value.substr(comma + 1);
      named |= !one.empty();
      auto host = parse_host_port(one);
      if (host && hosts.size() < kPrefillHostsMax) hosts.push_back(std::move(*host));
    }
  }
  if (!named) return std::nullopt;  // an empty header is no wish for a prefiller
  return hosts;
}

Result<Json> parse_body(std::string_view body) {
  auto root = parse_json(body, wire::kRequestJson);
  if (!root) return fail(Code::kInvalidArgument, root.error().message);
  if (!root->is_object()) return fail(Code::kInvalidArgument, "the request body must be a JSON object, not ", root->kind_name());
  return root;
}

std::string prefill_body(Api api, std::string_view body, const Json& root) {
  wire::Splice edit(body, root);
  edit.set({kKvParams}, std::string(kPrefillParams)).set({"stream"}, "false").erase({"stream_options"});
  switch (api) {
    case Api::kResponses:
      edit.set({"max_output_tokens"}, "1");
      break;
    case Api::kGenerate:
      edit.set({"sampling_params", "max_tokens"}, "1").set({"sampling_params", "min_tokens"}, "1");
      break;
    default:
      for (std::string_view limit : {"max_tokens", "max_completion_tokens", "min_tokens"}) edit.set({limit}, "1");
  }
  return edit.text();
}

std::string decode_body(std::string_view body, const Json& root, std::string_view kv_params) {
  return wire::Splice(body, root).set({kKvParams}, std::string(kv_params)).text();
}

Result<std::string> without_kv_params(std::string body) {
  // The key may hide behind an escape ("kv_transfer_par\u0061ms"), so only a body with neither is surely free of it.
  if (body.find(kKvParams) == std::string::npos && body.find("\\u") == std::string::npos) return body;
  BATON_TRY(Json root, parse_body(body));
  if (!root.find(kKvParams)) return body;
  return wire::Splice(body, root).erase({kKvParams}).text();
}

Result<PrefillReply> read_prefill_reply(std::string_view body) {
  auto root = parse_json(body);
  if (!root) return within("prefill response", std::move(root).error());
  if (!root->is_object()) return fail(Code::kInvalidArgument, "prefill response is no JSON object");
  PrefillReply reply;
  if (const Json* params = root->find(kKvParams)) reply.kv_params = params->raw(body);
  if (const Json* details = root->find_path({"usage", "prompt_tokens_details"}); details && details->is_object()) {
    const Json* cached = details->find("cached_tokens");
    reply.cached_tokens = cached ? cached->as_int().value_or(0) : 0;
  }
  return reply;
}

std::string error_body(int status, std::string_view message) {
  std::string_view type = status == 503   ? "ServiceUnavailable"
                          : status == 502 ? "BadGateway"
                          : status < 500  ? "BadRequestError"
                                          : "InternalServerError";
  JsonWriter w;
  w.object().field("object", "error").field("message", message).field("type", type).field("param", "").field("code", status);
  return w.end().take();
}

}  // namespace baton::sidecar
