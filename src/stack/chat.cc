#include "stack/chat.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <iostream>

#include "base/clock.h"
#include "base/json.h"
#include "net/http.h"
#include "net/sse.h"
#include "wire/headers.h"

namespace baton::stack {

Options chat_options(ChatConfig& c) {
  Options o("baton chat", "talk to a running stack, or any OpenAI server", "baton chat [--url URL] [--once PROMPT]");
  o.add("url", &c.url, "where it listens").env("BATON_URL");
  o.add("once", &c.once, "answer this prompt and end");
  o.add("system", &c.system, "system prompt");
  o.add("model", &c.model, "model name; empty = the server's first");
  o.add("api-key", &c.api_key, "bearer token").env("OPENAI_API_KEY");
  o.add("max-tokens", &c.max_tokens, "tokens", "longest answer", 1, 1'000'000);
  o.add("temperature", &c.temperature, "", "0 = always the likeliest token", 0, 2);
  return o;
}

Result<Url> parse_url(const std::string& url) {
  Url out;
  if (!url.starts_with("http://")) return fail(Code::kInvalidArgument, "'", url, "' is no http:// URL");
  std::string rest = url.substr(7);
  size_t slash = rest.find('/');
  out.path = slash == std::string::npos ? "" : rest.substr(slash);
  std::string authority = rest.substr(0, slash);
  size_t bracket = authority.starts_with('[') ? authority.find(']') : std::string::npos;
  size_t colon = authority.find(':', bracket == std::string::npos ? 0 : bracket);
  out.host = bracket == std::string::npos ? authority.substr(0, colon) : authority.substr(1, bracket - 1);
  if (colon != std::string::npos) {
    const char* end = authority.data() + authority.size();
    auto r = std::from_chars(authority.data() + colon + 1, end, out.port);
    if (r.ec != std::errc() || r.ptr != end || out.port < 1 || out.port > 65535) {
      return fail(Code::kInvalidArgument, "'", url, "' has no port from 1 to 65535");
    }
  }
  if (out.host.empty()) return fail(Code::kInvalidArgument, "'", url, "' names no host");
  return out;
}

std::string field_of(std::string_view list, std::string_view name) {
  for (size_t at = 0; at < list.size();) {
    std::string_view item = list.substr(at, list.find(',', at) - at);
    if (item.starts_with(name) && item.size() > name.size() && item[name.size()] == '=')
      return std::string(item.substr(name.size() + 1));
    at += item.size() + 1;
  }
  return "";
}

namespace {

struct Message {
  std::string role, content;
};

struct Answer {
  std::string text;
  double ttft_s = 0, total_s = 0;
  int64_t prompt_tokens = 0, output_tokens = 0;
  std::string worker, waterfall, kv;
};

class Session {
 public:
  Session(const ChatConfig& config, Url url) : config_(config), url_(std::move(url)), color_(isatty(1) == 1) {
    if (!config.system.empty()) history_.push_back({"system", config.system});
  }
  net::Task<Result<>> ask(std::string question);

 private:
  net::Call call(std::string_view body) const;
  std::string body() const;
  Result<> take_event(std::string_view data, Answer& answer) const;
  void show_cost(const Answer& a) const;

  const ChatConfig& config_;
  Url url_;
  bool color_;
  SteadyClock clock_;
  net::Client client_;
  std::vector<Message> history_;
};

net::Call Session::call(std::string_view body) const {
  net::Call c;
  c.host = url_.host, c.port = url_.port;
  c.method = "POST", c.target = url_.path + "/v1/chat/completions";
  c.body = body;
  c.headers.set("content-type", "application/json");
  if (!config_.api_key.empty()) c.headers.set("authorization", "Bearer " + config_.api_key);
  return c;
}

std::string Session::body() const {
  JsonWriter w;
  w.object();
  if (!config_.model.empty()) w.field("model", config_.model);
  w.key("messages").array();
  for (const auto& m : history_) w.object().field("role", m.role).field("content", m.content).end();
  w.end().field("max_tokens", config_.max_tokens).field("temperature", config_.temperature).field("stream", true);
  w.key("stream_options").object().field("include_usage", true).end().end();
  return w.take();
}

// One SSE event: prints its text, notes its usage; an error event ends the answer.
Result<> Session::take_event(std::string_view data, Answer& answer) const {
  if (data == "[DONE]") return {};
  BATON_TRY(Json j, parse_json(data));
  if (const Json* message = j.find_path({"error", "message"})) return fail(Code::kUnavailable, message->text);
  if (const Json* usage = j.find("usage"); usage != nullptr && usage->is_object()) {
    if (const Json* n = usage->find("prompt_tokens")) answer.prompt_tokens = n->as_int().value_or(0);
    if (const Json* n = usage->find("completion_tokens")) answer.output_tokens = n->as_int().value_or(0);
  }
  const Json* choices = j.find("choices");
  if (choices == nullptr || choices->items.empty()) return {};
  if (const Json* text = choices->items[0].find_path({"delta", "content"}); text != nullptr && text->is_string()) {
    answer.text += text->text;
    std::cout << text->text << std::flush;
  }
  return {};
}

void Session::show_cost(const Answer& a) const {
  double decode_s = a.total_s - a.ttft_s;
  std::string line =
      fmt::format("{} prompt tokens, {} written, {:.0f} ms to the first", a.prompt_tokens, a.output_tokens, a.ttft_s * 1e3);
  if (a.output_tokens > 1 && decode_s > 0.01)
    line += fmt::format(", then {:.0f} tokens/s", static_cast<double>(a.output_tokens - 1) / decode_s);
  if (auto prefill = field_of(a.worker, "prefill"); !prefill.empty()) line += cat("\nread by     ", prefill);
  if (auto decode = field_of(a.worker, "decode"); !decode.empty()) line += cat("\nwritten by  ", decode);
  if (double bytes = std::atof(field_of(a.kv, "bytes").c_str()); bytes > 0) {
    line += fmt::format("\nhand-over   {:.2f} MiB of KV, {} tokens, {} ms over {}", bytes / 1048576, field_of(a.kv, "tokens"),
                        field_of(a.waterfall, "transfer"), field_of(a.kv, "transport"));
  }
  if (auto queue = field_of(a.waterfall, "queue"); !queue.empty()) {
    line += cat("\nfirst token queue ", queue, " + prefill ", field_of(a.waterfall, "prefill"), " + transfer ",
                field_of(a.waterfall, "transfer"), " + first step ", field_of(a.waterfall, "first_step"), " ms");
  }
  fmt::print("{}{}{}\n", color_ ? "\033[2m" : "", line, color_ ? "\033[0m" : "");
}

net::Task<Result<>> Session::ask(std::string question) {
  history_.push_back({"user", std::move(question)});
  std::string text = body();
  Answer answer;
  double began = clock_.now_s();
  BATON_CO_TRY(auto stream, co_await client_.open(call(text)));
  if (auto h = stream->headers().get(wire::kWorker)) answer.worker = *h;
  if (auto h = stream->headers().get(wire::kTtft)) answer.waterfall = *h;
  if (auto h = stream->headers().get(wire::kKv)) answer.kv = *h;
  net::SseParser parser;
  std::vector<net::SseEvent> events;
  std::string refused;
  for (;;) {
    BATON_CO_TRY(std::string bytes, co_await stream->read());
    if (bytes.empty()) break;
    if (stream->status() != 200) {
      refused += bytes;
      continue;
    }
    if (answer.ttft_s == 0) answer.ttft_s = clock_.now_s() - began;
    events.clear();
    BATON_CO_OK(parser.feed(bytes, events));
    for (const auto& event : events) BATON_CO_OK(take_event(event.data, answer));
  }
  if (stream->status() != 200) {
    history_.pop_back();
    auto j = parse_json(refused);
    const Json* message = j ? j->find_path({"error", "message"}) : nullptr;
    co_return fail(Code::kUnavailable, "HTTP ", stream->status(), ": ", message != nullptr ? message->text : refused);
  }
  answer.total_s = clock_.now_s() - began;
  std::cout << "\n";
  history_.push_back({"assistant", answer.text});
  show_cost(answer);
  co_return Result<>{};
}

}  // namespace

Result<> chat(const ChatConfig& config) {
  BATON_TRY(Url url, parse_url(config.url));
  while (url.path.ends_with('/')) url.path.pop_back();
  if (url.path == "/v1") url.path.clear();
  Result<> outcome;
  net::run_task([&]() -> net::Task<> {
    Session session(config, url);
    if (!config.once.empty()) {
      outcome = co_await session.ask(config.once);
      co_return;
    }
    fmt::print("talking to {}; an empty line or Ctrl-D ends\n", config.url);
    for (std::string line;;) {
      fmt::print("you> ");
      std::fflush(stdout);
      if (!std::getline(std::cin, line) || line.empty()) break;
      if (auto r = co_await session.ask(line); !r) fmt::print(stderr, "baton chat: {}\n", r.error().message);
    }
  });
  return outcome;
}

}  // namespace baton::stack
