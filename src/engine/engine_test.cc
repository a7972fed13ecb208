// The engine as its clients see it: HTTP in, HTTP out.
#include "engine/engine.h"

#include <future>

#include "base/log.h"
#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using testing::call;
using ::testing::HasSubstr;
using testing::Reply;
using testing::sse;
using testing::TestEngine;

std::string text_of(const Reply& reply) {
  EXPECT_EQ(reply.status, 200) << reply.body;
  const Json json = reply.json();
  const Json* choices = json.find("choices");
  if (!choices || choices->items.empty()) return "no choices";
  const Json* text = choices->items[0].find("text");
  if (!text) text = choices->items[0].find_path({"message", "content"});
  return text ? text->text : "no text";
}

const Json& choice(const Json& json, size_t i = 0) { return json.find("choices")->items.at(i); }

std::string streamed_text(const Reply& reply, std::string_view kind = "text") {
  std::string out;
  for (const std::string& event : sse(reply.body)) {
    if (event == "[DONE]") continue;
    const Json json = parse_json(event).value();
    for (const Json& c : json.find("choices")->items) {
      const Json* text = kind == "text" ? c.find("text") : c.find_path({"delta", "content"});
      if (text) out += text->text;
    }
  }
  return out;
}

constexpr const char* kGreedy = R"("prompt":"The quick brown fox","max_tokens":12,"temperature":0)";

TEST(Engine, AnswersACompletion) {
  TestEngine e;
  const Reply reply = e.complete(kGreedy);
  EXPECT_EQ(reply.status, 200);
  EXPECT_THAT(reply.body, HasSubstr(R"("object":"text_completion")"));
  EXPECT_THAT(std::string(reply.headers.get("x-baton-ttft").value_or("")), HasSubstr("prefill="));
  const Json json = reply.json();
  EXPECT_EQ(json.find("model")->text, "tiny");
  EXPECT_EQ(json.find_path({"usage", "completion_tokens"})->as_int(), 12);
  EXPECT_EQ(choice(json).find("finish_reason")->text, "length");
  EXPECT_TRUE(json.find("kv_transfer_params")->is_null());
  EXPECT_EQ(text_of(e.complete(kGreedy)), text_of(reply));  // greedy, now with a warm prefix cache
  e.expect_idle();
}

TEST(Engine, StreamsTheSameText) {
  TestEngine e;
  const std::string whole = text_of(e.complete(kGreedy));
  const Reply reply =
      e.complete(cat(kGreedy, R"(,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true})"));
  EXPECT_EQ(reply.headers.get("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_TRUE(reply.headers.get("x-baton-ttft"));
  EXPECT_EQ(streamed_text(reply), whole);
  const auto events = sse(reply.body);
  ASSERT_EQ(events.size(), 12u + 2);  // a chunk a token, usage, [DONE]
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_THAT(events[0], HasSubstr(R"("completion_tokens":1})"));
  EXPECT_THAT(events[events.size() - 2], HasSubstr(R"("choices":[],"usage":{)"));
  EXPECT_THAT(events[events.size() - 3], HasSubstr(R"("finish_reason":"length")"));
}

TEST(Engine, Chat) {
  TestEngine e;
  const std::string body =
      R"({"model":"tiny","messages":[{"role":"user","content":[{"type":"text","text":"Hi"},{"type":"text","text":"you"}]}],"max_tokens":8,"temperature":0)";
  const Reply whole = e.post("/v1/chat/completions", body + "}");
  EXPECT_THAT(whole.body, HasSubstr(R"("message":{"role":"assistant","content":)"));
  const Reply stream = e.post("/v1/chat/completions", body + R"(,"stream":true})");
  EXPECT_EQ(streamed_text(stream, "delta"), text_of(whole));
  EXPECT_THAT(sse(stream.body)[0],
              HasSubstr(R"("delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null)"));
  // Parts are joined with a newline for a template that wants strings.
  const std::string joined = R"({"messages":[{"role":"user","content":"Hi\nyou"}],"max_tokens":8,"temperature":0})";
  EXPECT_EQ(text_of(e.post("/v1/chat/completions", joined)), text_of(whole));
}

TEST(Engine, RequestIdIsTheHeaders) {
  EngineConfig config;
  config.request_id_headers = true;
  TestEngine e(config);
  const Reply reply = e.post("/v1/completions", cat("{", kGreedy, "}"), {{"X-Request-Id", "abc-1"}});
  EXPECT_EQ(reply.json().find("id")->text, "cmpl-abc-1");
  EXPECT_EQ(reply.headers.get("x-request-id"), "abc-1");
}

TEST(Engine, RefusesWithVllmsStatusAndWords) {
  TestEngine e;
  struct Case {
    const char* path;
    const char* body;
    int status;
    const char* message;
  };
  const std::string long_prompt = R"({"prompt":")" + std::string(5000, 'x') + "\"}";
  const Case cases[] = {
      {"/v1/completions", "{", 400, "JSON decode error"},
      {"/v1/completions", "[1]", 400, "Input should be a valid dictionary"},
      {"/v1/completions", R"({"prompt":"a","model":"gpt"})", 404, "The model `gpt` does not exist."},
      {"/v1/completions", R"({"prompt":"a","temperature":-1})", 400, "temperature must be non-negative, got -1."},
      {"/v1/completions", R"({"prompt":""})", 400, "The decoder prompt cannot be empty"},
      {"/v1/completions", R"({"prompt":[300]})", 400, "Token id 300 is out of vocabulary"},
      {"/v1/completions", R"({"prompt":"a","max_tokens":99999})", 400,
       "max_tokens=99999 cannot be greater than max_model_len=4096. Please request fewer output tokens."},
      {"/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}],"max_completion_tokens":4097})", 400, "max_completion_tokens=4097 cannot"},
      {"/v1/completions", R"({"prompt":"a","truncate_prompt_tokens":4097})", 400, "truncate_prompt_tokens=4097 cannot be greater than max_model_len = 4096."},
      {"/v1/completions", long_prompt.c_str(), 400,
       "This model's maximum context length is 4096 tokens. However, your prompt contains"},
      {"/v1/completions", R"({"prompt":"a","logprobs":21})", 400,
       "Requested sample logprobs of 21, which is greater than max allowed: 20"},
      {"/v1/completions", R"({"prompt":"a","logit_bias":{"300":1}})", 400, "out-of-vocab token ids. Vocabulary size: 300"},
      {"/v1/completions", R"({"prompt":"a","stop_token_ids":[300]})", 400, "token_id(s) in stop_token_ids [300] are out of vocabulary. Vocabulary size: 300"},
      {"/v1/completions", R"({"prompt":"a","guided_json":7})", 400, "valid dictionary"},
      {"/v1/chat/completions", R"({"messages":[]})", 400, "at least 1 item"},
      {"/tokenize", "{}", 400, "messages: Field required"},
      {"/detokenize", R"({"tokens":[1,300]})", 400, "out of vocabulary"},
  };
  for (const Case& c : cases) {
    const Reply reply = e.post(c.path, c.body);
    EXPECT_EQ(reply.status, c.status) << c.body;
    EXPECT_THAT(reply.error(), HasSubstr(c.message));
    EXPECT_EQ(reply.json().find_path({"error", "code"})->as_int(), c.status);
  }
  EXPECT_EQ(e.post("/v1/completions", "{}", {{"Content-Type", "text/plain"}}).status, 400);
  EXPECT_EQ(e.post("/v1/completions", "{}", {{"Content-Type", "application/json-patch+json"}}).status, 400);
  EXPECT_EQ(e.post("/tokenize", R"({"prompt":"a"})", {{"Content-Type", "Application/JSON; charset=utf-8"}}).status, 200);
  EXPECT_EQ(e.get("/v1/nothing").status, 404);
  EXPECT_EQ(e.get("/v1/completions").status, 405);
  EXPECT_EQ(e.get("/v1/completions").json().find_path({"error", "type"})->text, "Method Not Allowed");
  EXPECT_EQ(e.model->tokens, 0);
  EXPECT_EQ(e.complete(kGreedy).status, 200);
}

// As vLLM has it: an answer ends where the context does, and only what no prompt makes possible is refused.
TEST(Engine, MoreTokensThanThereIsRoomForIsNoError) {
  TestEngine e;
  const std::string prompt(4000, 'x');
  const Json json = e.complete(cat(R"("prompt":")", prompt, R"(","max_tokens":4096,"temperature":0,"ignore_eos":true)")).json();
  const int64_t read = *json.find_path({"usage", "prompt_tokens"})->as_int();
  EXPECT_EQ(json.find_path({"usage", "total_tokens"})->as_int(), 4096) << read;
  EXPECT_EQ(choice(json).find("finish_reason")->text, "length");
  e.expect_idle();
}

TEST(Engine, PagesOfOtherOriginsCallOnlyWhereTheyMay) {
  TestEngine closed;
  const net::Headers asks{{"Origin", "http://a"}, {"Access-Control-Request-Method", "POST"}, {"Access-Control-Request-Headers", "x-b"}};
  EXPECT_EQ(call(closed.port(), "OPTIONS", "/v1/completions", {}, asks)->status, 400);
  EXPECT_FALSE(call(closed.port(), "GET", "/v1/models", {}, asks)->headers.get("access-control-allow-origin"));
  EngineConfig config;
  config.allowed_origins = {"http://a"};
  config.api_keys = {"k"};  // a browser asks first without one
  TestEngine e(config);
  const Reply may = *call(e.port(), "OPTIONS", "/v1/completions", {}, asks);
  EXPECT_EQ(may.status, 200);
  EXPECT_EQ(may.headers.get("access-control-allow-origin"), "http://a");
  EXPECT_EQ(may.headers.get("access-control-allow-headers"), "x-b");
  EXPECT_EQ(call(e.port(), "GET", "/health", {}, asks)->headers.get("access-control-allow-origin"), "http://a");
  const net::Headers other{{"Origin", "http://b"}, {"Access-Control-Request-Method", "POST"}};
  EXPECT_EQ(call(e.port(), "OPTIONS", "/v1/completions", {}, other)->body, "Disallowed CORS origin");
  EXPECT_FALSE(call(e.port(), "GET", "/health", {}, other)->headers.get("access-control-allow-origin"));
}

TEST(Engine, ServerDefaultsOfFlags) {
  EngineConfig config;
  config.force_include_usage = config.return_tokens_as_token_ids = config.request_id_headers = true;
  config.generation.max_new_tokens = 4;
  config.generation.temperature = 0;
  config.template_kwargs = parse_json(R"({"k":"z"})").value();
  config.fingerprint_mode = "custom";
  config.fingerprint_value = "who";
  TestEngine e(config);
  const Reply stream = e.complete(R"("prompt":"abc","max_tokens":9,"logprobs":0,"stream":true,"ignore_eos":true)");
  EXPECT_EQ(sse(stream.body).size(), 4u + 2);
  EXPECT_THAT(stream.body, HasSubstr("\"tokens\":[\"token_id:"));
  EXPECT_THAT(stream.body, HasSubstr(R"("completion_tokens":4},"system_fingerprint":"who"})"));
  const auto chat = [&](const char* more) {
    return text_of(e.post("/v1/chat/completions", cat(R"({"messages":[{"role":"user","content":"a"}],"chat_template":"{{ k }}x")", more, "}")));
  };
  EXPECT_EQ(chat(""), chat(R"(,"chat_template_kwargs":{"k":"z"})"));
  EXPECT_NE(chat(""), chat(R"(,"chat_template_kwargs":{"k":"y"})"));
  EXPECT_TRUE(e.get("/v1/models").headers.get("x-request-id"));
  EXPECT_EQ(e.metric("http_requests_total", "/v1/chat/completions"), 4);
}

TEST(Engine, SmallEndpoints) {
  EngineConfig config;
  config.served_model_names = {"tiny", "alias"};
  config.load_tracking = true;
  config.dev_mode = true;
  TestEngine e(config);
  EXPECT_EQ(e.get("/health").status, 200);
  EXPECT_EQ(e.get("/health").body, "");
  EXPECT_EQ(e.post("/ping", "").status, 200);
  EXPECT_THAT(e.get("/version").body, HasSubstr(R"({"version":")"));
  EXPECT_EQ(e.get("/load").body, R"({"server_load":1})");
  const Json models = e.get("/v1/models").json();
  ASSERT_EQ(models.find("data")->items.size(), 2u);
  EXPECT_EQ(models.find("data")->items[1].find("id")->text, "alias");
  EXPECT_EQ(models.find("data")->items[0].find("root")->text, "/models/tiny");
  EXPECT_EQ(e.get("/v1/models/alias").json().find("id")->text, "alias");
  EXPECT_EQ(e.get("/v1/models/%61lias").json().find("id")->text, "alias");
  EXPECT_EQ(e.get("/v1/models/none%2").status, 404);
  EXPECT_EQ(e.complete(cat(kGreedy, R"(,"model":"alias")")).json().find("model")->text, "tiny");
  const Json tokens = e.post("/tokenize", R"({"prompt":"hello world","return_token_strs":true})").json();
  EXPECT_EQ(tokens.find("count")->as_int(), static_cast<int64_t>(tokens.find("tokens")->items.size()));
  EXPECT_EQ(tokens.find("token_strs")->items.size(), tokens.find("tokens")->items.size());
  std::string ids;
  for (const Json& id : tokens.find("tokens")->items) ids += (ids.empty() ? "" : ",") + id.text;
  EXPECT_EQ(e.post("/detokenize", cat("{\"tokens\":[", ids, "]}")).json().find("prompt")->text, "hello world");
  EXPECT_EQ(e.post("/tokenize", R"({"messages":[{"role":"user","content":"x"}]})").status, 200);
  EXPECT_EQ(e.post("/reset_prefix_cache", "").body, R"({"success":true})");
}

TEST(Engine, ApiKeyGuardsV1Only) {
  EngineConfig config;
  config.api_keys = {"k1", "secret"};
  TestEngine e(config);
  const Reply refused = e.get("/v1/models");
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.body, R"({"error":"Unauthorized"})");
  for (const char* bad : {"Bearer secre", "Bearer secretx", "secret", "Bearer "}) {
    EXPECT_EQ(call(e.port(), "GET", "/v1/models", {}, {{"Authorization", bad}})->status, 401) << bad;
  }
  EXPECT_EQ(call(e.port(), "GET", "/v1/models", {}, {{"Authorization", "Bearer secret"}})->status, 200);
  EXPECT_EQ(call(e.port(), "GET", "/v1/models", {}, {{"Authorization", "bearer secret"}})->status, 200);
  EXPECT_EQ(e.get("/health").status, 200);
  EXPECT_EQ(e.get("/metrics").status, 200);
}

TEST(Engine, MetricsArePresentAtIdle) {
  TestEngine e;
  const std::string text = e.get("/metrics").body;
  for (const char* line :
       {"vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 0",
        "vllm:num_requests_waiting{engine=\"0\",model_name=\"tiny\"} 0", "vllm:kv_cache_usage_perc{",
        "vllm:cache_config_info{block_size=\"16\",cache_dtype=\"auto\"", "num_gpu_blocks=\"601\"",
        "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\"", "vllm:prefix_cache_hits_total{",
        "vllm:prompt_tokens_total{", "vllm:time_to_first_token_seconds_bucket{", "le=\"0.001\"",
        "vllm:inter_token_latency_seconds_count{", "vllm:num_preemptions_total{",
        "vllm:prompt_tokens_by_source_total{engine=\"0\",model_name=\"tiny\",source=\"external_kv_transfer\"} 0",
        "vllm:num_requests_waiting_by_reason{engine=\"0\",model_name=\"tiny\",reason=\"deferred\"} 0",
        "vllm:iteration_tokens_total_bucket{"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  e.complete(kGreedy);
  EXPECT_EQ(e.metric("vllm:generation_tokens_total"), 12);
  EXPECT_EQ(e.metric("vllm:request_success_total", "\"length\""), 1);
  EXPECT_EQ(e.metric("vllm:time_to_first_token_seconds_count"), 1);
}

TEST(Engine, StopStringAcrossTokens) {
  TestEngine e;
  const Json reference = e.complete(R"("prompt":"abc","max_tokens":60,"temperature":0,"return_token_ids":true)").json();
  const std::string text = choice(reference).find("text")->text;
  // A stop string from the middle: several bytes, so it ends inside some token or spans two.
  size_t at = text.size() / 2;
  while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
  size_t end = std::min(at + 5, text.size());
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  const std::string stop = text.substr(at, end - at);
  const std::string fields = cat(R"("prompt":"abc","max_tokens":60,"temperature":0,"stop":[)", json_string(stop), "]");
  const std::string want = text.substr(0, text.find(stop));
  const Reply whole = e.complete(fields);
  EXPECT_EQ(text_of(whole), want);
  EXPECT_EQ(choice(whole.json()).find("finish_reason")->text, "stop");
  EXPECT_EQ(choice(whole.json()).find("stop_reason")->text, stop);
  EXPECT_EQ(text_of(e.complete(fields + R"(,"include_stop_str_in_output":true)")), want + stop);
  const Reply stream = e.complete(fields + R"(,"stream":true)");
  EXPECT_EQ(streamed_text(stream), want);
  EXPECT_THAT(stream.body, HasSubstr(R"("finish_reason":"stop")"));
  e.expect_idle();
}

TEST(Engine, ManyPromptsManyChoices) {
  TestEngine e;
  const Json json = e.complete(R"("prompt":["one","two"],"n":3,"max_tokens":5,"temperature":1,"seed":4)").json();
  ASSERT_EQ(json.find("choices")->items.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(choice(json, i).find("index")->as_int(), static_cast<int64_t>(i));
  EXPECT_EQ(json.find_path({"usage", "completion_tokens"})->as_int(), 30);
  // Sequence k of a prompt draws with seed + k, whatever stands beside it.
  const Json single = e.complete(R"("prompt":"two","max_tokens":5,"temperature":1,"seed":6)").json();
  EXPECT_EQ(choice(json, 5).find("text")->text, choice(single).find("text")->text);
}

TEST(Engine, LogprobsAndEcho) {
  TestEngine e;
  // lm-evaluation-harness: token ids in, echo, one logprob, nothing generated that counts.
  const Json json =
      e.complete(R"("prompt":[[10,20,30,40],[11,21]],"max_tokens":1,"temperature":0,"logprobs":1,"echo":true,"seed":1234)")
          .json();
  for (size_t i = 0; i < 2; ++i) {
    const Json* logprobs = choice(json, i).find("logprobs");
    const size_t rows = i == 0 ? 5 : 3;
    EXPECT_EQ(logprobs->find("tokens")->items.size(), rows);
    EXPECT_EQ(logprobs->find("text_offset")->items.size(), rows);
    EXPECT_TRUE(logprobs->find("token_logprobs")->items[0].is_null());
    EXPECT_TRUE(logprobs->find("top_logprobs")->items[0].is_null());
    const double last = *logprobs->find("token_logprobs")->items.back().as_double();
    EXPECT_EQ(last, *logprobs->find("top_logprobs")->items.back().items[0].as_double());  // greedy: the best is the sampled one
  }
  const Json only = e.complete(R"("prompt":"hello","max_tokens":0,"temperature":0,"echo":true)").json();
  EXPECT_EQ(choice(only).find("text")->text, "hello");
  EXPECT_EQ(choice(only).find("finish_reason")->text, "length");
  const Reply chat =
      e.post("/v1/chat/completions",
             R"({"messages":[{"role":"user","content":"x"}],"max_tokens":3,"temperature":0,"logprobs":true,"top_logprobs":2})");
  const Json scored = chat.json();
  const Json* content = choice(scored).find_path({"logprobs", "content"});
  ASSERT_EQ(content->items.size(), 3u);
  EXPECT_EQ(content->items[0].find("top_logprobs")->items.size(), 2u);
}

TEST(Engine, ConcurrentRequestsAnswerAsAlone) {
  EngineConfig tiny_pool;
  tiny_pool.num_blocks = 80;
  tiny_pool.max_model_len = 600;
  tiny_pool.io_threads = 2;
  TestEngine busy(tiny_pool), quiet;
  std::vector<std::string> bodies;
  for (int i = 0; i < 32; ++i) {
    const std::string prompt(static_cast<size_t>(20 + 13 * i), static_cast<char>('a' + i % 7));
    bodies.push_back(cat(R"({"prompt":")", prompt, R"(","max_tokens":)", 10 + i,
                         i % 2 ? R"(,"temperature":0)" : R"(,"temperature":0.9,"seed":3)", i % 3 ? R"(,"stream":true})" : "}"));
  }
  std::vector<std::future<Reply>> replies;
  for (const std::string& body : bodies) {
    replies.push_back(std::async(std::launch::async, [&busy, &body] { return busy.post("/v1/completions", body); }));
  }
  for (size_t i = 0; i < bodies.size(); ++i) {
    const Reply got = replies[i].get(), want = quiet.post("/v1/completions", bodies[i]);
    ASSERT_EQ(got.status, 200) << got.body;
    EXPECT_EQ(i % 3 ? streamed_text(got) : text_of(got), i % 3 ? streamed_text(want) : text_of(want)) << "request " << i;
  }
  busy.expect_idle();
}

TEST(Engine, AClientThatLeavesFreesItsBlocks) {
  for (const bool stream : {true, false}) {
    TestEngine e;
    e.close_gate();
    const std::string body = cat(R"({"prompt":"abc","max_tokens":3000,"ignore_eos":true,"temperature":0,"stream":)", stream, "}");
    net::run_task([&]() -> net::Task<> {
      net::Client client;
      net::Cancel cancel;
      net::Call c;
      c.host = "127.0.0.1";
      c.port = e.port();
      c.method = "POST";
      c.target = "/v1/completions";
      c.headers.set("Content-Type", "application/json");
      c.body = body;
      c.cancel = &cancel;
      e.allow_steps(3);
      if (stream) {
        auto response = co_await client.open(std::move(c));
        EXPECT_TRUE(response.has_value());
        auto bytes = co_await (*response)->read();
        EXPECT_TRUE(bytes.has_value());
      } else {
        c.first_byte_timeout = net::Millis(50);  // gives up while the answer is being computed
        auto response = co_await client.open(std::move(c));
        EXPECT_FALSE(response.has_value());
      }
    });
    EXPECT_TRUE(TestEngine::wait_for([&] {
      e.allow_steps(1);
      return e.metric("vllm:request_success_total", "\"abort\"") == 1;
    }));
    e.open_gate();
    e.expect_idle();
    EXPECT_LT(e.model->tokens, 3000);
  }
}

TEST(Engine, AFailedStepIsA500AndTheNextRequestWorks) {
  TestEngine e;
  log_setup("engine_test", LogLevel::kOff);
  e.model->fail_next = true;
  const Reply reply = e.complete(kGreedy);
  EXPECT_EQ(reply.status, 500);
  EXPECT_EQ(reply.json().find_path({"error", "type"})->text, "InternalServerError");
  EXPECT_EQ(e.complete(kGreedy).status, 200);
  EXPECT_EQ(e.get("/health").status, 200);
}

TEST(Engine, AFailureInTheMiddleOfAStreamIsAnEvent) {
  TestEngine e;
  log_setup("engine_test", LogLevel::kOff);
  e.close_gate();
  auto reply = std::async(std::launch::async,
                          [&] { return e.complete(R"("prompt":"abc","max_tokens":50,"temperature":0,"stream":true)"); });
  e.allow_steps(4);
  EXPECT_TRUE(TestEngine::wait_for([&] { return e.model->steps == 4; }));
  e.model->fail_next = true;
  e.open_gate();
  const auto events = sse(reply.get().body);
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_THAT(events[events.size() - 2], HasSubstr(R"({"error":{"message":"model step failed)"));
}

TEST(Engine, MalformedBodiesNeverDisturbIt) {
  TestEngine e;
  const std::string seed_body =
      R"({"model":"tiny","prompt":["ab",[1,2]],"max_tokens":2,"temperature":0.5,"top_p":0.9,"stop":["x"],"logit_bias":{"5":1},"stream":false,)"
      R"("kv_transfer_params":{"do_remote_prefill":true,"remote_block_ids":[[1]],"x_kv":{"v":1}}})";
  for (uint64_t seed = 1; seed <= 1500; ++seed) {
    Prng prng(seed);
    std::string body = seed_body;
    for (int64_t edits = prng.between(1, 4); edits > 0; --edits) {
      const size_t at = prng.below(body.size());
      switch (prng.below(4)) {
        case 0:
          body[at] = static_cast<char>(prng.below(256));
          break;
        case 1:
          body.erase(at, prng.below(8));
          break;
        case 2:
          body.insert(at, body.substr(prng.below(body.size()), prng.below(12)));
          break;
        case 3:
          body.insert(at, std::string(prng.below(3), "[{\"\\0-9e"[prng.below(9)]));
          break;
      }
      if (body.empty()) body = "{";
    }
    const auto reply = call(e.port(), "POST", prng.chance(0.5) ? "/v1/completions" : "/v1/chat/completions", body);
    ASSERT_TRUE(reply.has_value()) << "seed " << seed << ": " << reply.error().message;
    const int status = reply->status;
    EXPECT_TRUE(status == 200 || status == 400 || status == 404 || status == 501)
        << "seed " << seed << " status " << status << " " << body;
  }
  EXPECT_EQ(e.complete(kGreedy).status, 200);
  e.expect_idle();
}

}  // namespace
}  // namespace baton::engine
