#include "loadgen/runner.h"

#include <algorithm>
#include <cmath>

#include "loadgen/limits.h"
#include "net/mailbox.h"
#include "wire/headers.h"

namespace baton::loadgen {
namespace {

// Connections kept between requests: as many as may be in use at once, so that a round of requests never waits for handshakes.
int connections_for(const BenchConfig& config) {
  return std::clamp(config.max_concurrency > 0 ? config.max_concurrency : config.num_prompts, 16, 16'384);
}

// Of a failed answer, fit for one line of a report.
std::string error_text(std::string_view body) {
  std::string out(body.substr(0, kErrorTextMax));
  for (char& c : out) {
    if (c < ' ' || c > '~') c = '.';
  }
  return out;
}

}  // namespace

Runner::Runner(const BenchConfig& config, const BenchPlan& plan, const Clock& clock, const OnProgress& on_progress)
    : config_(config),
      plan_(plan),
      clock_(clock),
      on_progress_(on_progress),
      ignore_eos_(config.ignore_eos || config.dataset_path.empty()),  // as vllm bench serve: random prompts run to their length
      id_prefix_(config.request_id_prefix.empty() ? cat("bench-", random_hex(8), "-") : config.request_id_prefix),
      client_(connections_for(config)) {}

net::Call Runner::call(std::string method, std::string path) const {
  net::Call out;
  out.host = plan_.target.host;
  out.port = plan_.target.port;
  out.method = std::move(method);
  out.target = plan_.target.base_path + path;
  for (const auto& [name, value] : plan_.target.headers) out.headers.set(name, value);
  out.connect_timeout = net::Millis(30'000);
  out.first_byte_timeout = out.idle_timeout = net::Millis(kRequestTimeoutMs);
  out.body_bytes_max = kAnswerBytesMax;
  return out;
}

net::Task<Result<std::string>> Runner::find_model() {
  const int64_t give_up_ms = clock_.now_ms() + int64_t{config_.ready_check_timeout_sec} * 1'000;
  for (;;) {
    auto response = co_await client_.fetch(call("GET", "/v1/models"));
    if (response && response->status == 200) {
      if (!config_.served_model_name.empty()) co_return config_.served_model_name;
      if (!config_.model.empty()) co_return config_.model;
      const auto root = parse_json(response->body);
      const Json* data = root ? root->find("data") : nullptr;
      const Json* id = data != nullptr && !data->items.empty() ? data->items[0].find("id") : nullptr;
      if (id != nullptr && id->is_string()) co_return id->text;
    }
    if (clock_.now_ms() >= give_up_ms) {
      const std::string where = cat("http://", plan_.target.host, ":", plan_.target.port, plan_.target.base_path, "/v1/models");
      if (!response) co_return fail(Code::kUnavailable, "no server at ", where, ": ", response.error().message);
      if (!config_.model.empty() || !config_.served_model_name.empty()) {  // a server without the route may still serve it
        co_return config_.served_model_name.empty() ? config_.model : config_.served_model_name;
      }
      co_return fail(Code::kUnavailable, where, " answers ", response->status, " and names no model; give --model");
    }
    co_await net::sleep_for(net::Millis(250));
  }
}

// The answer to a JSON POST; kUnimplemented if the server does not offer the path.
net::Task<Result<Json>> Runner::post_json(std::string path, const JsonWriter& body) {
  net::Call request = call("POST", path);
  request.headers.set("Content-Type", "application/json");
  request.body = body.text();
  BATON_CO_TRY(const net::Response response, co_await client_.fetch(std::move(request)));
  if (response.status != 200) co_return fail(Code::kUnimplemented, path, " answers ", response.status);
  co_return parse_json(response.body);
}

net::Task<Result<std::vector<int64_t>>> Runner::tokenize(const std::string& text) {
  JsonWriter w;
  w.object().field("model", model_).field("prompt", text).field("add_special_tokens", false).end();
  BATON_CO_TRY(const Json root, co_await post_json("/tokenize", w));
  const Json* tokens = root.find("tokens");
  if (tokens == nullptr || !tokens->is_array()) co_return fail(Code::kInternal, "/tokenize gives no tokens");
  std::vector<int64_t> out;
  for (const Json& token : tokens->items) out.push_back(token.as_int().value_or(0));
  co_return out;
}

net::Task<Result<std::string>> Runner::detokenize(std::span<const int64_t> tokens) {
  JsonWriter w;
  w.object().field("model", model_).key("tokens").array();
  for (int64_t token : tokens) w.value(token);
  w.end().end();
  BATON_CO_TRY(const Json root, co_await post_json("/detokenize", w));
  const Json* prompt = root.find("prompt");
  if (prompt == nullptr || !prompt->is_string()) co_return fail(Code::kInternal, "/detokenize gives no prompt");
  co_return prompt->text;
}

// False if the server cannot tokenize. A prompt that will not come out exact keeps its last text and its true count.
net::Task<bool> Runner::align_one(Prompt& prompt, Prng prng) {
  const auto want = static_cast<size_t>(prompt.tokens);
  for (int round = 0; round < kAlignRoundsMax; ++round) {
    auto tokens = co_await tokenize(prompt.text);
    if (!tokens) co_return false;
    prompt.tokens = static_cast<int>(tokens->size());
    if (tokens->size() == want) co_return true;
    if (tokens->size() < want) {
      prompt.text += ' ' + random_words(want - tokens->size(), prng);
      continue;
    }
    auto text = co_await detokenize(std::span(*tokens).first(want));
    if (!text) co_return false;
    prompt.text = *std::move(text);
  }
  if (auto tokens = co_await tokenize(prompt.text)) prompt.tokens = static_cast<int>(tokens->size());
  co_return true;
}

net::Task<> Runner::align(std::vector<Prompt>& prompts) {
  if (prompts.empty() || !co_await align_one(prompts[0], Prng(Prng::at(static_cast<uint64_t>(config_.seed), 2)))) co_return;
  size_t next = 1;
  net::Mailbox<int> finished;
  for (int k = 0; k < kAlignConcurrency; ++k) {
    net::spawn_here([](Runner& self, std::vector<Prompt>& all, size_t& at, net::Mailbox<int>& out) -> net::Task<> {
      while (at < all.size()) {
        const size_t i = at++;
        (void)co_await self.align_one(all[i], Prng(Prng::at(static_cast<uint64_t>(self.config_.seed), i + 3)));
      }
      out.push(1);
    }(*this, prompts, next, finished));
  }
  for (int k = 0; k < kAlignConcurrency; ++k) (void)co_await finished.pop();
}

net::Task<Result<>> Runner::exchange(const Prompt& prompt, const std::string& id, Outcome& out) {
  const std::string body = request_body(config_, plan_.target.chat, model_, prompt, ignore_eos_);
  net::Call request = call("POST", plan_.target.endpoint);
  request.headers.set("Content-Type", "application/json");
  request.headers.set(wire::kRequestId, id);
  request.body = body;
  out.sent_ns = clock_.now_ns();
  BATON_CO_TRY(auto stream, co_await client_.open(std::move(request)));
  out.worker = stream->headers().get(wire::kWorker).value_or("");
  out.ttft_stages = stream->headers().get(wire::kTtft).value_or("");
  AnswerReader reader(out);
  std::string failure;
  for (;;) {
    BATON_CO_TRY(const std::string bytes, co_await stream->read());
    const int64_t now = clock_.now_ns();
    if (bytes.empty()) break;
    if (stream->status() != 200) {
      if (failure.size() < kErrorTextMax) failure += bytes;
      continue;
    }
    BATON_CO_OK(reader.feed(bytes, now));
  }
  if (stream->status() != 200) co_return fail(Code::kUnavailable, "HTTP ", stream->status(), ": ", error_text(failure));
  co_return reader.finish();
}

net::Task<Outcome> Runner::send(const Prompt& prompt, const std::string& id, int64_t intended_ns) {
  Outcome out;
  out.intended_ns = intended_ns;
  const Result<> done = co_await exchange(prompt, id, out);
  out.ok = done.has_value();
  if (!done) out.error = valid_utf8(done.error().message) ? done.error().message : error_text(done.error().message);
  // The server's own count is the truth; without it, what the prompt was made to be.
  if (out.prompt_tokens == 0) out.prompt_tokens = prompt.tokens;
  co_return out;
}

net::Task<std::vector<Outcome>> Runner::load(const std::vector<Prompt>& prompts, const std::vector<double>& due_s,
                                             int concurrency) {
  struct Shared {
    std::vector<Outcome> outcomes;
    net::Mailbox<int> ended;
    Progress progress;
  } shared;
  shared.outcomes.resize(prompts.size());
  shared.progress.total = static_cast<int>(prompts.size());
  const int64_t start_ns = clock_.now_ns();
  auto one = [](Runner& self, Shared& all, const Prompt& prompt, int i, int64_t intended_ns) -> net::Task<> {
    all.outcomes[i] = co_await self.send(prompt, cat(self.id_prefix_, i), intended_ns);
    all.outcomes[i].index = i;
    all.ended.push(i);
  };
  int running = 0;
  auto collect = [&](int i) {
    --running;
    ++shared.progress.done;
    shared.progress.failed += !shared.outcomes[i].ok;
    shared.progress.elapsed_s = static_cast<double>(clock_.now_ns() - start_ns) * 1e-9;
    if (on_progress_) on_progress_(shared.progress);
  };
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int64_t due_ns = start_ns + static_cast<int64_t>(due_s[i] * 1e9);
    for (int64_t now; (now = clock_.now_ns()) < due_ns;)
      co_await net::sleep_for(net::Millis((due_ns - now + 999'999) / 1'000'000));
    while (auto ended = shared.ended.try_pop()) collect(*ended);
    while (concurrency > 0 && running >= concurrency) {
      const auto ended = co_await shared.ended.pop();
      if (!ended) co_return std::move(shared.outcomes);  // the thread is stopping
      collect(*ended);
    }
    ++running;
    // Without a rate a request is due when a place is free for it: the client's own limit is no delay of the schedule.
    const int64_t intended_ns = std::isinf(config_.request_rate) ? clock_.now_ns() : due_ns;
    net::spawn_here(one(*this, shared, prompts[i], static_cast<int>(i), intended_ns));
  }
  while (running > 0) {
    const auto ended = co_await shared.ended.pop();
    if (!ended) break;
    collect(*ended);
  }
  co_return std::move(shared.outcomes);
}

}  // namespace baton::loadgen
