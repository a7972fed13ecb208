#include "engine/admin.h"

#include "engine/generate.h"
#include "net/mailbox.h"
#include "wire/errors.h"

namespace baton::engine {
namespace {

using net::Request;
using net::Response;
using net::ResponseWriter;
using net::Task;

// The value of a query parameter that needs no decoding; "" if there is none.
std::string_view parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    if (pair.starts_with(name) && pair.substr(name.size()).starts_with('=')) return pair.substr(name.size() + 1);
  }
  return "";
}

Response empty(int status) { return {.status = status, .headers = {}, .body = {}}; }

// Runs on the step thread, between steps.
template <class Work>
Task<Result<>> between_steps(const Serving& s, Work work) {
  auto answer = std::make_shared<net::Mailbox<Result<>>>();
  s.loop->post([answer, work = std::move(work)](Core& core) { answer->push(work(core)); });
  auto done = co_await answer->pop();
  co_return done ? *done : Result<>(fail(Code::kUnavailable, "the engine is shutting down"));
}

}  // namespace

Task<> framework_error(ResponseWriter& out, int status) {
  const std::string reason(wire::reason_phrase(status));
  co_await out.send(Response::json(status, wire::error_json({.status = status, .message = reason, .type = reason, .param = {}})));
}

Task<> reset_prefix_cache(const Serving& s, Request&, ResponseWriter& out) {
  if (!s.config->dev_mode) co_return co_await framework_error(out, 404);
  const auto done = co_await between_steps(s, [](Core& core) -> Result<> {
    if (core.reset_prefix_cache()) return {};
    return fail(Code::kUnavailable, "requests still hold KV blocks; the prefix cache was not reset");
  });
  if (!done) co_return co_await send_error(out, done.error());
  co_await out.send(empty(200));
}

Task<> fall_asleep(const Serving& s, Request& request, ResponseWriter& out) {
  if (!s.config->dev_mode) co_return co_await framework_error(out, 404);
  const std::string_view level = parameter(request.query, "level");
  if (!level.empty() && level != "1" && level != "2")
    co_return co_await send_error(out, Error{Code::kInvalidArgument, "level: Input should be 1 or 2"});
  if (s.node)
    co_return co_await send_error(
        out, Error{Code::kUnimplemented, "sleep is not supported while KV transfer is on: peers read this memory"});
  const auto done = co_await between_steps(s, [&s](Core& core) -> Result<> {
    if (s.sleeping) return {};
    if (!core.idle() || !core.reset_prefix_cache())
      return fail(Code::kUnavailable, "requests are running; the engine cannot sleep");
    core.refuse(Error{Code::kUnavailable, "the engine is sleeping: POST /wake_up first"});
    BATON_OK(s.keep_kv_memory(false));
    s.sleeping = true;
    return {};
  });
  if (!done) co_return co_await send_error(out, done.error());
  co_await out.send(Response::json(
      200, cat(R"({"kv_cache":"released","weights":"kept)", level == "2" ? ": this engine has level 1 only" : "", "\"}")));
}

Task<> wake_up(const Serving& s, Request& request, ResponseWriter& out) {
  if (!s.config->dev_mode) co_return co_await framework_error(out, 404);
  // tags=weights alone is the first of two calls: the weights are awake already.
  const bool kv = request.query.find("tags=") == std::string::npos || request.query.find("kv_cache") != std::string::npos;
  const auto done = co_await between_steps(s, [&s, kv](Core& core) -> Result<> {
    if (!s.sleeping || !kv) return {};
    BATON_OK(s.keep_kv_memory(true));
    core.accept();
    s.sleeping = false;
    return {};
  });
  if (!done) co_return co_await send_error(out, done.error());
  co_await out.send(empty(200));
}

Task<> is_sleeping(const Serving& s, Request&, ResponseWriter& out) {
  if (!s.config->dev_mode) co_return co_await framework_error(out, 404);
  co_await out.send(Response::json(200, cat("{\"is_sleeping\":", s.sleeping.load(), "}")));
}

Task<> tokenizer_info(const Serving& s, Request&, ResponseWriter& out) {
  if (!s.config->tokenizer_info) co_return co_await framework_error(out, 404);
  co_await out.send(Response::json(200, s.tokenizer_config_json));
}

}  // namespace baton::engine
