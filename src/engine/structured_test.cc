// Structured outputs over HTTP: a model that writes at random, held to what each request asks for, alone and over two workers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/log.h"
#include "engine/testing/test_engine.h"
#include "engine/testing/worker.h"
#include "grammar/constraint.h"
#include "text/regex.h"

namespace baton::engine {
namespace {

using ::testing::HasSubstr;
using testing::Reply;
using testing::sse;
using testing::TestEngine;

// No white space, so that a model that writes at random comes to an end.
constexpr const char* kTight = R"(,"guided_whitespace_pattern":"")";
constexpr const char* kSchema =
    R"({"type":"object","properties":{"name":{"type":"string","pattern":"^[a-z]{1,4}$"},"age":{"type":"integer","minimum":0,"maximum":99}},"required":["name","age"]})";

bool matches(const std::string& pattern, const std::string& text) {
  const auto regex = text::Regex::compile(cat("^(?:", pattern, ")$"));
  EXPECT_TRUE(regex.has_value());
  const auto found = regex->find_all(text);
  return found && found->size() == 1 && (*found)[0].end == text.size();
}

bool is_person(const std::string& text) {
  const auto json = parse_json(text);
  return json && json->keys == std::vector<std::string>{"name", "age"} && matches("[a-z]{1,4}", json->items[0].text) &&
         json->items[1].as_int().value_or(-1) >= 0 && *json->items[1].as_int() <= 99;
}

struct Structured : TestEngine {
  explicit Structured(EngineConfig config = {}) : TestEngine(std::move(config)) {}
  Reply ask(std::string_view fields) { return complete(cat(R"("prompt":"say it","max_tokens":200,"temperature":0)", fields)); }
  Reply chat(std::string_view fields) {
    return post("/v1/chat/completions", cat(R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":400)", fields, "}"));
  }
  std::string text(std::string_view fields) {
    const Reply reply = ask(fields);
    EXPECT_EQ(reply.status, 200) << reply.body;
    const Json json = reply.json();
    const Json& choice = json.find("choices")->items.at(0);
    EXPECT_EQ(choice.find("finish_reason")->text, "stop") << reply.body;
    return choice.find("text")->text;
  }
};

std::string seeded(int seed) { return cat(R"(,"temperature":1,"seed":)", seed); }

TEST(Structured, EverySpelling) {
  Structured e;
  for (int seed = 1; seed <= 4; ++seed) {
    const std::string s = seeded(seed);
    for (const char* key : {R"("guided_choice":["red","blue"])", R"("structured_outputs":{"choice":["red","blue"]})"})
      EXPECT_THAT(e.text(cat(",", key, s)), ::testing::AnyOf("red", "blue"));
    for (const char* key : {R"("guided_regex":"[ab]{3}-\\d")", R"("structured_outputs":{"regex":"[ab]{3}-\\d"})"})
      EXPECT_TRUE(matches("[ab]{3}-\\d", e.text(cat(",", key, s))));
    for (const char* key :
         {R"("guided_grammar":"root ::= \"x\" [0-9] \"y\"")", R"("structured_outputs":{"grammar":"start: \"x\" /[0-9]/ \"y\""})"})
      EXPECT_TRUE(matches("x[0-9]y", e.text(cat(",", key, s))));
    for (const std::string& key :
         {cat("\"guided_json\":", kSchema, kTight), cat("\"guided_json\":", json_string(kSchema), kTight),
          cat(R"("structured_outputs":{"disable_any_whitespace":true,"json":)", kSchema, "}"),
          cat(R"("response_format":{"type":"json_schema","json_schema":{"name":"p","strict":true,"schema":)", kSchema, "}}",
              kTight)})
      EXPECT_TRUE(is_person(e.text(cat(",", key, s)))) << key;
    EXPECT_TRUE(is_person(e.text(cat(R"(,"response_format":{"type":"text"},"guided_json":)", kSchema, kTight, s))));
  }
  e.expect_idle();
}

TEST(Structured, JsonObjectOfAChatStreamsTheSame) {
  Structured e;
  const std::string fields =
      cat(R"(,"response_format":{"type":"json_schema","json_schema":{"name":"p","schema":)", kSchema, "}}", kTight, seeded(5));
  const Reply whole = e.chat(fields);
  ASSERT_EQ(whole.status, 200) << whole.body;
  const Json json = whole.json();
  const std::string content = json.find("choices")->items[0].find_path({"message", "content"})->text;
  EXPECT_TRUE(is_person(content)) << content;
  std::string streamed;
  for (const std::string& event : sse(e.chat(cat(fields, R"(,"stream":true)")).body)) {
    if (event == "[DONE]") continue;
    const Json chunk = parse_json(event).value();
    if (const Json* text = chunk.find("choices")->items[0].find_path({"delta", "content"})) streamed += text->text;
  }
  EXPECT_EQ(streamed, content);
  // An object may go on without end, but never wrong: what is there when the tokens run out begins one.
  const Reply object = e.chat(R"(,"response_format":{"type":"json_object"},"max_tokens":20)");
  EXPECT_THAT(object.json().find("choices")->items[0].find_path({"message", "content"})->text, ::testing::StartsWith("{"));
}

TEST(Structured, ManyChoicesEachHeldToIt) {
  Structured e;
  const Reply reply = e.ask(cat(R"(,"n":4,"logprobs":2,"guided_regex":"[a-f]{4}[0-9]{2}")", seeded(9)));
  ASSERT_EQ(reply.status, 200) << reply.body;
  std::vector<std::string> texts;
  const Json json = reply.json();
  for (const Json& choice : json.find("choices")->items) {
    texts.push_back(choice.find("text")->text);
    EXPECT_TRUE(matches("[a-f]{4}[0-9]{2}", texts.back()));
    for (const Json& logprob : choice.find_path({"logprobs", "token_logprobs"})->items)
      EXPECT_LT(logprob.as_double(), -0.5) << "raw: of all tokens";
  }
  EXPECT_EQ(texts.size(), 4u);
  EXPECT_NE(texts[0], texts[1]);
}

TEST(Structured, EndsWithTheTextWhateverElseIsAsked) {
  Structured e;
  EXPECT_EQ(e.text(R"(,"guided_choice":["ab"])"), "ab");
  EXPECT_EQ(e.text(R"(,"guided_choice":["ab"],"min_tokens":20)"), "ab");
  EXPECT_EQ(e.text(R"(,"guided_choice":["ab"],"ignore_eos":true)"), "ab");
  // It may end after any letter, with ignore_eos it does only where it must.
  EXPECT_EQ(e.text(R"(,"guided_regex":"a{1,30}","ignore_eos":true)"), std::string(30, 'a'));
  const Reply stopped = e.ask(R"(,"guided_choice":["abcd"],"stop":"c")");
  EXPECT_EQ(stopped.json().find("choices")->items[0].find("text")->text, "ab");
  const Reply cut = e.ask(R"(,"guided_regex":"a{50}","max_tokens":3)");
  EXPECT_EQ(cut.json().find("choices")->items[0].find("finish_reason")->text, "length");
  const Reply nothing = e.ask(R"(,"guided_choice":["ab"],"allowed_token_ids":[5])");
  EXPECT_EQ(nothing.status, 500);
  EXPECT_THAT(nothing.error(), HasSubstr("leaves no token to sample"));
  e.expect_idle();
}

TEST(Structured, RefusedByName) {
  Structured e;
  const std::tuple<const char*, int, const char*> cases[] = {
      {R"(,"guided_json":{"type":"integer","multipleOf":2})", 400, "features not supported: \"multipleOf\" at #"},
      {R"(,"guided_json":"{")", 400, "guided_json: Invalid JSON"},
      {R"(,"guided_json":7)", 400, "guided_json: Input should be a valid dictionary or string"},
      {R"(,"guided_regex":"(a")", 400, "( without )"},
      {R"(,"guided_grammar":"x")", 400, "line 1 of the grammar"},
      {R"(,"guided_choice":[])", 400, "guided_choice: List should have at least 1 item"},
      {R"(,"guided_choice":["a"],"guided_regex":"a")", 400, "You can only use one kind of structured outputs constraint"},
      {R"(,"structured_outputs":{"json":{},"regex":"a"})", 400, "structured_outputs.json, structured_outputs.regex"},
      {R"(,"structured_outputs":{})", 400, "none are specified"},
      {R"(,"structured_outputs":{"structural_tag":"x"})", 400, "structured_outputs.structural_tag: Invalid JSON"},
      {R"(,"response_format":{"type":"structural_tag"})", 400, "neither \"format\" nor \"structures\""},
      {R"(,"response_format":{"type":"structural_tag","format":{"type":"token","token":1}})", 400, "\"token\" is not supported"},
      {R"(,"response_format":{"type":"json_schema"})", 400, "the 'json_schema' field must be provided"},
      {R"(,"response_format":{"type":"xml"})", 400, "Input should be 'text', 'json_object'"},
  };
  for (const auto& [fields, status, message] : cases) {
    const Reply reply = e.ask(fields);
    EXPECT_EQ(reply.status, status) << fields;
    EXPECT_THAT(reply.error(), HasSubstr(message)) << fields;
  }
}

constexpr const char* kTools =
    R"(,"tools":[{"type":"function","function":{"name":"weather","parameters":{"type":"object","properties":{"city":{"enum":["Rome","Oslo"]}},"required":["city"]}}},)"
    R"({"type":"function","function":{"name":"dice","parameters":{"type":"object","properties":{"n":{"type":"integer","minimum":1,"maximum":6}},"required":["n"]}}}])";

struct Calls {
  std::string text, finish, content = "-";
};

void add(const Json& message, Calls& got) {
  if (const Json* content = message.find("content")) got.content = content->is_null() ? "null" : content->text;
  const Json* calls = message.find("tool_calls");
  for (size_t i = 0; calls && i < calls->items.size(); ++i) {
    const Json& function = *calls->items[i].find("function");
    if (const Json* name = function.find("name")) got.text += cat(got.text.empty() ? "" : ";", name->text);
    got.text += function.find("arguments")->text;
  }
}

TEST(Structured, ForcedCalls) {
  Structured e;  // no --tool-call-parser is needed
  const std::string call = R"x((weather\{"city":"(Rome|Oslo)"\}|dice\{"n":[1-6]\}))x";
  for (const auto& [choice, pattern, finish] :
       {std::tuple{R"("required","parallel_tool_calls":false)", call, "tool_calls"},
        std::tuple{R"("required")", cat(call, "(;", call, ")*"), "tool_calls"},
        std::tuple{R"({"type":"function","function":{"name":"dice"}})", std::string(R"(dice\{"n":[1-6]\})"), "stop"}}) {
    for (int seed = 1; seed <= 3; ++seed) {
      const std::string fields = cat(kTools, R"(,"tool_choice":)", choice, R"(,"logit_bias":{"93":100})", seeded(seed));
      const Reply whole = e.chat(fields);
      ASSERT_EQ(whole.status, 200) << whole.body;
      const Json json = whole.json();
      const Json& answer = json.find("choices")->items[0];
      Calls got{.text = "", .finish = answer.find("finish_reason")->text};
      add(*answer.find("message"), got);
      if (got.finish == "length") continue;  // one call after the other
      std::string tight = got.text;  // the model writes white space at random, and none in a value
      std::erase_if(tight, [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; });
      EXPECT_TRUE(matches(pattern, tight)) << got.text;
      EXPECT_EQ(got.finish, finish);
      EXPECT_EQ(got.content, "");
      Calls streamed;
      for (const std::string& event : sse(e.chat(cat(fields, R"(,"stream":true)")).body)) {
        if (event == "[DONE]") continue;
        const Json chunk = parse_json(event).value();
        const Json& part = chunk.find("choices")->items[0];
        add(*part.find("delta"), streamed);
        streamed.finish += part.find("finish_reason")->text;
      }
      EXPECT_EQ(streamed.text, got.text);
      EXPECT_EQ(streamed.finish, finish);
    }
  }
  EXPECT_EQ(e.chat(cat(kTools, R"(,"tool_choice":"required","guided_choice":["a"])")).error(),
            "You can only either use constraints for structured outputs or tools, not both.");
  e.expect_idle();
}

TEST(Structured, BeginsBehindTheThoughts) {
  EngineConfig config;
  config.reasoning_parser = "deepseek_r1";
  Structured e(std::move(config));
  const Json tokens = e.post("/tokenize", R"({"add_special_tokens":false,"prompt":"Let me see: {}</think>"})").json();
  std::vector<int32_t> ids;
  for (const Json& id : tokens.find("tokens")->items) ids.push_back(static_cast<int32_t>(*id.as_int()));
  e.model->say(std::move(ids));
  const Reply reply = e.chat(R"(,"temperature":0,"guided_regex":"[a-f]{3}")");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json json = reply.json();
  const Json& message = *json.find("choices")->items[0].find("message");
  EXPECT_EQ(message.find("reasoning_content")->text, "Let me see: {}");
  EXPECT_TRUE(matches("[a-f]{3}", message.find("content")->text)) << message.find("content")->text;
}

EngineConfig worker(std::vector<std::string> peers = {}) {
  log_setup("engine_test", LogLevel::kError);
  EngineConfig config;
  config.kv_transfer = true;
  config.kv_port = 0;
  config.kv_transport = "tcp";
  config.kv_peers = std::move(peers);
  config.kv_lease_s = 60;
  return config;
}

// The prefill worker samples the first token, so it is masked there; what it sampled without is not taken.
TEST(Structured, OverTwoWorkers) {
  Structured prefill(worker());
  Structured decode(worker({cat("127.0.0.1:", prefill.engine->kv_port())}));
  Structured alone;
  ASSERT_TRUE(TestEngine::wait_for([&] { return decode.metric("kv_peer_state") == 1; }));
  const std::string prompt = R"("prompt":"a prompt of some length, so that there is something to hand over","temperature":0)";
  const std::string regex = R"(,"guided_regex":"[q-z]{3}[0-9]{3}")";
  const auto leg = [&](const std::string& fields) {
    const Reply reply =
        prefill.complete(cat(prompt, fields, R"(,"max_tokens":1,"min_tokens":1,"kv_transfer_params":{"do_remote_decode":true})"));
    EXPECT_EQ(reply.status, 200) << reply.body;
    const Json json = reply.json();
    return std::string(json.find("kv_transfer_params")->raw(reply.body));
  };
  const auto finish = [&](TestEngine& e, const std::string& params) {
    const Reply reply =
        e.complete(cat(prompt, regex, R"(,"max_tokens":50)", params.empty() ? "" : R"(,"kv_transfer_params":)", params));
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.json().find("choices")->items[0].find("text")->text;
  };
  const std::string want = finish(alone, "");
  EXPECT_TRUE(matches("[q-z]{3}[0-9]{3}", want)) << want;
  EXPECT_EQ(finish(decode, leg(regex)), want);
  EXPECT_EQ(decode.metric("kv_fallback_total"), 0);
  EXPECT_EQ(finish(decode, leg(R"(,"guided_choice":["0"])")), want);
  prefill.expect_idle();
  decode.expect_idle();
}

// Blocks are taken from a sequence and what it wrote is computed again: its place in the constraint is kept.
TEST(Structured, PreemptedOnesGoOnWhereTheyWere) {
  const std::string letters = "abcdefghijklmnopqrstuvwxyz";
  const auto bytes_of = [&](int32_t id) {
    return id == 0 ? std::string_view() : std::string_view(letters).substr(static_cast<size_t>(id) % 26, 1);
  };
  const auto vocabulary = std::make_shared<const grammar::Vocabulary>(300, bytes_of, false);
  const auto constraint =
      grammar::compile({.kind = grammar::Constraint::Kind::kRegex, .text = "([a-m][n-z]){20,60}"}, vocabulary).value();
  const testing::WorkerSetup tight{.blocks = 30, .scheduler = {.max_num_batched_tokens = 256, .max_model_len = 400}};
  testing::Worker w(tight);
  Prng prng(11);
  std::vector<std::pair<testing::Ask, testing::Handle>> running;
  for (int i = 0; i < 12; ++i) {
    testing::Ask ask{.prompt = testing::random_prompt(prng), .max_tokens = 200, .eos = {0}, .constraint = constraint};
    running.emplace_back(ask, testing::submit(w, ask));
  }
  w.run();
  EXPECT_GT(w.em.preemptions.value(), 0);
  for (const auto& [ask, handle] : running) {
    const testing::Outcome got = std::move(testing::collect(handle)[0]);
    EXPECT_EQ(got.tokens, testing::alone(ask).tokens);
    EXPECT_EQ(got.finish, Finish::kStop);
    ASSERT_FALSE(got.tokens.empty());
    EXPECT_EQ(got.tokens.back(), 0);
    EXPECT_EQ(got.tokens.size() % 2, 1u);
    for (size_t k = 0; k + 1 < got.tokens.size(); ++k) EXPECT_EQ(got.tokens[k] % 26 < 13, k % 2 == 0);
  }
}

}  // namespace
}  // namespace baton::engine
