// Prefill and decode on two engines of one process, over HTTP and the real transfer node: shm and tcp.
#include <gtest/gtest.h>

#include <cmath>

#include "base/log.h"
#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using testing::Reply;
using testing::sse;
using testing::TestEngine;

EngineConfig worker(const std::string& transport, std::vector<std::string> peers = {}, int block_tokens = 16) {
  log_setup("engine_test", LogLevel::kError);
  EngineConfig config;
  config.kv_transfer = true;
  config.kv_port = 0;
  config.kv_transport = transport;
  config.kv_peers = std::move(peers);
  config.kv_lease_s = 60;
  config.block_size = block_tokens;
  return config;
}

struct Pair {
  explicit Pair(const std::string& transport, int prefill_block_tokens = 16)
      : prefill(worker(transport, {}, prefill_block_tokens)),
        decode(worker(transport, {cat("127.0.0.1:", prefill.engine->kv_port())})) {
    EXPECT_TRUE(TestEngine::wait_for([&] { return decode.metric("kv_peer_state") == 1; })) << "the peers did not connect";
  }

  // What the sidecar does: the same body with one token to the prefill worker, then the original with its params.
  std::string params_for(const std::string& fields, int tail = 0) {
    const net::Headers headers = tail > 0 ? net::Headers{{"X-Baton-Decode-Tail-Tokens", std::to_string(tail)}} : net::Headers{};
    const Reply leg = prefill.complete(
        cat(R"("max_tokens":1,"max_completion_tokens":1,"min_tokens":1,"stream":false,)"
            R"("kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,)"
            R"("remote_host":null,"remote_port":null},)",
            fields),
        headers);
    EXPECT_EQ(leg.status, 200) << leg.body;
    const Json json = leg.json();
    const Json* params = json.find("kv_transfer_params");
    EXPECT_TRUE(params && params->is_object()) << leg.body;
    return std::string(params->raw(leg.body));
  }
  static std::string with(const std::string& fields, const std::string& more, const std::string& params) {
    return cat(fields, more, params.empty() ? "" : R"(,"kv_transfer_params":)", params);
  }
  double computed() const { return static_cast<double>(decode.model->tokens); }
  double fallback(std::string_view reason) { return decode.metric("kv_fallback_total", reason); }
  void expect_clean() {
    prefill.expect_idle();
    decode.expect_idle();
  }

  TestEngine prefill, decode;
};

std::string prompt_fields(size_t length) {
  std::string text;
  Prng prng(length);
  while (text.size() < length) text += static_cast<char>('a' + prng.below(26));
  return cat(R"("prompt":")", text, "\"");
}

std::string text_of(const Reply& reply) {
  EXPECT_EQ(reply.status, 200) << reply.body;
  const Json json = reply.json();
  return json.find("choices")->items[0].find("text")->text;
}

// Engines read kv_transfer_params of their own sidecars alone: with a token from those that show it, with none from nobody.
TEST(HandOverTrust, ParamsOfStrangersAreNotRead) {
  auto trusting = [](std::vector<std::string> peers = {}) {
    auto config = worker("shm", std::move(peers));
    config.kv_params_trust = "token";
    config.kv_params_token = "let me in";
    return config;
  };
  TestEngine prefill(trusting()), decode(trusting({cat("127.0.0.1:", prefill.engine->kv_port())}));
  EXPECT_TRUE(TestEngine::wait_for([&] { return decode.metric("kv_peer_state") == 1; }));
  const std::string fields = cat("{", prompt_fields(300), R"(,"max_tokens":5,"temperature":0,"ignore_eos":true)");
  const std::string ask = cat(fields, R"(,"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false}})");
  const auto params_of = [](const Reply& reply) {
    EXPECT_EQ(reply.status, 200) << reply.body;
    const Json json = reply.json();
    const Json* params = json.find("kv_transfer_params");
    return params != nullptr && params->is_object() ? std::string(params->raw(reply.body)) : "";
  };
  EXPECT_EQ(params_of(prefill.post("/v1/completions", ask)), "");
  EXPECT_EQ(params_of(prefill.post("/v1/completions", ask, {{"x-baton-kv-token", "let me inn"}})), "");
  EXPECT_EQ(prefill.metric("kv_fallback_total", "untrusted"), 2);
  const std::string params = params_of(prefill.post("/v1/completions", ask, {{"x-baton-kv-token", "let me in"}}));
  ASSERT_NE(params, "");
  EXPECT_TRUE(TestEngine::wait_for([&] { return prefill.metric("kv_grants", "offered") == 1; }));  // counted a moment after

  const std::string take = cat(fields, R"(,"kv_transfer_params":)", params, "}");
  const std::string want = text_of(decode.post("/v1/completions", fields + "}"));
  EXPECT_EQ(text_of(decode.post("/v1/completions", take)), want);
  EXPECT_EQ(decode.metric("kv_fallback_total", "untrusted"), 1);
  EXPECT_EQ(prefill.metric("kv_grants", "offered"), 1) << "a stranger cannot end the grant either";
  EXPECT_EQ(text_of(decode.post("/v1/completions", take, {{"x-baton-kv-token", "let me in"}})), want);
  prefill.expect_idle();
  EXPECT_EQ(decode.metric("kv_fallback_total", "untrusted"), 1);

  auto deaf = worker("shm");
  deaf.kv_params_trust = "none";
  TestEngine nobody(deaf);
  EXPECT_EQ(params_of(nobody.post("/v1/completions", ask, {{"x-baton-kv-token", "let me in"}})), "");
}

class HandOverOver : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Transports, HandOverOver, ::testing::Values("shm", "tcp"));

TEST_P(HandOverOver, DecodeComputesNoPromptTokenAndSaysTheSame) {
  Pair pair(GetParam());
  TestEngine aggregated;
  for (size_t length : {1, 15, 16, 17, 300, 1500}) {
    SCOPED_TRACE(::testing::Message() << length << " bytes of prompt");
    const std::string fields = prompt_fields(length), more = R"(,"max_tokens":9,"temperature":0,"ignore_eos":true)";
    const std::string want = text_of(aggregated.complete(fields + more));
    const double before = pair.computed();
    const std::string params = pair.params_for(fields + R"(,"temperature":0,"ignore_eos":true)");
    const Reply reply = pair.decode.complete(Pair::with(fields, more, params));
    EXPECT_EQ(text_of(reply), want);
    EXPECT_EQ(pair.computed() - before, 8);  // nine tokens, the first came along, the last is not fed back
    EXPECT_THAT(std::string(reply.headers.get("x-baton-ttft").value_or("")), ::testing::HasSubstr("first_step="));
  }
  EXPECT_EQ(pair.decode.metric("vllm:prompt_tokens_by_source_total", "local_compute"), 0);
  pair.expect_clean();
}

// The picker splits a prompt: the prefill worker computes its front, in whole blocks, the decode worker the rest.
TEST_P(HandOverOver, TheTailIsComputedWhereTheAnswerIs) {
  Pair pair(GetParam());
  TestEngine aggregated;
  const auto prefilled = [&] { return static_cast<double>(pair.prefill.model->tokens); };
  for (const auto& [length, tail] :
       std::vector<std::pair<size_t, int>>{{700, 100}, {701, 1}, {702, 650}, {30, 29}, {703, 100'000}}) {
    SCOPED_TRACE(::testing::Message() << length << " bytes, tail of " << tail);
    const std::string fields = prompt_fields(length), more = R"(,"max_tokens":9,"temperature":0,"ignore_eos":true)";
    const Reply alone = aggregated.complete(fields + more);
    const auto prompt = static_cast<double>(*alone.json().find_path({"usage", "prompt_tokens"})->as_int());
    const double front = std::floor(std::max(0.0, prompt - tail) / 16) * 16;
    const double mine = front > 0 ? front : prompt;  // a tail that leaves no block is not cut off
    const double before = pair.computed(), prefill_before = prefilled();
    const std::string params = pair.params_for(fields + R"(,"temperature":0,"ignore_eos":true)", tail);
    EXPECT_EQ(prefilled() - prefill_before, mine);
    const Reply reply = pair.decode.complete(Pair::with(fields, more, params));
    EXPECT_EQ(text_of(reply), text_of(alone));
    EXPECT_EQ(pair.computed() - before, front > 0 ? prompt - front + 8 : 8);
  }
  pair.expect_clean();
}

// The two engines need not agree about anything but the model.
TEST_P(HandOverOver, BlocksOfAnotherSizeAreServed) {
  for (int block_tokens : {8, 64}) {
    SCOPED_TRACE(::testing::Message() << "blocks of " << block_tokens << " tokens, ours are of 16");
    Pair pair(GetParam(), block_tokens);
    TestEngine aggregated;
    for (size_t length : {1, 17, 63, 300}) {
      const std::string fields = prompt_fields(length), more = R"(,"max_tokens":9,"temperature":0,"ignore_eos":true)";
      const std::string want = text_of(aggregated.complete(fields + more));
      const double before = pair.computed();
      const std::string params = pair.params_for(fields + R"(,"temperature":0,"ignore_eos":true)");
      EXPECT_EQ(text_of(pair.decode.complete(Pair::with(fields, more, params))), want);
      EXPECT_EQ(pair.computed() - before, 8);
    }
    EXPECT_EQ(pair.fallback("layout"), 0);
    pair.expect_clean();
  }
}

TEST_P(HandOverOver, StreamsAndSamplesTheSame) {
  Pair pair(GetParam());
  TestEngine aggregated;
  const std::string fields = prompt_fields(200), rest = R"(,"temperature":0.9,"seed":77,"ignore_eos":true)";
  const std::string more = rest + R"(,"max_tokens":15,"stream":true)";
  const auto chunks = [](const Reply& reply) {
    std::string out;
    for (const std::string& event : sse(reply.body)) {
      if (event != "[DONE]") out += parse_json(event)->find("choices")->items.at(0).find("text")->text;
    }
    return out;
  };
  const std::string params = pair.params_for(fields + rest);
  EXPECT_EQ(chunks(pair.decode.complete(Pair::with(fields, more, params))), chunks(aggregated.complete(fields + more)));
  pair.expect_clean();
}

TEST(HandOverHttp, NamesNoFirstTokenWhereItCannotBeUsed) {
  Pair pair("auto");
  TestEngine aggregated;
  const std::string fields = prompt_fields(100);
  for (const char* more :
       {R"(,"logprobs":2,"temperature":0)", R"(,"n":2,"temperature":1,"seed":3)", R"(,"echo":true,"temperature":0)"}) {
    const std::string params = pair.params_for(fields + more);
    EXPECT_EQ(params.find("first_token_id"), std::string::npos) << more;
    const std::string rest = cat(more, R"(,"max_tokens":6)");
    const Json got = pair.decode.complete(Pair::with(fields, rest, params)).json(),
               want = aggregated.complete(fields + rest).json();
    ASSERT_EQ(got.find("choices")->items.size(), want.find("choices")->items.size());
    for (size_t i = 0; i < got.find("choices")->items.size(); ++i) {
      EXPECT_EQ(got.find("choices")->items[i].find("text")->text, want.find("choices")->items[i].find("text")->text)
          << more << " choice " << i;
    }
  }
  pair.expect_clean();
}

TEST(HandOverHttp, MinTokensIsJudgedByTheDecodeLeg) {
  Pair pair("auto");
  TestEngine aggregated;
  const std::string fields = prompt_fields(64);
  // Make the very token that greedy takes first a stop token.
  const Json first = aggregated.complete(fields + R"(,"max_tokens":1,"temperature":0,"return_token_ids":true)").json();
  const std::string id = first.find("choices")->items[0].find("token_ids")->items[0].text;
  for (const char* more : {R"(,"min_tokens":0)", R"(,"min_tokens":4)"}) {
    const std::string rest = cat(R"(,"temperature":0,"stop_token_ids":[)", id, "]");
    const std::string params = pair.params_for(fields + rest);
    EXPECT_NE(params.find(cat("\"first_token_id\":", id)), std::string::npos) << params;  // min_tokens 1 of the leg masks nothing
    const std::string whole = cat(rest, R"(,"max_tokens":8)", more);
    EXPECT_EQ(text_of(pair.decode.complete(Pair::with(fields, whole, params))), text_of(aggregated.complete(fields + whole)))
        << more;
  }
  pair.expect_clean();
}

TEST(HandOverHttp, BadRequestsDeclineTheirGrant) {
  Pair pair("auto");
  const std::string fields = prompt_fields(200);
  for (const char* bad : {R"(,"temperature":-1)", R"(,"model":"none")", R"(,"max_tokens":100000)", R"(,"guided_json":7)"}) {
    const std::string params = pair.params_for(fields);
    EXPECT_GT(pair.prefill.metric("vllm:kv_cache_usage_perc"), 0);
    EXPECT_GE(pair.decode.complete(Pair::with(fields, bad, params)).status, 400) << bad;
    pair.prefill.expect_idle();  // long before the lease of 60 s ends
  }
}

TEST(HandOverHttp, AnotherPromptsKvIsNeverTaken) {
  Pair pair("auto");
  TestEngine aggregated;
  const std::string params = pair.params_for(prompt_fields(200));
  const std::string other = prompt_fields(199), more = R"(,"max_tokens":5,"temperature":0)";
  EXPECT_EQ(text_of(pair.decode.complete(Pair::with(other, more, params))), text_of(aggregated.complete(other + more)));
  EXPECT_EQ(pair.fallback("tokens") + pair.fallback("digest"), 1);
  pair.expect_clean();
}

TEST(HandOverHttp, WhatCannotBeUsedIsRecomputedAndCounted) {
  Pair pair("auto");
  TestEngine aggregated;
  const std::string fields = prompt_fields(150), more = R"(,"max_tokens":5,"temperature":0)";
  const std::string want = text_of(aggregated.complete(fields + more));
  const std::string good = pair.params_for(fields + R"(,"temperature":0)");
  const auto edited = [&](std::string_view from, std::string_view to) {
    std::string out = good;
    const size_t at = out.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return out.replace(at, from.size(), to);
  };
  EXPECT_EQ(text_of(pair.decode.complete(Pair::with(fields, more, edited("\"layout\":\"", "\"layout\":\"x")))), want);
  EXPECT_EQ(pair.fallback("layout"), 1);
  EXPECT_EQ(text_of(pair.decode.complete(Pair::with(fields, more, edited("\"v\":1", "\"v\":9")))), want);
  EXPECT_EQ(text_of(pair.decode.complete(Pair::with(fields, more, edited("\"remote_port\":", "\"remote_port\":7")))), want);
  EXPECT_EQ(pair.fallback("malformed"), 2);  // a port beyond 65535 too
  EXPECT_EQ(text_of(pair.decode.complete(Pair::with(fields, more, R"({"do_remote_prefill":true,"remote_block_ids":[1]})"))),
            want);
  EXPECT_EQ(pair.fallback("no_grant"), 1);
  EXPECT_EQ(text_of(pair.decode.complete(Pair::with(fields, more, R"({"uuid":1223960640850184400,"remote_port":"9100"})"))),
            want);
  // The grant is spent by the first decline; a second use is refused by the producer and recomputed.
  EXPECT_EQ(text_of(pair.decode.complete(Pair::with(fields, more, good))), want);
  pair.decode.expect_idle();
}

TEST(HandOverHttp, AWorkerWithoutTransferStillAnswers) {
  TestEngine e;
  const std::string fields = prompt_fields(50);
  const Reply leg = e.complete(fields + R"(,"max_tokens":1,"kv_transfer_params":{"do_remote_decode":true})");
  EXPECT_EQ(leg.status, 200);
  EXPECT_TRUE(leg.json().find("kv_transfer_params")->is_null());
  EXPECT_EQ(e.complete(fields + R"(,"max_tokens":1,"kv_transfer_params":{"do_remote_prefill":true})").status, 200);
  EXPECT_EQ(e.metric("kv_fallback_total", "disabled"), 1);
}

TEST(HandOverHttp, AFullPrefillWorkerAnswers503) {
  EngineConfig config = worker("auto");
  config.num_blocks = 100;
  TestEngine prefill(config);
  const std::string leg = R"(,"max_tokens":1,"kv_transfer_params":{"do_remote_decode":true})";
  EXPECT_EQ(prefill.complete(prompt_fields(400) + leg).status, 200);
  const Reply refused = prefill.complete(prompt_fields(401) + leg);
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.get("retry-after"), "1");
  EXPECT_EQ(prefill.complete(prompt_fields(401) + R"(,"max_tokens":1)").status, 200);  // ordinary work goes on
}

}  // namespace
}  // namespace baton::engine
