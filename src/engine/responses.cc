#include "engine/responses.h"

#include "engine/generate.h"
#include "engine/prepare.h"
#include "engine/response_store.h"
#include "wire/errors.h"
#include "wire/limits.h"
#include "wire/responses.h"

namespace baton::engine {
namespace {

using net::Task;

wire::ApiError invalid(int status, std::string message) {
  return {.status = status, .message = std::move(message), .type = "invalid_request_error", .param = {}};
}
Task<> refuse(net::ResponseWriter& out, wire::ApiError error) {
  co_await out.send(net::Response::json(error.status, wire::error_json(error)));
}
wire::ApiError not_found(std::string_view id) { return invalid(404, cat("Response with id '", id, "' not found.")); }

std::string joined(std::string_view a, std::string_view b) { return cat(a, a.empty() || b.empty() ? "" : ",", b); }

bool is_prefill_leg(const Json& body) {
  const Json* remote = body.find_path({"kv_transfer_params", "do_remote_decode"});
  return remote && remote->as_bool() == true;
}

// Takes the place of a client that does not wait.
class Nobody final : public net::ResponseWriter {
 public:
  Task<Result<>> send(net::Response response) override {
    failed_ = response.status >= 400;
    co_return Result<>();
  }
  Task<Result<>> begin(int, net::Headers) override { co_return Result<>(); }
  Task<Result<>> write(std::string_view) override { co_return Result<>(); }
  Task<Result<>> finish() override { co_return Result<>(); }
  bool started() const override { return false; }
  net::Cancel& cancel() override { return cancel_; }
  bool failed() const { return failed_; }

 private:
  net::Cancel cancel_;
  bool failed_ = false;
};

Task<> run_in_background(const Serving& s, std::unique_ptr<Generation> generation) {
  Nobody nobody;
  co_await generation->answer(nobody);
  if (nobody.failed()) s.responses->failed(generation->head().id);
}

// One request of create_response() while it is read.
struct Create {
  const Serving& s;
  wire::ResponsesRequest request;
  std::string before{};                   // the conversation so far
  wire::ResponsesShape* shape = nullptr;  // owned by the generation

  Result<Asked> ask(std::shared_ptr<const std::string> id) {
    BATON_TRY(const Json parsed, parse_json(wire::chat_body(request, before), wire::kRequestJson));
    BATON_TRY(wire::ChatRequest chat, wire::parse_chat_request(parsed));
    chat.limit_max_tokens = true;
    BATON_TRY(Asked asked, ask_chat(s, std::move(chat)));
    asked.id_prefix = request.request_id.starts_with("resp_") ? "" : "resp_";
    asked.cached_details = true;
    auto made = std::make_unique<wire::ResponsesShape>(request);
    shape = made.get();
    asked.shape = std::move(made);
    if (!request.store) return asked;
    asked.finished = [this_store = s.responses, made = shape, id = std::move(id), turns = joined(before, request.messages)] {
      this_store->put(*id, {.json = made->final_response(), .messages = joined(turns, made->final_messages())});
    };
    return asked;
  }
};

}  // namespace

Task<> create_response(const Serving& s, net::Request& request, net::ResponseWriter& out) {
  const auto body = parse_body(request);
  if (!body) co_return co_await send_error(out, body.error());
  if (auto able = check_generates(s, "Responses API"); !able) co_return co_await send_error(out, able.error());
  auto parsed = wire::parse_responses_request(*body, request.body);
  if (!parsed) co_return co_await send_error(out, parsed.error());
  Create create{.s = s, .request = std::move(*parsed)};
  wire::ResponsesRequest& r = create.request;
  if (is_prefill_leg(*body)) {
    // What is kept is kept by the decode worker. 503: its sidecar has the prompt computed there.
    if (r.background || !r.previous_response_id.empty())
      co_return co_await send_error(out, Error{Code::kUnavailable, "only the worker that keeps responses can continue one"});
    r.store = false;
  }
  if (!s.responses) {
    if (r.background) {
      co_return co_await refuse(
          out, invalid(400,
                       "This vLLM engine does not support `store=True` and therefore does not support the background mode. To "
                       "enable these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when "
                       "launching the vLLM server."));
    }
    r.store = false;
  }
  if (r.background && r.stream)
    co_return co_await send_error(out,
                                  Error{Code::kUnimplemented, "stream together with background is not supported by this engine"});
  if (!r.previous_response_id.empty()) {
    const auto messages = s.responses ? s.responses->messages(r.previous_response_id) : std::nullopt;
    if (!messages) co_return co_await refuse(out, not_found(r.previous_response_id));
    create.before = *messages;
  }
  const auto id = std::make_shared<std::string>();
  auto generation = prepare_generation(s, request, *body, [&](const Json&, std::string_view) { return create.ask(id); });
  if (!generation) co_return co_await send_error(out, generation.error());
  const wire::Head& head = (*generation)->head();
  *id = head.id;
  if (!r.background) co_return co_await (*generation)->answer(out);
  const std::string queued = create.shape->unfinished(head, "queued");
  s.responses->put(head.id, {.json = queued,
                             .messages = joined(create.before, r.messages),
                             .cancelled_json = create.shape->unfinished(head, "cancelled"),
                             .failed_json = create.shape->unfinished(head, "failed"),
                             .cancel = (*generation)->canceller()});
  net::spawn_here(run_in_background(s, std::move(*generation)));
  co_await out.send(net::Response::json(200, queued));
}

Task<> retrieve_response(const Serving& s, net::Request& request, std::string id, net::ResponseWriter& out) {
  const auto json = s.responses ? s.responses->json(id) : std::nullopt;
  if (!json) co_return co_await refuse(out, not_found(id));
  if (request.query.find("stream=true") != std::string::npos)
    co_return co_await send_error(out,
                                  Error{Code::kUnimplemented, "streaming a stored response is not supported by this engine"});
  co_await out.send(net::Response::json(200, *json));
}

Task<> cancel_response(const Serving& s, net::Request&, std::string id, net::ResponseWriter& out) {
  using Cancelled = ResponseStore::Cancelled;
  const Cancelled done = s.responses ? s.responses->cancel(id) : Cancelled::kUnknown;
  if (done == Cancelled::kUnknown) co_return co_await refuse(out, not_found(id));
  if (done == Cancelled::kNotRunning) co_return co_await refuse(out, invalid(400, "Cannot cancel a synchronous response."));
  co_await out.send(net::Response::json(200, s.responses->json(id).value_or("{}")));
}

}  // namespace baton::engine
