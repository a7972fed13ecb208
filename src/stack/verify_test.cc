// `baton verify` against a made-up stack: a right one passes, and each flaw fails the one check that is there for it.
#include "stack/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "base/json.h"
#include "net/http.h"

namespace baton::stack {
namespace {

using Verdict = CheckResult::Verdict;

class FakeStack {
 public:
  explicit FakeStack(std::string flaw = "")
      : flaw_(std::move(flaw)), server_({}, [this]() -> net::Handler {
          return [this](net::Request& r, net::ResponseWriter& w) { return answer(r, w); };
        }) {
    BATON_CHECK(server_.start().has_value());
  }
  std::vector<CheckResult> verify() {
    VerifyConfig config;
    config.url = cat("http://127.0.0.1:", server_.port(), "/v1");
    config.prompt_words = 20;
    return run_checks(config);
  }

 private:
  bool has(std::string_view flaw) const { return flaw_ == flaw; }
  net::Task<> answer(net::Request& r, net::ResponseWriter& w) {
    if (r.path == "/health") co_return void(co_await w.send(net::Response::text(has("not ready") ? 503 : 200, "")));
    if (r.path == "/metrics") co_return void(co_await w.send(net::Response::text(has("no metrics") ? 404 : 200, "")));
    if (r.path == "/v1/models") {
      auto models = has("no model") ? R"({"data":[]})" : R"({"data":[{"id":"m"}]})";
      co_return void(co_await w.send(net::Response::json(200, models)));
    }
    co_await complete(r, w);
  }
  net::Task<> complete(net::Request& r, net::ResponseWriter& w) {
    auto body = parse_json(r.body);
    const Json* model = body ? body->find("model") : nullptr;
    const Json* max_tokens = body ? body->find("max_tokens") : nullptr;
    bool bad = model == nullptr || model->text != "m" || max_tokens == nullptr || max_tokens->as_int().value_or(0) < 0;
    if (bad) {
      auto status = has("server errors") ? 500 : 400;
      co_return void(
          co_await w.send(net::Response::json(status, has("no error object") ? "{}" : R"({"error":{"message":"no"}})")));
    }
    if (body->find("stream")->as_bool().value_or(false)) co_return co_await stream(w);
    bool again = asked_++ > 0;
    std::string said = has("wrong text") && again ? "quite another" : "once upon";
    auto cached = again && !has("no cache") ? 64 : 0;
    auto response = net::Response::json(
        200, cat(R"({"choices":[{"text":")", said, R"("}],"usage":{"prompt_tokens_details":{"cached_tokens":)", cached, "}}}"));
    if (!has("aggregated")) response.headers.set("x-baton-worker", "decode=a:1,prefill=b:2");
    if (!has("aggregated"))
      response.headers.set("x-baton-kv", has("recomputed") ? "bytes=0" : "bytes=4096,tokens=40,transport=shm");
    (void)co_await w.send(std::move(response));
  }
  net::Task<> stream(net::ResponseWriter& w) {
    (void)co_await w.begin(200, {{"content-type", "text/event-stream"}});
    for (std::string_view piece : {"once", has("garbled stream") ? " down" : " upon"})
      (void)co_await w.write(cat(R"(data: {"choices":[{"text":")", piece, "\"}]}\n\n"));
    if (!has("cut stream")) (void)co_await w.write("data: [DONE]\n\n");
    (void)co_await w.finish();
  }

  std::string flaw_;
  std::atomic<int> asked_{0};
  net::Server server_;
};

std::vector<std::string> names_of(const std::vector<CheckResult>& results, Verdict verdict) {
  std::vector<std::string> out;
  for (const auto& r : results) {
    EXPECT_EQ(r.verdict == Verdict::kOk, r.advice.empty()) << r.name;
    if (r.verdict == verdict) out.push_back(r.name);
  }
  return out;
}

TEST(Verify, ARightStackPassesEveryCheck) {
  auto results = FakeStack().verify();
  EXPECT_EQ(names_of(results, Verdict::kOk).size(), results.size());
  EXPECT_EQ(results.size(), 9u);
  auto screen = verify_screen({}, results, false);
  EXPECT_NE(screen.find("verdict: right, 9 checks passed"), std::string::npos) << screen;
  EXPECT_NE(screen.find("40 tokens over shm"), std::string::npos) << screen;
  EXPECT_LE(std::count(screen.begin(), screen.end(), '\n'), 24) << "one screen";
}

TEST(Verify, EachFlawFailsItsCheck) {
  const struct {
    const char *flaw, *check;
    Verdict verdict;
  } rows[] = {
      {"not ready", "health", Verdict::kFailed},
      {"no model", "models", Verdict::kFailed},
      {"recomputed", "KV was handed over", Verdict::kFailed},
      {"aggregated", "KV was handed over", Verdict::kNote},
      {"wrong text", "same question, same text", Verdict::kFailed},
      {"garbled stream", "streams the same text", Verdict::kFailed},
      {"cut stream", "streams the same text", Verdict::kFailed},
      {"no cache", "known prefixes are reused", Verdict::kNote},
      {"server errors", "bad requests are refused", Verdict::kFailed},
      {"no error object", "bad requests are refused", Verdict::kFailed},
      {"no metrics", "metrics", Verdict::kNote},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.flaw);
    auto results = FakeStack(row.flaw).verify();
    EXPECT_EQ(names_of(results, row.verdict), std::vector<std::string>{row.check});
    auto other = row.verdict == Verdict::kFailed ? Verdict::kNote : Verdict::kFailed;
    EXPECT_EQ(names_of(results, other), std::vector<std::string>{});
  }
}

TEST(Verify, NobodyThereIsOneClearLine) {
  int port = 0;
  {
    net::Server gone({}, [] { return net::Handler(); });
    BATON_CHECK(gone.start().has_value());
    port = gone.port();
  }
  VerifyConfig config;
  config.url = cat("http://127.0.0.1:", port);
  auto results = run_checks(config);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].verdict, Verdict::kFailed);
  config.url = "nonsense";
  EXPECT_FALSE(verify(config));
}

}  // namespace
}  // namespace baton::stack
