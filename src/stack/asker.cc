#include "stack/asker.h"

#include "base/json.h"
#include "base/prng.h"
#include "net/sse.h"
#include "stack/limits.h"

namespace baton::stack {

std::string fresh_prompt(int words) {
  static constexpr std::string_view kWords[] = {"ferry",  "island", "letter", "orange", "patient", "dawn",
                                                "bridge", "river",  "storm",  "lamp",   "keeper",  "rain"};
  Prng prng(secure_random_u64());
  std::string out = cat("Note ", prng.next(), ":");
  for (int i = 0; i < words; ++i) out += cat(' ', kWords[prng.below(std::size(kWords))]);
  return out;
}

std::string text_of(std::string_view completion) {
  auto j = parse_json(completion);
  const Json* choices = j ? j->find("choices") : nullptr;
  const Json* text = choices != nullptr && !choices->items.empty() ? choices->items[0].find("text") : nullptr;
  return text != nullptr ? text->text : "";
}

net::Call Asker::call(std::string method, std::string target) const {
  net::Call c;
  c.host = url_.host, c.port = url_.port;
  c.method = std::move(method), c.target = url_.path + target;
  c.first_byte_timeout = c.idle_timeout = net::Millis(1000 * config_.timeout_s);
  c.body_bytes_max = kTopBytesMax;
  if (!config_.api_key.empty()) c.headers.set("authorization", "Bearer " + config_.api_key);
  return c;
}

net::Task<Result<net::Response>> Asker::get(std::string target) {
  co_return co_await client_.fetch(call("GET", std::move(target)));
}

net::Task<Result<net::Response>> Asker::post(std::string target, std::string body) {
  net::Call c = call("POST", std::move(target));
  c.headers.set("content-type", "application/json");
  c.body = body;
  co_return co_await client_.fetch(std::move(c));
}

std::string Asker::body(std::string_view prompt, int max_tokens, bool stream) const {
  JsonWriter w;
  w.object().field("model", model_).field("prompt", prompt).field("max_tokens", max_tokens).field("temperature", 0.0);
  return w.field("stream", stream).end().take();
}

net::Task<Result<net::Response>> Asker::complete(std::string_view prompt, int max_tokens) {
  co_return co_await post("/v1/completions", body(prompt, max_tokens, false));
}

net::Task<Result<Streamed>> Asker::stream(std::string_view prompt, int max_tokens) {
  net::Call c = call("POST", "/v1/completions");
  c.headers.set("content-type", "application/json");
  const std::string asked = body(prompt, max_tokens, true);
  c.body = asked;
  BATON_CO_TRY(auto answer, co_await client_.open(std::move(c)));
  Streamed out;
  out.status = answer->status();
  net::SseParser parser;
  std::vector<net::SseEvent> events;
  for (;;) {
    BATON_CO_TRY(const std::string bytes, co_await answer->read());
    if (bytes.empty()) break;
    if (out.status != 200) {
      out.text += bytes;
    } else if (auto fed = parser.feed(bytes, events); !fed) {
      co_return fail(Code::kInternal, fed.error().message);
    }
    if (out.text.size() > kTopBytesMax) co_return fail(Code::kResourceExhausted, "an answer without end");
  }
  for (const auto& e : events) {
    ++out.events;
    out.done = e.data == "[DONE]";
    if (out.done) continue;
    auto j = parse_json(e.data);
    if (const Json* message = j ? j->find_path({"error", "message"}) : nullptr; message != nullptr && ++out.errors == 1)
      out.error = message->text;
    out.text += text_of(e.data);
  }
  co_return out;
}

}  // namespace baton::stack
