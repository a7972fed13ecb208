// /v1/responses, /v1/messages, /inference/v1/generate and /v1/embeddings as their clients see them: HTTP in, HTTP out.
#include <cmath>

#include "engine/testing/answers.h"
#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using testing::at_event;
using testing::call;
using testing::events_of;
using ::testing::HasSubstr;
using testing::Reply;
using testing::sse;
using testing::talking;
using testing::TestEngine;
using testing::types_of;

// An engine whose model says what the test wants.
struct Speaker : TestEngine {
  explicit Speaker(EngineConfig config = talking()) : TestEngine(std::move(config)) {}
  void say(std::string_view text) {
    const Json tokens =
        post("/tokenize", cat(R"({"add_special_tokens":false,"prompt":)", json_string(cat(text, "<|im_end|>")), "}")).json();
    std::vector<int32_t> ids;
    for (const Json& id : tokens.find("tokens")->items) ids.push_back(static_cast<int32_t>(*id.as_int()));
    model->say(std::move(ids));
  }
};

constexpr const char* kSaid = "Let me see.</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
constexpr const char* kTools =
    R"(,"tools":[{"type":"function","name":"f","parameters":{"type":"object","properties":{"a":{"type":"integer"}}}}])";

TEST(Responses, AnswersLikeTheChatItIs) {
  TestEngine e;
  const Reply chat =
      e.post("/v1/chat/completions", R"({"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],)"
                                     R"("temperature":0,"max_tokens":8})");
  const Reply reply = e.post("/v1/responses",
                             R"({"model":"tiny","input":"Hi","instructions":"Be brief.","temperature":0,"max_output_tokens":8,)"
                             R"("metadata":{"k":"v"}})",
                             {{"X-Request-Id", "abc"}});
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json json = reply.json();
  EXPECT_EQ(json.find("id")->text, "resp_abc");
  EXPECT_EQ(json.find("status")->text, "incomplete");  // cut by max_output_tokens
  EXPECT_EQ(json.find_path({"metadata", "k"})->text, "v");
  EXPECT_EQ(json.find("max_output_tokens")->as_int(), 8);
  EXPECT_EQ(json.find_path({"usage", "output_tokens"})->as_int(), 8);
  const Json& item = json.find("output")->items.at(0);
  EXPECT_EQ(item.find("content")->items.at(0).find("text")->text,
            chat.json().find("choices")->items.at(0).find_path({"message", "content"})->text);
  // More output than there is room for is no error, more than the context is.
  const Reply long_one = e.post("/v1/responses", R"({"input":"Hi","temperature":0,"max_output_tokens":4096,"stop":["e"]})");
  EXPECT_EQ(long_one.status, 200) << long_one.body;
  EXPECT_THAT(e.post("/v1/responses", R"({"input":"Hi","max_output_tokens":1000000})").error(), HasSubstr("max_output_tokens=1000000 cannot"));
  e.expect_idle();
}

TEST(Responses, StreamsTypedEvents) {
  Speaker e;
  const std::string ask = cat(R"({"input":"hi","temperature":0)", kTools);
  e.say(kSaid);
  const Reply whole = e.post("/v1/responses", ask + "}");
  e.say(kSaid);
  const Reply stream = e.post("/v1/responses", ask + R"(,"stream":true})");
  EXPECT_EQ(stream.headers.get("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(types_of(stream.body),
            "response.created response.in_progress response.output_item.added response.reasoning_part.added "
            "response.reasoning_text.delta response.reasoning_text.done response.reasoning_part.done response.output_item.done "
            "response.output_item.added response.function_call_arguments.delta response.function_call_arguments.done "
            "response.output_item.done response.completed ");
  for (const Json& json : {whole.json(), *at_event(stream.body, "response.completed").find("response")}) {
    EXPECT_EQ(json.find("status")->text, "completed");
    const auto& output = json.find("output")->items;
    ASSERT_EQ(output.size(), 2u) << whole.body;
    EXPECT_EQ(output[0].find("type")->text, "reasoning");
    EXPECT_EQ(output[0].find("content")->items.at(0).find("text")->text, "Let me see.");
    EXPECT_EQ(output[1].find("type")->text, "function_call");
    EXPECT_EQ(output[1].find("name")->text, "f");
    EXPECT_EQ(output[1].find("arguments")->text, "{\"a\": 1}");
    EXPECT_TRUE(output[1].find("call_id")->text.starts_with("chatcmpl-tool-"));
    const auto thought = json.find_path({"usage", "output_tokens_details", "reasoning_tokens"})->as_int();
    EXPECT_GT(thought, 1);
    EXPECT_LT(thought, json.find_path({"usage", "output_tokens"})->as_int());
  }
  e.expect_idle();
}

TEST(Responses, Refuses) {
  TestEngine e;
  struct Case {
    const char* body;
    int status;
    const char* message;
  };
  const Case cases[] = {
      {R"({"model":"tiny"})", 400, "input: Field required"},
      {R"({"model":"nope","input":"x"})", 404, "The model `nope` does not exist."},
      {R"({"input":"x","background":true})", 400, "VLLM_ENABLE_RESPONSES_API_STORE=1"},
      {R"({"input":"x","previous_response_id":"resp_1"})", 404, "Response with id 'resp_1' not found."},
      {R"({"input":"x","tools":[{"type":"web_search"}]})", 501, "'web_search' is not supported"},
      {R"({"input":"x","temperature":-1})", 400, "temperature must be non-negative"},
      {R"({"input":"x","tools":[{"type":"function","name":"f"}]})", 400, "requires --enable-auto-tool-choice"},
  };
  for (const Case& c : cases) {
    const Reply reply = e.post("/v1/responses", c.body);
    EXPECT_EQ(reply.status, c.status) << c.body;
    EXPECT_THAT(reply.error(), HasSubstr(c.message)) << c.body;
  }
  EXPECT_EQ(e.get("/v1/responses/resp_1").status, 404);
  EXPECT_EQ(e.post("/v1/responses/resp_1/cancel", "{}").status, 404);
  EXPECT_EQ(e.post("/v1/responses/resp_1", "{}").status, 405);
}

TEST(Responses, AStoredOneIsTheNextOnesPast) {
  Speaker e(talking(true));
  e.say("I thought.</think>One.");
  const Reply first = e.post("/v1/responses", R"({"input":"first","instructions":"Not carried over.","temperature":0})");
  const std::string id = first.json().find("id")->text;
  EXPECT_EQ(e.get("/v1/responses/" + id).body, first.body);
  const Reply second = e.post(
      "/v1/responses", cat(R"({"input":"second","temperature":0,"max_output_tokens":8,"previous_response_id":")", id, "\"}"));
  ASSERT_EQ(second.status, 200) << second.body;
  std::string text;
  for (const Json& item : second.json().find("output")->items) text += item.find("content")->items.at(0).find("text")->text;
  EXPECT_EQ(second.json().find("previous_response_id")->text, id);
  const Json chat =
      e.post("/v1/chat/completions", R"({"temperature":0,"max_tokens":8,"messages":[{"role":"user","content":"first"},)"
                                     R"({"role":"assistant","content":"One."},{"role":"user","content":"second"}]})")
          .json();
  const Json& message = *chat.find("choices")->items.at(0).find("message");
  EXPECT_EQ(text, message.find("reasoning_content")->text + message.find("content")->text);
  // Asked not to, it keeps nothing.
  const Reply unkept = e.post("/v1/responses", R"({"input":"x","temperature":0,"max_output_tokens":2,"store":false})");
  EXPECT_EQ(e.get("/v1/responses/" + unkept.json().find("id")->text).status, 404);
  EXPECT_EQ(e.post(cat("/v1/responses/", id, "/cancel"), "{}").error(), "Cannot cancel a synchronous response.");
}

// Of prefill and decode on different workers, the one that decodes keeps responses; the other has not heard of them.
TEST(Responses, APrefillLegKeepsNothing) {
  TestEngine e(talking(true));
  const char* leg = R"({"input":"x","max_output_tokens":1,"kv_transfer_params":{"do_remote_decode":true})";
  const Reply plain = e.post("/v1/responses", cat(leg, "}"));
  EXPECT_EQ(plain.status, 200) << plain.body;
  EXPECT_EQ(e.get("/v1/responses/" + plain.json().find("id")->text).status, 404);
  for (const char* more : {R"(,"previous_response_id":"resp_1"})", R"(,"background":true})"})
    EXPECT_EQ(e.post("/v1/responses", cat(leg, more)).status, 503) << more;
}

TEST(Responses, BackgroundIsPolledAndCancelled) {
  TestEngine e(talking(true));
  const char* ask = R"({"input":"x","temperature":0,"max_output_tokens":8,"background":true})";
  const Reply queued = e.post("/v1/responses", ask);
  ASSERT_EQ(queued.status, 200) << queued.body;
  EXPECT_EQ(queued.json().find("status")->text, "queued");
  const std::string path = "/v1/responses/" + queued.json().find("id")->text;
  const auto status = [&](const std::string& at) { return e.get(at).json().find("status")->text; };
  EXPECT_TRUE(TestEngine::wait_for([&] { return status(path) == "incomplete"; })) << e.get(path).body;
  EXPECT_EQ(e.get(path).json().find_path({"usage", "output_tokens"})->as_int(), 8);

  e.close_gate();
  const Reply stuck = e.post("/v1/responses", ask);
  const std::string stuck_path = "/v1/responses/" + stuck.json().find("id")->text;
  const Reply cancelled = e.post(stuck_path + "/cancel", "{}");
  EXPECT_EQ(cancelled.json().find("status")->text, "cancelled");
  e.open_gate();
  e.expect_idle();
  EXPECT_EQ(status(stuck_path), "cancelled");
  EXPECT_EQ(e.post(stuck_path + "/cancel", "{}").error(), "Cannot cancel a synchronous response.");
  // One that fails says so.
  e.model->fail_next = true;
  const Reply fails = e.post("/v1/responses", ask);
  const std::string fails_path = "/v1/responses/" + fails.json().find("id")->text;
  EXPECT_TRUE(TestEngine::wait_for([&] { return status(fails_path) == "failed"; }));
}

constexpr const char* kAnthropicTools =
    R"(,"tools":[{"name":"f","input_schema":{"type":"object","properties":{"a":{"type":"integer"}}}}])";

TEST(Messages, WholeAndStreamed) {
  Speaker e;
  const std::string ask =
      cat(R"({"model":"tiny","max_tokens":400,"temperature":0,"messages":[{"role":"user","content":"hi"}])", kAnthropicTools);
  e.say(kSaid);
  const Reply whole = e.post("/v1/messages", ask + "}");
  ASSERT_EQ(whole.status, 200) << whole.body;
  const Json json = whole.json();
  EXPECT_EQ(json.find("type")->text, "message");
  EXPECT_EQ(json.find("stop_reason")->text, "tool_use");
  const auto& content = json.find("content")->items;
  ASSERT_EQ(content.size(), 2u) << whole.body;
  EXPECT_EQ(content[0].find("thinking")->text, "Let me see.");
  EXPECT_EQ(content[1].find("name")->text, "f");
  EXPECT_EQ(content[1].find_path({"input", "a"})->as_int(), 1);
  const Json count = e.post("/v1/messages/count_tokens",
                            cat(R"({"model":"tiny","messages":[{"role":"user","content":"hi"}])", kAnthropicTools, "}"))
                         .json();
  EXPECT_EQ(count.find("input_tokens")->as_int(), json.find_path({"usage", "input_tokens"})->as_int());

  e.say(kSaid);
  const Reply stream = e.post("/v1/messages", ask + R"(,"stream":true})");
  EXPECT_EQ(types_of(stream.body),
            "message_start content_block_start content_block_delta content_block_stop content_block_start content_block_delta "
            "content_block_stop message_delta message_stop ");
  EXPECT_TRUE(stream.body.ends_with("data: {\"type\":\"message_stop\"}\n\n"));
  EXPECT_EQ(at_event(stream.body, "message_delta").find_path({"delta", "stop_reason"})->text, "tool_use");
  EXPECT_EQ(at_event(stream.body, "message_delta").find_path({"usage", "output_tokens"})->as_int(),
            json.find_path({"usage", "output_tokens"})->as_int());
  e.say("Yes.</think>It is so. END and more");
  const Json stopped = e.post("/v1/messages", R"({"model":"tiny","max_tokens":400,"temperature":0,"stop_sequences":["END"],)"
                                              R"("messages":[{"role":"user","content":"hi"}]})")
                           .json();
  EXPECT_EQ(stopped.find("stop_reason")->text, "stop_sequence");
  EXPECT_EQ(stopped.find("stop_sequence")->text, "END");
  EXPECT_EQ(stopped.find("content")->items.at(1).find("text")->text, "It is so. ");
  e.expect_idle();
}

TEST(Messages, ErrorsHaveAnthropicsShape) {
  TestEngine e;
  const std::pair<const char*, const char*> cases[] = {
      {"{", R"("type":"Bad Request","message":"JSON decode error)"},
      {R"({"messages":[]})", R"("message":"model: Field required")"},
      {R"({"model":"nope","max_tokens":4,"messages":[{"role":"user","content":"x"}]})", R"("type":"NotFoundError")"},
  };
  for (const auto& [body, part] : cases) {
    const Reply reply = e.post("/v1/messages", body);
    EXPECT_GE(reply.status, 400);
    EXPECT_THAT(reply.body, HasSubstr(R"({"type":"error","error":{)"));
    EXPECT_THAT(reply.body, HasSubstr(part));
  }
  e.model->fail_next = true;
  EXPECT_THAT(e.post("/v1/messages", R"({"model":"tiny","max_tokens":4,"messages":[{"role":"user","content":"x"}]})").body,
              HasSubstr(R"({"type":"error","error":{"type":"InternalServerError")"));
}

TEST(Generate, TokensInTokensOut) {
  TestEngine e;
  const Json plain =
      e.complete(R"("prompt":[20,21,22,23],"max_tokens":6,"temperature":0,"return_token_ids":true,"logprobs":1)").json();
  const Reply reply = e.post("/inference/v1/generate",
                             R"({"token_ids":[20,21,22,23],"sampling_params":{"max_tokens":6,"temperature":0,"logprobs":1}})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const auto ids = [](const Json& json) {
    std::vector<int64_t> out;
    for (const Json& id : json.find("choices")->items.at(0).find("token_ids")->items) out.push_back(*id.as_int());
    return out;
  };
  const Json json = reply.json();
  EXPECT_EQ(ids(json), ids(plain));
  EXPECT_TRUE(json.find("request_id")->text.starts_with("generate-tokens-"));
  EXPECT_EQ(json.find("choices")->items[0].find("finish_reason")->text, "length");
  EXPECT_EQ(json.find("choices")->items[0].find_path({"logprobs", "content"})->items.size(), 6u);
  const Reply stream = e.post("/inference/v1/generate",
                              R"({"token_ids":[20,21,22,23],"sampling_params":{"max_tokens":6,"temperature":0},"stream":true})");
  std::vector<int64_t> streamed;
  for (const std::string& event : testing::sse(stream.body)) {
    if (event == "[DONE]") continue;
    for (const int64_t id : ids(parse_json(event).value())) streamed.push_back(id);
  }
  EXPECT_EQ(streamed, ids(plain));
  const Json text = e.post("/inference/v1/generate",
                           R"({"token_ids":[20,21,22,23],"sampling_params":{"max_tokens":6,"temperature":0},"output_mode":"text","return_token_ids":true})")
                        .json();
  EXPECT_EQ(text.find("choices")->items[0].find("text")->text, plain.find("choices")->items[0].find("text")->text);
  EXPECT_EQ(text.find("prompt_token_ids")->items.size(), 4u);
  EXPECT_EQ(text.find_path({"usage", "completion_tokens"})->as_int(), 6);
  EXPECT_EQ(json.find("choices")->items[0].find_path({"logprobs", "content"})->items[0].find("token_id")->as_int(), ids(json)[0]);
  EXPECT_THAT(e.post("/inference/v1/generate", R"({"token_ids":[20],"sampling_params":{},"output_mode":"x"})").error(), HasSubstr("output_mode"));
  EXPECT_THAT(e.post("/inference/v1/generate", R"({"token_ids":[20]})").error(), HasSubstr("sampling_params: Field required"));
  EXPECT_EQ(e.post("/inference/v1/generate", R"({"token_ids":[20],"sampling_params":{"temperature":-1}})").status, 400);
}

// A prompt made into tokens by one, computed by another, made into words by a third: what one alone answers.
TEST(Generate, RenderedGeneratedAndDerenderedIsTheSameAnswer) {
  TestEngine e;
  const std::string chat = R"({"messages":[{"role":"user","content":"Hi"}],"temperature":0,"max_tokens":9,"stop":["%%"]})";
  const Reply whole = e.post("/v1/chat/completions", chat);
  const Reply rendered = e.post("/v1/chat/completions/render", chat);
  EXPECT_EQ(rendered.json().find_path({"sampling_params", "max_tokens"})->as_int(), 9);
  const Reply generated = e.post("/inference/v1/generate", rendered.body);
  ASSERT_EQ(generated.status, 200) << generated.body;
  const Reply back = e.post("/v1/chat/completions/derender", cat(R"({"prompt_tokens":3,"chat_request":)", chat, R"(,"generate_response":)", generated.body, "}"));
  ASSERT_EQ(back.status, 200) << back.body;
  const Json a = whole.json(), b = back.json();
  EXPECT_EQ(b.find("choices")->items[0].find_path({"message", "content"})->text, a.find("choices")->items[0].find_path({"message", "content"})->text);
  EXPECT_EQ(b.find("choices")->items[0].find("finish_reason")->text, "length");
  EXPECT_EQ(b.find_path({"usage", "prompt_tokens"})->as_int(), 3);
  EXPECT_EQ(b.find_path({"usage", "completion_tokens"})->as_int(), 9);
  EXPECT_EQ(b.find("id")->text, generated.json().find("request_id")->text);

  const std::string text = R"({"prompt":["one","two"],"temperature":0,"max_tokens":5,"logprobs":1})";
  const Json plain = e.post("/v1/completions", text).json();
  std::string responses;
  const std::string source = e.post("/v1/completions/render", text).body;
  const Json listed = parse_json(source).value();
  for (const Json& one : listed.items)
    responses += cat(responses.empty() ? "" : ",", e.post("/inference/v1/generate", one.raw(source)).body);
  const Json words = e.post("/v1/completions/derender", cat(R"({"generate_responses":[)", responses, "]}")).json();
  for (size_t i = 0; i < 2; ++i) {
    const Json &have = words.find("choices")->items.at(i), &want = plain.find("choices")->items.at(i);
    EXPECT_EQ(have.find("text")->text, want.find("text")->text) << i;
    EXPECT_EQ(have.find("index")->as_int(), static_cast<int64_t>(i));
    EXPECT_EQ(have.find_path({"logprobs", "tokens"})->items.size(), 5u);
    EXPECT_EQ(have.find_path({"logprobs", "tokens"})->items[2].text, want.find_path({"logprobs", "tokens"})->items[2].text);
  }
  const auto refused = [&](const char* response) {
    return e.post("/v1/chat/completions/derender", cat(R"({"generate_response":)", response, "}")).status;
  };
  for (const char* bad : {"7", "{}", R"({"choices":7})", R"({"choices":[7]})", R"({"choices":[{"index":0,"token_ids":["a"]}]})", R"({"choices":[{"index":0,"token_ids":[-1]}]})",
                          R"({"choices":[{"index":0,"token_ids":[300]}]})", R"({"choices":[{"index":0,"token_ids":[1],"logprobs":{"content":[{"token_id":9999}]}}]})"})
    EXPECT_EQ(refused(bad), 400) << bad;
  EXPECT_EQ(e.post("/v1/completions/derender", R"({"generate_responses":[]})").status, 400);
  EXPECT_EQ(e.post("/v1/completions/derender", R"({"generate_responses":[],"stream":true})").status, 501);
  e.expect_idle();
}

// ---- embeddings

std::vector<double> row(const Json& json, size_t i) {
  std::vector<double> out;
  for (const Json& x : json.find("data")->items.at(i).find("embedding")->items) out.push_back(*x.as_double());
  return out;
}

EngineConfig pooling(const char* type, bool normalize = true) {
  EngineConfig config;
  config.runner = "pooling";
  config.pooler_config = cat(R"({"pooling_type":")", type, R"(","normalize":)", normalize, "}");
  config.max_num_batched_tokens = 64;  // a long prompt is computed in several steps
  config.max_num_seqs = 8;
  return config;
}

TEST(Embeddings, PoolsWhatTheModelComputed) {
  std::string ids;
  std::vector<int32_t> tokens;
  for (int i = 0; i < 150; ++i) tokens.push_back(10 + i), ids += cat(i ? "," : "", 10 + i);
  // The same model, asked directly.
  testing::FakeModel model;
  std::vector<std::byte> pool(model.kv_layout().block_bytes() * 12);
  ASSERT_TRUE(model.bind_kv(pool));
  std::vector<int32_t> blocks;
  for (int i = 0; i < 12; ++i) blocks.push_back(i);
  const model::SeqInput all{.tokens = tokens, .blocks = blocks, .hidden = true};
  ASSERT_TRUE(model.step({&all, 1}));
  constexpr size_t kWidth = testing::FakeModel::kHidden;
  for (const char* type : {"LAST", "CLS", "MEAN"}) {
    std::vector<double> want(kWidth);
    for (size_t k = 0; k < kWidth; ++k) {
      const auto at = [&](size_t t) { return static_cast<double>(model.hidden()[t * kWidth + k]); };
      if (*type == 'L') want[k] = at(149);
      if (*type == 'C') want[k] = at(0);
      for (size_t t = 0; *type == 'M' && t < 150; ++t) want[k] += at(t) / 150;
    }
    TestEngine e(pooling(type, false));
    for (int again = 0; again < 2; ++again) {  // the second time with a warm prefix cache
      const Reply reply = e.post("/v1/embeddings", cat(R"({"input":[[)", ids, R"(],[7,8]]})"));
      ASSERT_EQ(reply.status, 200) << reply.body;
      const Json json = reply.json();
      EXPECT_EQ(json.find("object")->text, "list");
      EXPECT_EQ(json.find_path({"usage", "prompt_tokens"})->as_int(), 152);
      const std::vector<double> got = row(json, 0);
      ASSERT_EQ(got.size(), kWidth);
      for (size_t k = 0; k < kWidth; ++k) EXPECT_NEAR(got[k], want[k], 1e-6) << type << " " << k;
      EXPECT_NE(row(json, 1), got);
    }
    e.expect_idle();
  }
}

TEST(Embeddings, FormsOfInputAndOutput) {
  EngineConfig config = pooling("MEAN");
  config.hf_overrides = R"({"matryoshka_dimensions":[2]})";
  TestEngine e(config);
  const Json text = e.post("/v1/embeddings", R"({"model":"tiny","input":"Hi there"})").json();
  const std::vector<double> got = row(text, 0);
  double length = 0;
  for (const double x : got) length += x * x;
  EXPECT_NEAR(length, 1, 1e-5);
  std::string ids;
  const Json tokens = e.post("/tokenize", R"({"prompt":"Hi there"})").json();
  for (const Json& id : tokens.find("tokens")->items) ids += cat(ids.empty() ? "" : ",", id.text);
  EXPECT_EQ(row(e.post("/v1/embeddings", cat(R"({"input":[)", ids, "]}")).json(), 0), got);
  EXPECT_EQ(row(e.post("/v1/embeddings", R"({"input":["x","Hi there"]})").json(), 1), got);
  const Json packed = e.post("/v1/embeddings", R"({"input":"Hi there","encoding_format":"base64"})").json();
  EXPECT_EQ(packed.find("data")->items[0].find("embedding")->text.size(), (4 * 4 + 2) / 3 * 4u);
  EXPECT_EQ(row(e.post("/v1/embeddings", R"({"input":"Hi there","dimensions":2})").json(), 0).size(), 2u);
  EXPECT_THAT(e.post("/v1/embeddings", R"({"input":"x","dimensions":3})").error(),
              HasSubstr("only supports [2] matryoshka dimensions"));
  EXPECT_THAT(e.post("/v1/embeddings", R"({"input":[]})").error(), HasSubstr("at least 1 item"));
  EXPECT_THAT(e.post("/v1/embeddings", cat(R"({"input":")", std::string(9000, 'x'), "\"}")).error(),
              HasSubstr("maximum context length is 4096 tokens"));
  EXPECT_EQ(e.post("/v1/embeddings", cat(R"({"input":")", std::string(9000, 'x'), R"(","truncate_prompt_tokens":-1})")).status,
            200);
  EXPECT_EQ(e.complete(R"("prompt":"x")").error(), "The model does not support Completions API");
  EXPECT_EQ(e.post("/v1/responses", R"({"input":"x"})").error(), "The model does not support Responses API");
  e.model->fail_next = true;
  EXPECT_EQ(e.post("/v1/embeddings", R"({"input":["x","y"]})").status, 500);
  e.expect_idle();
}

TEST(Embeddings, AGenerativeModelHasNone) {
  TestEngine e;
  const Reply reply = e.post("/v1/embeddings", R"({"input":"x"})");
  EXPECT_EQ(reply.status, 404);
  EXPECT_THAT(reply.body, HasSubstr(R"("detail":"Not Found")"));
}

// The entries are of the tokens asked for, all of them, in their order behind the sampled one.
TEST(Logprobs, OfTheTokensAskedFor) {
  TestEngine e;
  const auto ids_and_values = [](const Json& list) {
    std::vector<std::pair<std::string, double>> out;
    for (const Json& entry : list.items) out.emplace_back(entry.find("token")->text, *entry.find("logprob")->as_double());
    return out;
  };
  const std::string chat = R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":3,"temperature":0,"return_tokens_as_token_ids":true,"logprobs":true)";
  e.model->say({60, 61, 62});
  const Json all = e.post("/v1/chat/completions", chat + R"(,"top_logprobs":20})").json();
  e.model->say({60, 61, 62});
  const Json some = e.post("/v1/chat/completions", chat + R"(,"logprob_token_ids":[9,61,5,9]})").json();
  const Json* rows = some.find("choices")->items[0].find_path({"logprobs", "content"});
  const Json* full = all.find("choices")->items[0].find_path({"logprobs", "content"});
  ASSERT_EQ(rows->items.size(), 3u);
  const std::vector<std::vector<std::string>> want = {{"token_id:60", "token_id:9", "token_id:61", "token_id:5"},
                                                      {"token_id:61", "token_id:9", "token_id:5"},
                                                      {"token_id:62", "token_id:9", "token_id:61", "token_id:5"}};
  for (size_t i = 0; i < 3; ++i) {
    const auto entries = ids_and_values(*rows->items[i].find("top_logprobs"));
    std::vector<std::string> names;
    for (const auto& [name, value] : entries) names.push_back(name);
    EXPECT_EQ(names, want[i]);
    EXPECT_EQ(entries[0].second, *full->items[i].find("logprob")->as_double());
  }
  e.model->say({60, 61, 62});
  const Json words = e.complete(R"("prompt":"a","max_tokens":2,"temperature":0,"logprobs":1,"logprob_token_ids":[9,5],"return_tokens_as_token_ids":true)").json();
  EXPECT_EQ(words.find("choices")->items[0].find_path({"logprobs", "top_logprobs"})->items[0].keys,
            (std::vector<std::string>{"token_id:60", "token_id:9", "token_id:5"}));
  const auto generate = [&](const char* more) { return e.post("/inference/v1/generate", cat(R"({"token_ids":[5],"sampling_params":{"max_tokens":1,"logprob_token_ids":[9,5])", more, "}}")); };
  EXPECT_EQ(generate("").json().find("choices")->items[0].find_path({"logprobs", "content"})->items[0].find("top_logprobs")->items.size(), 3u);
  EXPECT_EQ(generate(R"(,"logprobs":2)").status, 200);
  EXPECT_THAT(generate(R"(,"logprobs":3)").error(), HasSubstr("logprobs must equal len(logprob_token_ids). Got logprobs=3, len(logprob_token_ids)=2."));
  std::string many = "[0";
  for (int i = 1; i < 129; ++i) many += cat(",", i);
  EXPECT_EQ(e.complete(cat(R"("prompt":"a","logprobs":1,"logprob_token_ids":)", many, "]")).error(),
            "Requested logprob_token_ids of length 129, which is greater than max allowed: 128");
  EXPECT_EQ(e.complete(R"("prompt":"a","logprobs":1,"logprob_token_ids":[5,300,-1])").error(),
            "token_id(s) [300, -1] in logprob_token_ids contain out-of-vocab token ids. Vocabulary size: 300");
  EXPECT_THAT(e.complete(R"("prompt":"a","echo":true,"max_tokens":0,"logprobs":1,"logprob_token_ids":[5])").error(), HasSubstr("no output tokens are generated"));
  e.expect_idle();
}

TEST(Chat, ShowsThePromptsText) {
  TestEngine e;
  const std::string chat = R"({"messages":[{"role":"user","content":"hi"}],"chat_template":"<{{ messages[0].content }}>","max_tokens":2,"n":2,"seed":1)";
  EXPECT_EQ(e.post("/v1/chat/completions", chat + R"(,"return_prompt_text":true})").json().find("prompt_text")->text, "<hi>");
  EXPECT_TRUE(e.post("/v1/chat/completions", chat + "}").json().find("prompt_text")->is_null());
  int shown = 0;
  for (const std::string& event : sse(e.post("/v1/chat/completions", chat + R"(,"return_prompt_text":true,"stream":true})").body)) {
    const auto chunk = parse_json(event);
    if (!chunk || !chunk->find("prompt_text")) continue;
    EXPECT_EQ(chunk->find("prompt_text")->text, "<hi>");
    EXPECT_TRUE(chunk->find("choices")->items[0].find_path({"delta", "role"}));
    ++shown;
  }
  EXPECT_EQ(shown, 2);  // one a choice, in its first chunk
  EXPECT_EQ(e.post("/v1/chat/completions", chat + R"(,"stream":true})").body.find("prompt_text"), std::string::npos);
}

}  // namespace
}  // namespace baton::engine
