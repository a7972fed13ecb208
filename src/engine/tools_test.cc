// Tool calls and reasoning as clients see them: a model that says what the test wants, HTTP in, HTTP out.
#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using ::testing::HasSubstr;
using testing::Reply;
using testing::sse;
using testing::TestEngine;

// What an answer came to, whole or put together from a stream.
struct Got {
  std::string role, content, reasoning, finish;
  bool null_content = true;
  struct Call {
    std::string id, name, arguments;
  };
  std::vector<Call> calls;
  int chunks = 0;
};

std::string call_text(const Got& got) {
  std::string out;
  for (const Got::Call& call : got.calls) out += cat(call.name, call.arguments, ";");
  return out;
}

struct Speaker : TestEngine {
  static EngineConfig config_of(std::string tool_parser, std::string reasoning_parser) {
    EngineConfig config;
    config.auto_tool_choice = !tool_parser.empty();
    config.tool_call_parser = std::move(tool_parser);
    config.reasoning_parser = std::move(reasoning_parser);
    return config;
  }
  explicit Speaker(std::string tool_parser, std::string reasoning_parser = "")
      : TestEngine(config_of(std::move(tool_parser), std::move(reasoning_parser))) {}

  void say(std::string_view text, bool ends = true) {
    const Json tokens =
        post("/tokenize", cat(R"({"add_special_tokens":false,"prompt":)", json_string(cat(text, ends ? "<|im_end|>" : "")), "}"))
            .json();
    std::vector<int32_t> ids;
    for (const Json& id : tokens.find("tokens")->items) ids.push_back(static_cast<int32_t>(*id.as_int()));
    said = ids.size();
    model->say(std::move(ids));
  }
  Reply chat(std::string_view fields) {
    return post("/v1/chat/completions", cat(R"({"messages":[{"role":"user","content":"hi"}],"temperature":0)", fields, "}"));
  }
  Got whole(std::string_view text, std::string_view fields) {
    say(text);
    const Reply reply = chat(fields);
    EXPECT_EQ(reply.status, 200) << reply.body;
    const Json json = reply.json();
    const Json& choice = json.find("choices")->items.at(0);
    const Json& message = *choice.find("message");
    Got got;
    got.role = message.find("role")->text;
    got.content = message.find("content")->text;
    got.finish = choice.find("finish_reason")->text;
    got.reasoning = message.find("reasoning_content")->text;
    got.null_content = message.find("content")->is_null();
    for (const Json& call : message.find("tool_calls")->items) {
      EXPECT_EQ(call.find("type")->text, "function");
      got.calls.push_back(
          {call.find("id")->text, call.find_path({"function", "name"})->text, call.find_path({"function", "arguments"})->text});
    }
    return got;
  }
  static void add_delta(const Json& delta, Got& got) {
    if (const Json* role = delta.find("role")) got.role += role->text;
    if (const Json* content = delta.find("content")) got.content += content->text, got.null_content &= content->text.empty();
    if (const Json* thought = delta.find("reasoning_content")) {
      got.reasoning += thought->text;
      EXPECT_EQ(delta.find("reasoning")->text, thought->text);
    }
    const Json* calls = delta.find("tool_calls");
    for (size_t i = 0; calls && i < calls->items.size(); ++i) {
      const Json& call = calls->items[i];
      const Json& function = *call.find("function");
      if (call.find("id")) {
        EXPECT_EQ(call.find("index")->as_int(), static_cast<int64_t>(got.calls.size()));
        EXPECT_EQ(call.find("type")->text, "function");
        EXPECT_EQ(function.find("arguments")->text, "");  // the name comes alone
        got.calls.push_back({call.find("id")->text, function.find("name")->text, ""});
      } else {
        EXPECT_EQ(call.find("index")->as_int(), static_cast<int64_t>(got.calls.size()) - 1);
        EXPECT_EQ(function.keys.size(), 1u);
        got.calls.back().arguments += function.find("arguments")->text;
      }
    }
  }
  Got stream(std::string_view text, std::string_view fields, bool ends = true) {
    say(text, ends);
    const Reply reply = chat(cat(fields, R"(,"stream":true,"return_token_ids":true,"logprobs":true)"));
    EXPECT_EQ(reply.status, 200) << reply.body;
    Got got;
    size_t ids = 0, rows = 0;
    for (const std::string& event : sse(reply.body)) {
      if (event == "[DONE]") continue;
      ++got.chunks;
      const Json json = parse_json(event).value();
      const Json& choice = json.find("choices")->items.at(0);
      add_delta(*choice.find("delta"), got);
      EXPECT_EQ(got.finish, "") << "a chunk after the last";
      got.finish = choice.find("finish_reason")->text;
      if (const Json* list = choice.find("token_ids")) ids += list->items.size();
      if (const Json* logprobs = choice.find_path({"logprobs", "content"})) rows += logprobs->items.size();
    }
    if (ends) EXPECT_EQ(ids, said);  // a step that is held back loses none
    EXPECT_EQ(rows, ids);
    return got;
  }

  size_t said = 0;
};

constexpr const char* kTools =
    R"(,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"integer"}}}}}])";

TEST(Tools, EveryParserWholeAndStreamed) {
  const std::pair<const char*, const char*> said[] = {
      {"hermes",
       "Well.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 12345}}\n</tool_call>\n<tool_call>{\"name\": \"g\", "
       "\"arguments\": {}}</tool_call>"},
      {"llama3_json", R"({"name": "f", "parameters": {"a": 12345}}; {"name": "g", "parameters": {}})"},
      {"mistral", R"(Well.[TOOL_CALLS][{"name": "f", "arguments": {"a": 12345}}, {"name": "g", "arguments": {}}])"},
      {"pythonic", "[f(a=12345), g()]"},
      {"qwen3_coder",
       "Well.<tool_call>\n<function=f>\n<parameter=a>\n12345\n</parameter>\n</function>\n<function=g></function></tool_call>"},
  };
  for (const auto& [parser, text] : said) {
    Speaker e(parser);
    const bool well = std::string_view(text).starts_with("Well.");
    for (const Got& got : {e.whole(text, kTools), e.stream(text, kTools)}) {
      EXPECT_EQ(call_text(got), "f{\"a\": 12345};g{};") << parser;
      EXPECT_EQ(got.finish, "tool_calls") << parser;
      EXPECT_EQ(got.content, well ? "Well." : "") << parser;
      EXPECT_EQ(got.null_content, !well) << parser;
      EXPECT_EQ(got.role, "assistant");
      ASSERT_EQ(got.calls.size(), 2u);
      EXPECT_NE(got.calls[0].id, got.calls[1].id);
      if (std::string_view(parser) == "mistral")
        EXPECT_EQ(got.calls[0].id.size(), 9u);
      else
        EXPECT_TRUE(got.calls[0].id.starts_with("chatcmpl-tool-") && got.calls[0].id.size() == 14 + 32) << got.calls[0].id;
    }
    EXPECT_GT(e.stream(text, kTools).chunks,
              std::string_view(parser) == "pythonic" || std::string_view(parser) == "qwen3_coder" ? 5 : 8)
        << parser;
    const Got one = e.stream(text, cat(kTools, R"(,"parallel_tool_calls":false)"));
    EXPECT_EQ(call_text(one), "f{\"a\": 12345};") << parser;
    // tool_choice none: the text is the answer.
    EXPECT_EQ(e.whole(text, cat(kTools, R"(,"tool_choice":"none")")).content, text) << parser;
    EXPECT_EQ(e.whole(text, "").finish, "stop") << parser;
    e.expect_idle();
  }
}

TEST(Tools, TheParsersWorkIsCounted) {
  Speaker e("hermes");
  const std::string page = e.get("/metrics").body;
  const std::string_view name = "vllm:tool_call_parser_invocations_total{mode=\"streaming\",";
  const size_t at = page.find(name) + name.size();
  ASSERT_GT(at, name.size());
  const std::string model = page.substr(at, page.find(',', at) - at);  // its label
  const auto counted = [&](std::string_view mode, std::string_view outcome) {
    return e.metric("vllm:tool_call_parser_invocations_total",
                    cat("{mode=\"", mode, "\",", model, ",outcome=\"", outcome, R"(",request_type="chat_completions"})"));
  };
  (void)e.whole("<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", kTools);
  (void)e.whole("No.", kTools);
  (void)e.whole("No tools.", "");
  EXPECT_EQ(counted("non_streaming", "tool_call"), 1);
  EXPECT_EQ(counted("non_streaming", "no_tool_call"), 1);
  EXPECT_EQ(counted("streaming", "tool_call"), 0);
  (void)e.stream("<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", kTools);
  EXPECT_GT(counted("streaming", "tool_call"), 0);
  EXPECT_GT(counted("streaming", "no_tool_call"), 0);
}

TEST(Tools, TextStaysText) {
  Speaker e("hermes");
  for (const char* text : {"No tool is needed <here>.", "<tool_call>what?</tool_call>", "a <tool_ca"}) {
    for (const Got& got : {e.whole(text, kTools), e.stream(text, kTools)}) {
      EXPECT_EQ(got.content, text);
      EXPECT_EQ(got.finish, "stop");
      EXPECT_TRUE(got.calls.empty());
    }
  }
}

TEST(Tools, ACallThatIsCutOffIsNone) {
  Speaker e("hermes");
  const std::string text = R"(<tool_call>{"name": "f", "arguments": {"a": "some long text"}}</tool_call>)";
  const size_t tokens = (e.say(text, false), e.said);
  const std::string fields = cat(kTools, ",\"max_tokens\":", tokens - 16);
  const Got whole = e.whole(text, fields);
  EXPECT_TRUE(whole.calls.empty());
  EXPECT_THAT(whole.content, HasSubstr("<tool_call>{\"name\": \"f\""));
  EXPECT_EQ(whole.finish, "length");
  const Got stream = e.stream(text, fields, false);
  EXPECT_EQ(stream.finish, "length");  // the name was sent, and the client is told that it is not whole
  ASSERT_EQ(stream.calls.size(), 1u);
  EXPECT_FALSE(parse_json(stream.calls[0].arguments));
}

TEST(Tools, ReasoningIsApart) {
  Speaker e("hermes", "deepseek_r1");
  const std::string text = "Let me see.\n</think>\n\nIt is <tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
  for (const Got& got : {e.whole(text, kTools), e.stream(text, kTools)}) {
    EXPECT_EQ(got.reasoning, "Let me see.\n");
    EXPECT_EQ(got.content, "\n\nIt is ");
    EXPECT_EQ(call_text(got), "f{};");
    EXPECT_EQ(got.finish, "tool_calls");
  }
  for (const Got& got : {e.whole(text, R"(,"include_reasoning":false)"), e.stream(text, R"(,"include_reasoning":false)")}) {
    EXPECT_EQ(got.reasoning, "");
    EXPECT_TRUE(got.content.starts_with("\n\nIt is <tool_call>")) << got.content;
  }
  const Got only = e.whole("never ends", "");
  EXPECT_EQ(only.reasoning, "never ends");
  EXPECT_TRUE(only.null_content);
}

constexpr const char* kHarmony =
    "<|channel|>analysis<|message|>I need "
    "f.<|end|><|start|>assistant<|channel|>commentary<|message|>Well.<|end|><|start|>assistant"
    "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 12345}<|call|>";

TEST(Tools, GptOssWritesMessages) {
  Speaker e("openai", "openai_gptoss");
  for (const Got& got : {e.whole(kHarmony, kTools), e.stream(kHarmony, kTools)}) {
    EXPECT_EQ(got.reasoning, "I need f.");
    EXPECT_EQ(got.content, "Well.");
    EXPECT_EQ(call_text(got), "f{\"a\": 12345};");
    EXPECT_EQ(got.finish, "tool_calls");
  }
  const std::string final = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hi";
  for (const Got& got : {e.whole(final, R"(,"reasoning_effort":"high")"), e.stream(final, "")}) {
    EXPECT_EQ(got.reasoning, "hm");
    EXPECT_EQ(got.content, "Hi");
    EXPECT_EQ(got.finish, "stop");
  }
  for (const Got& got : {e.whole(final, R"(,"include_reasoning":false)"), e.stream(final, R"(,"include_reasoning":false)")}) {
    EXPECT_EQ(got.reasoning, "");
    EXPECT_EQ(got.content, "Hi");
  }
  // Without tools, or with tool_choice none, what it sends to a function is content.
  for (const std::string& fields : {std::string(), cat(kTools, R"(,"tool_choice":"none")")}) {
    const Got got = e.whole(kHarmony, fields);
    EXPECT_EQ(got.content, "Well.\n{\"a\": 12345}");
    EXPECT_TRUE(got.calls.empty());
    EXPECT_EQ(got.finish, "stop");
  }
  // A call that is cut off is told from a whole one by how the answer ended.
  const std::string_view cut = std::string_view(kHarmony).substr(0, std::string_view(kHarmony).find("}<|call|>"));
  const std::string fields = cat(kTools, ",\"max_tokens\":", (e.say(cut, false), e.said));
  for (const Got& got : {e.whole(cut, fields), e.stream(cut, fields, false)}) {
    EXPECT_EQ(call_text(got), "f{\"a\": 12345;");
    EXPECT_EQ(got.finish, "length");
  }
  e.expect_idle();
}

TEST(Tools, GptOssInTheOtherApis) {
  Speaker e("openai", "openai_gptoss");
  e.say(kHarmony);
  const Json response =
      e.post("/v1/responses", R"({"input":"hi","temperature":0,"tools":[{"type":"function","name":"f"}]})").json();
  std::string items;
  for (const Json& item : response.find("output")->items) items += item.find("type")->text + ";";
  EXPECT_EQ(items, "reasoning;message;function_call;");
  EXPECT_EQ(response.find("output")->items[2].find("arguments")->text, "{\"a\": 12345}");
  // As many as the analysis has; its end, which is one token of the real model, is seven here, the last of which is none of it.
  e.say("I need f.", false);
  const auto thought = response.find_path({"usage", "output_tokens_details", "reasoning_tokens"})->as_int().value_or(0);
  EXPECT_GE(thought, static_cast<int64_t>(e.said));
  EXPECT_LE(thought, static_cast<int64_t>(e.said) + 6);
  e.say(kHarmony);
  const Reply messages =
      e.post("/v1/messages", R"({"model":"tiny","max_tokens":400,"messages":[{"role":"user","content":"hi"}],"temperature":0,)"
                             R"("tools":[{"name":"f","input_schema":{"type":"object"}}]})");
  ASSERT_EQ(messages.status, 200) << messages.body;
  const Json message = messages.json();
  std::string blocks;
  for (const Json& block : message.find("content")->items) blocks += block.find("type")->text + ";";
  EXPECT_EQ(blocks, "thinking;text;tool_use;");
  EXPECT_EQ(message.find("stop_reason")->text, "tool_use");
}

TEST(Tools, GptOssThinksHardByThreeNames) {
  Speaker e("openai", "openai_gptoss");
  const auto error = [&](std::string_view effort) {
    const Reply reply = e.chat(cat(R"(,"max_tokens":1,"reasoning_effort":")", effort, "\""));
    return reply.status == 200 ? "" : reply.error();
  };
  for (const char* effort : {"low", "medium", "high"}) EXPECT_EQ(error(effort), "");
  EXPECT_EQ(error("none"), "Harmony does not support reasoning_effort='none'");
  EXPECT_EQ(error("minimal"), "reasoning_effort='minimal' is not supported by Harmony. Supported values are: high, medium, low.");
}

// Its parsers are those of its format unless others are asked for, and it may call tools.
TEST(Tools, GptOssNeedsNoFlags) {
  TestEngine plain({}, 300, "gpt-oss");
  const std::string ask = cat(R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":2)", kTools, "}");
  EXPECT_EQ(plain.post("/v1/chat/completions", ask).status, 200);
  const std::string none = R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":2,"reasoning_effort":"none"})";
  EXPECT_THAT(plain.post("/v1/chat/completions", none).error(), HasSubstr("Harmony"));
}

TEST(Tools, WhatTheTemplateOpensOrCloses) {
  Speaker e("", "qwen3");
  const std::string_view think =
      R"(,"chat_template":"{{ messages[0].content }}{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}")";
  for (const Got& got : {e.whole("hm</think>Yes", think), e.stream("hm</think>Yes", think)}) {
    EXPECT_EQ(got.reasoning, "hm");
    EXPECT_EQ(got.content, "Yes");
  }
  const std::string off = cat(think, R"(,"chat_template_kwargs":{"enable_thinking":false})");
  for (const Got& got : {e.whole("Yes", off), e.stream("Yes", off)}) {
    EXPECT_EQ(got.reasoning, "");
    EXPECT_EQ(got.content, "Yes");
  }
}

TEST(Tools, RefusedWhereNoParserIsSetUp) {
  TestEngine e;
  const auto ask = [&](std::string_view fields) {
    return e.post("/v1/chat/completions", cat(R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":2)", fields, "}"));
  };
  EXPECT_EQ(ask(kTools).status, 400);
  EXPECT_EQ(ask(kTools).error(), "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set");
  EXPECT_EQ(ask(cat(kTools, R"(,"tool_choice":"required")")).status, 200);
  EXPECT_EQ(ask(cat(kTools, R"(,"tool_choice":"none")")).status, 200);
}

// The second turn: a call, its answer, and what was thought, through a template that writes them.
TEST(Tools, ACallAndItsAnswerRender) {
  TestEngine e;
  const std::string chat_template =
      "{%- if tools %}{% for t in tools %}[{{ t.function.name }}]{% endfor %}{% endif %}{% for m in messages %}<{{ m.role }}>{{ "
      "m.reasoning_content }}|{{ m.content }}"
      "{% for c in m.tool_calls %}call {{ c.function.name }} {{ c.function.arguments | tojson }} {{ c.function.arguments.a + 1 "
      "}}{% endfor %}{{ m.tool_call_id }}{% endfor %}";
  const Json tokens =
      e.post(
           "/tokenize",
           cat(R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null,"reasoning":"hm","tool_calls":)",
               R"([{"id":"x","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]},)",
               R"({"role":"tool","tool_call_id":"x","content":"42"}],"chat_template":)", json_string(chat_template), kTools, "}"))
          .json();
  ASSERT_TRUE(tokens.find("tokens"));
  std::string ids;
  for (const Json& id : tokens.find("tokens")->items) ids += (ids.empty() ? "" : ",") + id.text;
  EXPECT_EQ(e.post("/detokenize", cat("{\"tokens\":[", ids, "]}")).json().find("prompt")->text,
            "[f]<user>|hi<assistant>hm|call f {\"a\": 1} 2<tool>|42x");
}

}  // namespace
}  // namespace baton::engine
