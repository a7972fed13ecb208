#include "engine/admin.h"

#include "base/log.h"
#include "engine/generate.h"
#include "net/mailbox.h"
#include "wire/errors.h"

namespace baton::engine {
namespace {

using net::Request;
using net::Response;
using net::ResponseWriter;
using net::Task;

// Runs on the step thread, between steps.
template <class Work>
Task<Result<>> between_steps(const Serving& s, Work work) {
  auto answer = std::make_shared<net::Mailbox<Result<>>>();
  s.loop->post([answer, work = std::move(work)](Core& core) { answer->push(work(core)); });
  auto done = co_await answer->pop();
  co_return done ? *done : Result<>(fail(Code::kUnavailable, "the engine is shutting down"));
}

// Step thread, after whatever changed.
void show_sleep(const Serving& s) {
  s.metrics->show_sleep(s.asleep.weights ? SleepState::kDiscardAll
                        : s.asleep.kv    ? SleepState::kWeightsOffloaded
                                         : SleepState::kAwake);
}

Error bad_query(std::string_view param, std::string_view message) {
  return {.code = Code::kInvalidArgument, .message = std::string(message), .param = std::string(param), .form = true};
}

// Why this level of sleep is none, in pydantic's words where it has some.
std::string_view level_wants(std::string_view level) {
  if (level == "0") return "Input should be 1 or 2";
  const bool number = level.find_first_not_of("-0123456789") == std::string_view::npos;
  if (!number) return "Input should be a valid integer, unable to parse string as an integer";
  return level.starts_with('-') ? "Input should be greater than or equal to 0" : "Input should be less than or equal to 2";
}

}  // namespace

Task<> framework_error(ResponseWriter& out, int status, std::string_view allow) {
  const std::string reason(wire::reason_phrase(status));
  std::string body = wire::error_json({.status = status, .message = reason, .type = reason, .param = {}});
  body.insert(body.size() - 1, cat(",\"detail\":", json_string(reason)));
  Response response = Response::json(status, std::move(body));
  if (!allow.empty()) response.headers.set("Allow", allow);
  co_await out.send(std::move(response));
}

Task<> reset_prefix_cache(const Serving& s, Request&, ResponseWriter& out) {
  if (!s.config->dev_mode) co_return co_await framework_error(out, 404);
  const auto success = std::make_shared<bool>(false);  // stays so where requests still hold KV blocks
  const auto done = co_await between_steps(s, [success](Core& core) -> Result<> {
    *success = core.reset_prefix_cache();
    return {};
  });
  if (!done) co_return co_await send_error(out, done.error());
  co_await out.send(Response::json(200, cat("{\"success\":", *success, "}")));
}

Task<> reset_nothing(const Serving& s, Request&, ResponseWriter& out) {
  if (!s.config->dev_mode) co_return co_await framework_error(out, 404);
  co_await out.send({.status = 200, .headers = {}, .body = {}});
}

Task<> fall_asleep(const Serving& s, Request& request, ResponseWriter& out) {
  if (!s.config->dev_mode) co_return co_await framework_error(out, 404);
  const std::string_view level = query_parameter(request.query, "level");
  if (!level.empty() && level != "1" && level != "2")
    co_return co_await send_error(out, bad_query("query.level", level_wants(level)));
  const std::string_view mode = query_parameter(request.query, "mode");
  if (!mode.empty() && mode != "abort" && mode != "wait" && mode != "keep")
    co_return co_await send_error(out, bad_query("query.mode", "Input should be 'abort', 'wait' or 'keep'"));
  if (s.node)
    co_return co_await send_error(
        out, Error{Code::kUnimplemented, "sleep is not supported while KV transfer is on: peers read this memory"});
  const auto done = co_await between_steps(s, [&s, deep = level == "2"](Core& core) -> Result<> {
    const bool kv = !s.asleep.kv, weights = deep && !s.asleep.weights;
    if (!kv && !weights) return {};
    if (!core.idle() || !core.reset_prefix_cache())
      return fail(Code::kUnavailable, "requests are running; the engine cannot sleep");
    if (weights) BATON_OK(s.keep_weights(false));
    core.refuse(Error{Code::kUnavailable, "the engine is sleeping: POST /wake_up first"});
    if (weights) s.asleep.weights = true;
    show_sleep(s);
    if (kv) BATON_OK(s.keep_kv_memory(false));
    s.asleep.kv = true;
    show_sleep(s);
    return {};
  });
  if (!done) co_return co_await send_error(out, done.error());
  co_await out.send(
      Response::json(200, cat(R"({"status":"sleeping","level":)", level == "2" ? 2 : 1, R"(,"kv_cache":"released","weights":")",
                              s.asleep.weights ? "released" : "kept", "\"}")));
}

Task<> wake_up(const Serving& s, Request& request, ResponseWriter& out) {
  if (!s.config->dev_mode) co_return co_await framework_error(out, 404);
  const auto tags = query_parameters(request.query, "tags");
  bool kv = tags.empty(), weights = tags.empty();
  for (std::string_view tag : tags) {
    if (tag != "weights" && tag != "kv_cache")
      co_return co_await send_error(out, bad_query("query.tags", "Input should be 'weights' or 'kv_cache'"));
    (tag == "weights" ? weights : kv) = true;
  }
  const auto done = co_await between_steps(s, [&s, kv, weights](Core& core) -> Result<> {
    if (!s.asleep.any()) return {};
    if (weights && s.asleep.weights) {
      auto loaded = s.keep_weights(true);
      if (!loaded) loaded = fail(Code::kInternal, "the weights could not be loaded again: ", loaded.error().message);
      s.asleep.set_lost(loaded ? "" : loaded.error().message);
      if (!loaded) return loaded;
      s.asleep.weights = false;
      show_sleep(s);
    }
    if (kv && s.asleep.kv) {
      BATON_OK(s.keep_kv_memory(true));
      s.asleep.kv = false;
      show_sleep(s);
    }
    if (!s.asleep.any()) core.accept();
    return {};
  });
  if (!done) {
    log_error("the engine does not wake up", "error=\"{}\"", done.error().message);
    co_return co_await send_error(out, done.error());
  }
  std::string asked;
  for (std::string_view tag : tags) asked += cat(asked.empty() ? "" : ",", json_string(tag));
  co_await out.send(Response::json(200, cat(R"({"status":")", s.asleep.any() ? "sleeping" : "awake", R"(","tags":)",
                                            asked.empty() ? "null" : cat("[", asked, "]"), "}")));
}

Task<> is_sleeping(const Serving& s, Request&, ResponseWriter& out) {
  if (!s.config->dev_mode) co_return co_await framework_error(out, 404);
  co_await out.send(Response::json(200, cat("{\"is_sleeping\":", s.asleep.any(), "}")));
}

Task<> tokenizer_info(const Serving& s, Request&, ResponseWriter& out) {
  if (!s.config->tokenizer_info) co_return co_await framework_error(out, 404);
  co_await out.send(Response::json(200, s.tokenizer_config_json));
}

}  // namespace baton::engine
