#include "engine/responses.h"

#include <charconv>

#include "engine/event_log.h"
#include "engine/generate.h"
#include "engine/limits.h"
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
wire::ApiError not_found(std::string_view id) {
  wire::ApiError error = invalid(404, cat("Response with id '", id, "' not found."));
  error.param = "response_id";
  return error;
}

std::string joined(std::string_view a, std::string_view b) { return cat(a, a.empty() || b.empty() ? "" : ",", b); }

bool is_prefill_leg(const Json& body) {
  const Json* remote = body.find_path({"kv_transfer_params", "do_remote_decode"});
  return remote && remote->as_bool() == true;
}

// log: takes the place of a client, which may wait or not.
Task<> run_in_background(const Serving& s, std::unique_ptr<Generation> generation, std::shared_ptr<EventLog> log) {
  LogWriter writer(log);
  co_await generation->answer(writer);
  s.responses->failed(generation->head().id);  // unless it is whole by now
  log->end();
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
    chat.max_tokens_name = "max_output_tokens";
    BATON_TRY(Asked asked, ask_chat(s, std::move(chat)));
    asked.id_prefix = request.request_id.starts_with("resp_") ? "" : "resp_";
    asked.cached_details = true;
    asked.request_type = "responses";
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
  const auto log = std::make_shared<EventLog>(kEventLogBytesMax);
  const bool streams = r.stream;
  const bool kept = s.responses->put(head.id, {.json = queued,
                                               .messages = joined(create.before, r.messages),
                                               .cancelled_json = create.shape->unfinished(head, "cancelled"),
                                               .failed_json = create.shape->unfinished(head, "failed"),
                                               .cancel = [log, end = (*generation)->canceller()] { log->end(), end(); },
                                               .log = streams ? log : nullptr});
  if (!kept)
    co_return co_await send_error(
        out, Error{Code::kResourceExhausted, "too many responses are streamed in the background; retry later"});
  net::spawn_here(run_in_background(s, std::move(*generation), log));
  if (streams) co_return co_await follow(log, 0, out);
  co_await out.send(net::Response::json(200, queued));
}

Task<> retrieve_response(const Serving& s, net::Request& request, std::string id, net::ResponseWriter& out) {
  const auto json = s.responses ? s.responses->json(id) : std::nullopt;
  if (!json) co_return co_await refuse(out, not_found(id));
  const std::string_view stream = query_parameter(request.query, "stream"),
                         after = query_parameter(request.query, "starting_after");
  if (stream != "true" && stream != "True" && stream != "1") co_return (void) co_await out.send(net::Response::json(200, *json));
  int64_t last = -1;  // the sequence number that the client has seen
  if (!after.empty()) {
    const auto [end, bad] = std::from_chars(after.data(), after.data() + after.size(), last);
    if (bad != std::errc() || end != after.data() + after.size() || last < 0)
      co_return co_await refuse(out, invalid(400, "starting_after: Input should be a valid integer, greater than or equal to 0"));
  }
  const auto log = s.responses->log(id);
  if (!log)
    co_return co_await refuse(out, invalid(400, cat("Response '", id,
                                                    "' cannot be streamed: only one that was created with `background` and "
                                                    "`stream` can, while its events are kept.")));
  co_await follow(log, static_cast<size_t>(last + 1), out);
}

Task<> cancel_response(const Serving& s, net::Request&, std::string id, net::ResponseWriter& out) {
  using Cancelled = ResponseStore::Cancelled;
  const Cancelled done = s.responses ? s.responses->cancel(id) : Cancelled::kUnknown;
  if (done == Cancelled::kUnknown) co_return co_await refuse(out, not_found(id));
  if (done == Cancelled::kNotRunning) co_return co_await refuse(out, invalid(400, "Cannot cancel a synchronous response."));
  co_await out.send(net::Response::json(200, s.responses->json(id).value_or("{}")));
}

}  // namespace baton::engine
