#include "stack/verify.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "stack/asker.h"
#include "stack/faults.h"
#include "stack/status.h"
#include "wire/headers.h"

namespace baton::stack {

Options verify_options(VerifyConfig& c) {
  Options o("baton verify", "ask a running stack a few questions and say whether it is right", "baton verify [URL]");
  o.add("url", &c.url, "where it listens").env("BATON_URL");
  o.add("model", &c.model, "model name; empty = the server's first");
  o.add("api-key", &c.api_key, "bearer token").env("OPENAI_API_KEY");
  o.add("prompt-words", &c.prompt_words, "words", "length of the prompt that is to be handed over", 1, 100'000);
  o.add("timeout", &c.timeout_s, "s", "for each request", 1, 3600);
  o.add("faults", &c.faults_s, "s",
        "of a stack that `baton up` runs on this machine: kill and freeze its workers for so long while it answers; 0 = leave them",
        0, 3600);
  o.add("state-dir", &c.state_dir, "as given to `baton up`; empty = ~/.local/state/baton").env("BATON_STATE_DIR");
  return o;
}

namespace {

using Verdict = CheckResult::Verdict;

constexpr int kAnswerTokens = 16;

struct Outcome {
  Verdict verdict = Verdict::kOk;
  std::string detail = {}, advice = {};
};
Outcome failed(std::string detail, std::string advice) { return {Verdict::kFailed, std::move(detail), std::move(advice)}; }

class Verifier {
 public:
  Verifier(const VerifyConfig& config, Url url)
      : config_(config), url_(std::move(url)), asker_(config, url_), prompt_(fresh_prompt(config.prompt_words)) {}
  net::Task<std::vector<CheckResult>> run();

 private:
  struct Row {
    const char* name;
    net::Task<Outcome> (Verifier::*check)();
    bool needed;  // nothing after it makes sense if it fails
  };
  static const Row kRows[];
  net::Task<Outcome> health();
  net::Task<Outcome> models();
  net::Task<Outcome> answers();
  net::Task<Outcome> hand_over();
  net::Task<Outcome> same_again();
  net::Task<Outcome> streaming();
  net::Task<Outcome> cached_prefix();
  net::Task<Outcome> bad_input();
  net::Task<Outcome> metrics();

  const VerifyConfig& config_;
  Url url_;
  Asker asker_;
  std::string prompt_, text_, worker_, kv_;
  int64_t cached_ = -1;  // of the second time; -1 = not reported
  SteadyClock clock_;
};

// One check a row, in order.
const Verifier::Row Verifier::kRows[] = {
    {"health", &Verifier::health, true},
    {"models", &Verifier::models, true},
    {"answers a long prompt", &Verifier::answers, true},
    {"KV was handed over", &Verifier::hand_over, false},
    {"same question, same text", &Verifier::same_again, false},
    {"streams the same text", &Verifier::streaming, false},
    {"known prefixes are reused", &Verifier::cached_prefix, false},
    {"bad requests are refused", &Verifier::bad_input, false},
    {"metrics", &Verifier::metrics, false},
};

net::Task<std::vector<CheckResult>> Verifier::run() {
  std::vector<CheckResult> out;
  for (const Row& row : kRows) {
    Outcome o = co_await (this->*row.check)();
    out.push_back({.verdict = o.verdict, .name = row.name, .detail = std::move(o.detail), .advice = std::move(o.advice)});
    if (row.needed && o.verdict == Verdict::kFailed) co_return out;
  }
  if (config_.faults_s > 0) {
    for (CheckResult& r : co_await survive_faults(config_, url_, asker_)) out.push_back(std::move(r));
  }
  co_return out;
}

// --- the checks

net::Task<Outcome> Verifier::health() {
  auto r = co_await asker_.get("/health");
  if (!r) co_return failed(r.error().message, cat("is the stack running, and is ", config_.url, " its address?  baton up"));
  if (r->status != 200) co_return failed(cat("HTTP ", r->status), "no worker is ready: the log of each says what it waits for");
  co_return Outcome{};
}

net::Task<Outcome> Verifier::models() {
  auto r = co_await asker_.get("/v1/models");
  if (!r) co_return failed(r.error().message, "/v1/models does not answer");
  if (r->status == 401 || r->status == 403)
    co_return failed(cat("HTTP ", r->status), "give the key: --api-key, or OPENAI_API_KEY");
  auto j = parse_json(r->body);
  const Json* data = j ? j->find("data") : nullptr;
  std::string names;
  bool there = asker_.model().empty();
  for (size_t i = 0; data != nullptr && i < data->items.size(); ++i) {
    const Json* id = data->items[i].find("id");
    if (id == nullptr) continue;
    if (asker_.model().empty()) asker_.use_model(id->text);
    there = there || id->text == asker_.model();
    names += cat(names.empty() ? "" : ", ", id->text);
  }
  if (names.empty())
    co_return failed(cat("HTTP ", r->status, ", no model"), "no engine behind it is ready, or it is no OpenAI server");
  if (!there) co_return failed(names, cat("there is no model '", asker_.model(), "': choose one of these with --model"));
  co_return Outcome{.detail = names};
}

net::Task<Outcome> Verifier::answers() {
  auto began = clock_.now_ms();
  auto r = co_await asker_.complete(prompt_, kAnswerTokens);
  if (!r)
    co_return failed(r.error().message, "a worker took the request and never answered: its log, and --timeout for a slow one");
  if (r->status != 200)
    co_return failed(cat("HTTP ", r->status, ": ", r->body.substr(0, 120)), "the error names the part; too long? --prompt-words");
  text_ = text_of(r->body);
  worker_ = r->headers.get(wire::kWorker).value_or("");
  kv_ = r->headers.get(wire::kKv).value_or("");
  if (text_.empty()) co_return failed("an empty text", "the model said nothing to a greedy request: are its weights complete?");
  co_return Outcome{.detail = cat(clock_.now_ms() - began, " ms", worker_.empty() ? "" : cat(", ", worker_))};
}

net::Task<Outcome> Verifier::hand_over() {
  auto bytes = std::atoll(field_of(kv_, "bytes").c_str());
  if (bytes > 0)
    co_return Outcome{.detail =
                          cat(bytes / 1024, " KiB, ", field_of(kv_, "tokens"), " tokens over ", field_of(kv_, "transport"))};
  if (field_of(worker_, "prefill").empty()) {
    co_return Outcome{
        Verdict::kNote, "no prefill worker took part",
        "right for an aggregated stack, or where the decider found it dearer; else: are prefill workers up, and labelled?"};
  }
  if (kv_.empty()) {
    co_return Outcome{Verdict::kNote, "prefilled elsewhere, but the engine does not say what it took",
                      "engines that are not Baton's do not: look at vllm:nixl_bytes_transferred on the decode worker"};
  }
  co_return failed(
      "prefilled elsewhere, and computed again by decode",
      "kv_fallback_total on the decode engine has the reason; 'kv peer' lines of both logs say whether they are connected");
}

net::Task<Outcome> Verifier::same_again() {
  auto r = co_await asker_.complete(prompt_, kAnswerTokens);
  if (!r || r->status != 200)
    co_return failed(r ? cat("HTTP ", r->status) : r.error().message, "it answered once and not again: the logs");
  auto j = parse_json(r->body);
  const Json* cached = j ? j->find_path({"usage", "prompt_tokens_details", "cached_tokens"}) : nullptr;
  if (cached != nullptr) cached_ = cached->as_int().value_or(-1);
  if (text_of(r->body) != text_)
    co_return failed(cat("\"", text_of(r->body), "\" instead of \"", text_, "\""),
                     "wrong KV, or engines of different weights or numerics: ask each worker directly and compare");
  co_return Outcome{};
}

net::Task<Outcome> Verifier::streaming() {
  auto s = co_await asker_.stream(prompt_, kAnswerTokens);
  if (!s && s.error().code == Code::kInternal) co_return failed(s.error().message, "these are no server-sent events");
  if (!s)
    co_return failed(cat("broken off: ", s.error().message), "a worker died or a proxy cut in; baton-router would go on elsewhere");
  if (s->status != 200) co_return failed(cat("HTTP ", s->status), "it answers whole, but does not stream: the logs");
  if (s->events < 2 || !s->done) co_return failed(cat(s->events, " events and no [DONE]"), "a proxy between buffers or cuts");
  if (s->text != text_)
    co_return failed(cat("\"", s->text, "\""), "the streamed text differs from the whole one: report this, with the logs");
  co_return Outcome{.detail = cat(s->events, " events")};
}

net::Task<Outcome> Verifier::cached_prefix() {
  if (cached_ > 0) co_return Outcome{.detail = cat(cached_, " tokens of the second asking")};
  if (cached_ < 0)
    co_return Outcome{Verdict::kNote, "the engine does not report cached_tokens",
                      "--enable-prompt-tokens-details on the engines"};
  co_return Outcome{Verdict::kNote, "nothing was cached",
                    "--enable-prefix-caching on the engines, a picker that scores prefixes, and a prompt longer than a block"};
}

net::Task<Outcome> Verifier::bad_input() {
  JsonWriter other, negative;
  other.object().field("model", "no-such-model").field("prompt", "x").end();
  negative.object().field("model", asker_.model()).field("prompt", "x").field("max_tokens", -1).end();
  const std::pair<const char*, std::string> bad[] = {
      {"no JSON", "{"}, {"an unknown model", other.take()}, {"a negative max_tokens", negative.take()}, {"no prompt", "{}"}};
  for (const auto& [what, text] : bad) {
    auto r = co_await asker_.post("/v1/completions", text);
    if (!r) co_return failed(cat(what, ": ", r.error().message), "bad input must not cost a connection: which part closed it?");
    if (r->status / 100 != 4)
      co_return failed(cat(what, ": HTTP ", r->status), "clients retry what is no 4xx: which part answered?");
    auto j = parse_json(r->body);
    if (!j || j->find("error") == nullptr)
      co_return failed(cat(what, ": no error object"), "OpenAI clients expect {\"error\": {...}}");
  }
  co_return Outcome{.detail = cat(std::size(bad), " of ", std::size(bad))};
}

net::Task<Outcome> Verifier::metrics() {
  auto r = co_await asker_.get("/metrics");
  if (!r || r->status != 200)
    co_return Outcome{Verdict::kNote, r ? cat("HTTP ", r->status) : r.error().message,
                      "/metrics is elsewhere; for Envoy, at the router's port 9090"};
  auto up = endpoints_up(r->body);
  co_return Outcome{.detail = up > 0 ? cat(up, " workers up") : ""};
}

}  // namespace

std::vector<CheckResult> run_checks(const VerifyConfig& config) {
  auto url = parse_url(config.url);
  if (!url) return {};
  while (url->path.ends_with('/')) url->path.pop_back();
  if (url->path == "/v1") url->path.clear();
  std::vector<CheckResult> out;
  net::run_task([&]() -> net::Task<> {
    Verifier verifier(config, *url);
    out = co_await verifier.run();
  });
  return out;
}

std::string verify_screen(const VerifyConfig& config, const std::vector<CheckResult>& results, bool color) {
  return checks_screen(cat("baton verify ", config.url), results, color);
}

Result<> verify(const VerifyConfig& config) {
  BATON_TRY(Url url, parse_url(config.url));
  (void)url;
  auto results = run_checks(config);
  std::fputs(verify_screen(config, results, isatty(1) == 1).c_str(), stdout);
  std::fflush(stdout);
  if (const CheckResult* wrong = first_failure(results)) return fail(Code::kFailedPrecondition, wrong->name, ": ", wrong->detail);
  return {};
}

}  // namespace baton::stack
