#include "sidecar/legs.h"

#include <charconv>
#include <cstring>

#include "base/json_outline.h"

#include "wire/limits.h"

namespace baton::sidecar {
namespace {

constexpr std::string_view kPrefillParams =
    R"({"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,)"
    R"("remote_host":null,"remote_port":null)";
constexpr std::string_view kWorkerFields[] = {kKvParams, kEcParams, "bootstrap_host", "bootstrap_port", "bootstrap_room"};

// Could this text have one of those fields as a key? Every '_' is looked at, and every escape that could stand for a letter of
// their names ("kv_transfer_par\u0061ms"); prompts have few of either, so this costs two passes of memchr.
bool may_have_worker_fields(std::string_view text) {
  auto next = [&](char c, size_t from) {
    const void* at = from < text.size() ? std::memchr(text.data() + from, c, text.size() - from) : nullptr;
    return at ? static_cast<size_t>(static_cast<const char*>(at) - text.data()) : std::string_view::npos;
  };
  for (size_t at = next('_', 0); at != std::string_view::npos; at = next('_', at + 1)) {
    std::string_view before = text.substr(0, at), after = text.substr(at);
    if (after.starts_with("_transfer_params\"") || before.ends_with("\"bootstrap")) return true;
  }
  for (size_t at = next('\\', 0); at != std::string_view::npos; at = next('\\', at + 2)) {
    std::string_view escape = text.substr(at, 5);
    if (escape.size() == 5 && escape.starts_with("\\u00") && escape[4] >= '2' && escape[4] <= '7') return true;
  }
  return false;
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

Result<Json> parse_body(std::string_view body, int depth) {
  auto root = outline_json(body, {.depth = depth}, wire::kRequestJson);
  if (!root) return fail(Code::kInvalidArgument, root.error().message);
  if (!root->is_object()) return fail(Code::kInvalidArgument, "the request body must be a JSON object, not ", root->kind_name());
  return root;
}

void ask_for_one_token(wire::Splice& edit, Api api, const Json& root, OneToken how) {
  auto limit = [&](wire::Splice::Path path, bool always) {
    const Json* at = &root;
    for (std::string_view key : path) at = at ? at->find(key) : nullptr;
    if (always || how == OneToken::kEveryLimit || at) edit.set(std::move(path), "1");
  };
  if (api == Api::kResponses) return limit({"max_output_tokens"}, true);
  if (api == Api::kGenerate) {
    limit({"sampling_params", "max_tokens"}, true);
    limit({"sampling_params", "min_tokens"}, false);
    return;
  }
  limit({"max_tokens"}, true);
  limit({"max_completion_tokens"}, false);
  limit({"min_tokens"}, false);
}

void ask_for_no_stream(wire::Splice& edit) { edit.set({"stream"}, "false").erase({"stream_options"}); }

std::string prefill_body(Api api, std::string_view body, const Json& root, std::string_view more) {
  wire::Splice edit(body, root);
  edit.set({kKvParams}, cat(kPrefillParams, more.empty() ? "" : ",", more, '}'));
  ask_for_no_stream(edit);
  ask_for_one_token(edit, api, root, OneToken::kEveryLimit);
  return edit.text();
}

std::string decode_body(std::string_view body, const Json& root, std::string_view kv_params) {
  return wire::Splice(body, root).set({kKvParams}, std::string(kv_params)).text();
}

std::optional<std::string> without_worker_fields(std::string_view body, const Json& root) {
  bool any = false;
  wire::Splice edit(body, root);
  for (std::string_view field : kWorkerFields) {
    if (!root.find(field)) continue;
    edit.erase({field});
    any = true;
  }
  return any ? std::optional(edit.text()) : std::nullopt;
}

Result<std::string> without_worker_fields(std::string body) {
  if (!may_have_worker_fields(body)) return body;
  BATON_TRY(Json root, parse_body(body));
  auto without = without_worker_fields(body, root);
  return without ? std::move(*without) : std::move(body);
}

Result<PrefillReply> read_prefill_reply(Api api, std::string_view body) {
  auto root = outline_json(body, {.depth = 3});
  if (!root) return within("prefill response", std::move(root).error());
  if (!root->is_object()) return fail(Code::kInvalidArgument, "prefill response is no JSON object");
  PrefillReply reply;
  if (const Json* params = root->find(kKvParams)) reply.kv_params = params->raw(body);
  const Json* usage = root->find("usage");
  if (!usage || !usage->is_object()) return reply;
  if (api == Api::kMessages) {  // no details: a number, or nothing
    if (const Json* cached = usage->find("cache_read_input_tokens")) reply.cached_tokens = cached->as_int();
    return reply;
  }
  const Json* details = usage->find(api == Api::kResponses ? "input_tokens_details" : "prompt_tokens_details");
  if (!details || !details->is_object()) return reply;
  const Json* cached = details->find("cached_tokens");
  reply.cached_tokens = cached ? cached->as_int().value_or(0) : 0;
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
