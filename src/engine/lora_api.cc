#include "engine/lora_api.h"

#include "engine/admin.h"
#include "engine/reply.h"
#include "net/mailbox.h"
#include "wire/errors.h"

namespace baton::engine {
namespace {

using net::Response;
using net::Task;

struct LoadRequest {
  LoraModule module;
  bool in_place = false;
};

Result<std::string> text_of(const Json& body, std::string_view key) {
  const Json* v = body.find(key);
  if (!v || v->is_null()) return std::string();
  if (!v->is_string()) return wire::refuse(wire::At{key}, "Input should be a valid string");
  return v->text;
}

Result<bool> flag_of(const Json& body, std::string_view key) {
  const Json* v = body.find(key);
  if (!v || v->is_null()) return false;
  if (!v->is_bool()) return wire::refuse(wire::At{key}, "Input should be a valid boolean");
  return v->boolean;
}

Result<LoadRequest> read_load(const net::Request& request) {
  BATON_TRY(const Json body, parse_body(request));
  LoadRequest asked;
  BATON_TRY(asked.module.name, text_of(body, "lora_name"));
  BATON_TRY(asked.module.path, text_of(body, "lora_path"));
  BATON_TRY(asked.in_place, flag_of(body, "load_inplace"));
  BATON_OK(flag_of(body, "is_3d_lora_weight"));  // the files say it themselves
  return asked;
}

Task<> refuse(net::ResponseWriter& out, int status, std::string message, std::string type = {}) {
  wire::ApiError error{.status = status, .message = std::move(message), .type = std::move(type), .param = {}};
  co_await out.send(Response::json(status, wire::error_json(error)));
}

// What the user of the API did wrong has a type of its own; what is wrong with the files is the server's.
Task<> refuse_load(net::ResponseWriter& out, const Error& error) {
  switch (error.code) {
    case Code::kNotFound: co_return co_await refuse(out, 404, error.message);
    case Code::kUnavailable: co_return co_await refuse(out, 503, error.message);
    case Code::kAlreadyExists:
    case Code::kFailedPrecondition:
    case Code::kResourceExhausted: co_return co_await refuse(out, 400, error.message, "InvalidUserInput");
    default: co_return co_await refuse(out, 500, error.message);
  }
}

Task<> done(net::ResponseWriter& out, std::string_view name, std::string_view what) {
  co_await out.send(Response{.status = 200, .headers = {}, .body = cat("Success: LoRA adapter '", name, "' ", what, " successfully.")});
}

}  // namespace

Task<> load_lora_adapter(const Serving& s, net::Request& request, net::ResponseWriter& out) {
  if (!s.config->lora_updating) co_return co_await framework_error(out, 404);
  auto asked = read_load(request);
  if (!asked) co_return co_await send_error(out, asked.error());
  const LoraModule module = asked->module;
  if (module.name.empty() || module.path.empty())
    co_return co_await refuse(out, 400, "Both 'lora_name' and 'lora_path' must be provided.", "InvalidUserInput");
  if (!s.adapters) co_return co_await refuse(out, 500, "LoRA is not enabled. Use --enable-lora to enable LoRA.");
  const auto answer = std::make_shared<net::Mailbox<Result<>>>();
  s.adapters->later([answer, module, in_place = asked->in_place](Adapters& adapters) { answer->push(adapters.load(module, in_place)); });
  const auto loaded = co_await answer->pop();
  if (!loaded) co_return co_await refuse(out, 503, "the engine is shutting down");
  if (!*loaded) co_return co_await refuse_load(out, loaded->error());
  co_await done(out, module.name, "added");
}

Task<> unload_lora_adapter(const Serving& s, net::Request& request, net::ResponseWriter& out) {
  if (!s.config->lora_updating) co_return co_await framework_error(out, 404);
  const auto name = [&]() -> Result<std::string> {
    BATON_TRY(const Json body, parse_body(request));
    return text_of(body, "lora_name");
  }();
  if (!name) co_return co_await send_error(out, name.error());
  if (name->empty()) co_return co_await refuse(out, 400, "'lora_name' needs to be provided to unload a LoRA adapter.", "InvalidUserInput");
  const auto answer = std::make_shared<net::Mailbox<bool>>();
  if (s.adapters)
    s.adapters->later([answer, name = *name](Adapters& adapters) { answer->push(adapters.unload(name)); });
  else
    answer->push(false);
  if (!(co_await answer->pop()).value_or(false)) co_return co_await refuse(out, 404, cat("The lora adapter '", *name, "' cannot be found."));
  co_await done(out, *name, "removed");
}

}  // namespace baton::engine
