#pragma once
// TestEngine: a whole Engine over loopback with a FakeModel and the tiny tokenizer, and the few HTTP calls tests need.
// Ports are the kernel's choice; nothing sleeps: wait_for() polls a condition over HTTP until it holds or 20 s passed.
#include <gtest/gtest.h>

#include <semaphore>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/testing/fake_model.h"
#include "model/testing/tiny_model.h"
#include "net/http.h"

namespace baton::engine::testing {

struct Reply {
  int status = 0;
  net::Headers headers;
  std::string body;
  Json json() const {
    auto parsed = parse_json(body);
    EXPECT_TRUE(parsed.has_value()) << body;
    return parsed.value_or(Json{});
  }
  std::string error() const {
    const Json j = json();
    const Json* message = j.find_path({"error", "message"});
    return message ? message->text : "no error message in " + body;
  }
};

inline Result<Reply> call(int port, std::string method, std::string target, std::string_view body = {},
                          net::Headers headers = {}) {
  Result<Reply> out = fail(Code::kUnknown, "not run");
  if (!body.empty() && !headers.get("content-type")) headers.set("Content-Type", "application/json");
  net::run_task([&]() -> net::Task<> {
    net::Client client;
    net::Call c;
    c.host = "127.0.0.1";
    c.port = port;
    c.method = std::move(method);
    c.target = std::move(target);
    c.headers = std::move(headers);
    c.body = body;
    auto response = co_await client.fetch(std::move(c));
    if (response)
      out = Reply{response->status, std::move(response->headers), std::move(response->body)};
    else
      out = std::unexpected(response.error());
  });
  return out;
}

// The data of each server-sent event.
inline std::vector<std::string> sse(const std::string& body) {
  std::vector<std::string> out;
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find("\n\n", at);
    EXPECT_NE(end, std::string::npos) << "unfinished event";
    EXPECT_EQ(body.compare(at, 6, "data: "), 0) << body.substr(at, 40);
    out.push_back(body.substr(at + 6, end - at - 6));
    at = end == std::string::npos ? body.size() : end + 2;
  }
  return out;
}

struct TestEngine {
  explicit TestEngine(EngineConfig config = {}, int32_t vocab = 300, std::string family = "fake") {
    config.host = "127.0.0.1";
    config.port = 0;
    config.model = "/models/tiny";
    if (config.served_model_names.empty()) config.served_model_names = {"tiny"};
    if (config.num_blocks == 0) config.num_blocks = 600;
    config.log_stats = false;
    config.drain_s = 5;
    if (config.kv_load_failure_policy.empty()) config.kv_load_failure_policy = "recompute";
    auto fake = std::make_unique<FakeModel>(vocab, 4096, config.block_size);
    model = fake.get();
    model->config_.family = std::move(family);
    EngineParts parts;
    const auto tiny = model::testing::tiny_tokenizer(vocab);
    auto tokenizer = text::Tokenizer::from_hf(model::testing::tiny_tokenizer_json(tiny, "llama"),
                                              model::testing::tiny_tokenizer_config_json());
    BATON_CHECK(tokenizer.has_value());
    auto chat_template = text::ChatTemplate::compile(model::testing::tiny_chat_template());
    BATON_CHECK(chat_template.has_value());
    parts.model = std::move(fake);
    parts.tokenizer = std::move(*tokenizer);
    parts.chat_template = std::move(*chat_template);
    auto started = Engine::start_with(std::move(config), std::move(parts));
    EXPECT_TRUE(started.has_value()) << started.error().message;
    BATON_CHECK(started.has_value());
    engine = std::move(*started);
  }
  ~TestEngine() { open_gate(); }

  int port() const { return engine->port(); }
  Reply get(std::string target) { return call(port(), "GET", std::move(target)).value(); }
  Reply post(std::string target, std::string_view body, net::Headers headers = {}) {
    auto reply = call(port(), "POST", std::move(target), body, std::move(headers));
    EXPECT_TRUE(reply.has_value()) << reply.error().message;
    return reply.value_or(Reply{});
  }
  Reply complete(const std::string& fields, net::Headers headers = {}) {
    return post("/v1/completions", "{" + fields + "}", std::move(headers));
  }

  // Value of the first sample whose line starts with `sample` and holds `label`; 0 if there is none.
  double metric(std::string_view sample, std::string_view label = "") {
    const std::string text = get("/metrics").body;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view line(text.data() + at, end - at);
      at = end + 1;
      if (!line.starts_with(sample) || line.find(label) == std::string_view::npos) continue;
      const char after = line.size() > sample.size() ? line[sample.size()] : ' ';
      if (after == ' ' || after == '{') return std::atof(line.data() + line.rfind(' '));
    }
    return 0;
  }
  void expect_idle() {
    EXPECT_TRUE(wait_for([&] {
      return metric("vllm:num_requests_running") == 0 && metric("vllm:num_requests_waiting") == 0 &&
             metric("vllm:kv_cache_usage_perc") == 0;
    })) << get("/metrics").body;
  }
  template <class Condition>
  static bool wait_for(Condition condition) {
    const SteadyClock clock;
    const int64_t deadline = clock.now_ms() + 20'000;
    while (!condition()) {
      if (clock.now_ms() > deadline) return false;
    }
    return true;
  }

  // Steps wait for allow_steps() while the gate is closed. Close it before the first request.
  void close_gate() {
    gated = true;
    model->before_step = [this] {
      if (gated) gate.acquire();
    };
  }
  void allow_steps(int n) { gate.release(n); }
  void open_gate() {
    gated = false;
    gate.release(1);
  }

  std::atomic<bool> gated{false};
  std::counting_semaphore<> gate{0};
  FakeModel* model = nullptr;
  std::unique_ptr<Engine> engine;
};

}  // namespace baton::engine::testing
