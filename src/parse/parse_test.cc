// The parsers by cases written as text (tests/cases/tools/*/*.txt, see the README there), each of them cut in every way that
// matters: the same events come out.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>

#include "base/file.h"
#include "base/prng.h"
#include "parse/message.h"

namespace baton::parse {
namespace {

struct Case {
  std::string name, text;
  MessageFormat format;
  std::string prompt, continued;
  Message want;
  std::optional<Message> stream;  // where the stream differs: the call proved malformed after its name had gone out
  bool broken = false;
};

std::string as_text(const Message& m) {
  std::string out = cat("reasoning ", m.reasoning ? json_string(*m.reasoning) : "null", "\ncontent ",
                        m.content ? json_string(*m.content) : "null", "\n");
  for (const ToolCall& call : m.calls) out += cat("call ", call.name, " ", call.arguments, "\n");
  return out;
}

void expect_line(const std::string& word, const std::string& rest, Case& c, Message& to) {
  if (word == "broken") {
    c.broken = true;
  } else if (word == "call") {
    const size_t space = rest.find(' ');
    to.calls.push_back({rest.substr(0, space), space == std::string::npos ? "" : rest.substr(space + 1)});
  } else {
    ASSERT_TRUE(word == "content" || word == "reasoning") << c.name << ": " << word;
    const auto value = parse_json(rest);
    ASSERT_TRUE(value && value->is_string()) << c.name << ": " << rest;
    (word == "content" ? to.content : to.reasoning) = value->text;
  }
}

void head_line(const std::string& word, const std::string& rest, Case& c) {
  if (word == "parser") {
    c.format.tool_parser = rest == "required" ? &kRequiredCalls : rest == "named" ? &kNamedCall : find_tool_parser(rest);
    ASSERT_NE(c.format.tool_parser, nullptr) << c.name;
    if (c.format.tool_parser->harmony) c.format.harmony = harmony_begun(c.prompt);
  } else if (word == "reasoning") {
    const ReasoningRow* row = find_reasoning_parser(rest);
    ASSERT_NE(row, nullptr) << c.name;
    if (row->harmony) {
      c.format.harmony = harmony_begun(c.prompt);
      return;
    }
    c.format.reasoning = Reasoning::start_of(*row, c.prompt, c.continued);
    c.format.tags = row->tags;
  } else if (word == "prompt") {
    c.prompt = parse_json(rest)->text;
  } else if (word == "continued") {
    c.continued = parse_json(rest)->text;
  } else if (word == "tools") {
    c.format.tools = std::make_shared<const Json>(*parse_json(rest));
  } else if (word == "one_call") {
    c.format.parallel_calls = false;
  } else {
    FAIL() << c.name << ": " << word;
  }
}

Case read_case(const std::filesystem::path& path) {
  Case c;
  c.name = path.parent_path().filename().string() + "/" + path.stem().string();
  c.format.tools = std::make_shared<const Json>();
  const std::string file = read_file(path.string(), 1 << 20).value();
  const size_t text = file.find("---\n") + 4, want = file.find("\n---\n", text - 1);
  EXPECT_NE(want, std::string::npos) << path;
  c.text = want < text ? "" : file.substr(text, want - text);
  int part = 0;
  for (size_t at = 0; at < file.size();) {
    const size_t end = std::min(file.find('\n', at), file.size());
    const std::string line = file.substr(at, end - at);
    if (at == text) {
      part = 1;
      at = want + 5;
      continue;
    }
    at = end + 1;
    if (line.empty() || line == "---" || line[0] == '#') continue;
    const size_t space = std::min(line.find(' '), line.size());
    const std::string word = line.substr(0, space), rest = space < line.size() ? line.substr(space + 1) : "";
    if (part == 0)
      head_line(word, rest, c);
    else if (word == "stream")
      c.stream.emplace();
    else
      expect_line(word, rest, c, c.stream ? *c.stream : c.want);
  }
  return c;
}

std::vector<Case> all_cases() {
  std::vector<Case> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(BATON_SOURCE_DIR "/tests/cases/tools")) {
    if (entry.path().extension() == ".txt") out.push_back(read_case(entry.path()));
  }
  EXPECT_GT(out.size(), 30u);
  return out;
}

struct Stream {
  Events events;
  bool broken = false;
};
// next(left) says how many bytes the next piece has.
template <class Next>
Stream streamed(const Case& c, Next next) {
  MessageParser parser(c.format);
  Stream out;
  const auto take = [&](const Events& events) {
    for (const Event& event : events) append(out.events, event);
  };
  for (std::string_view text = c.text; !text.empty();) {
    const size_t n = next(text.size());
    take(parser.add(text.substr(0, n)));
    text.remove_prefix(n);
  }
  take(parser.finish());
  out.broken = parser.broken();
  return out;
}

Message message_of(const Events& events) {
  Message m;
  for (const Event& e : events) {
    if (e.kind == Event::Kind::kReasoning) m.reasoning = m.reasoning.value_or("") + e.text;
    if (e.kind == Event::Kind::kContent) m.content = m.content.value_or("") + e.text;
    if (e.kind == Event::Kind::kCall) m.calls.push_back({e.text, ""});
    if (e.kind == Event::Kind::kArguments) m.calls.back().arguments += e.text;
  }
  return m;
}

TEST(Parse, Cases) {
  for (const Case& c : all_cases()) {
    EXPECT_EQ(as_text(parse_message(c.format, c.text)), as_text(c.want)) << c.name;
    const Stream whole = streamed(c, [](size_t left) { return left; });
    EXPECT_EQ(whole.broken, c.broken) << c.name;
    EXPECT_EQ(as_text(message_of(whole.events)), as_text(c.stream.value_or(c.want))) << c.name << ", streamed";
  }
}

void expect_same_however_cut(const Case& c, Prng& prng) {
  const Events whole = streamed(c, [](size_t left) { return left; }).events;
  EXPECT_EQ(streamed(c, [](size_t) { return size_t{1}; }).events, whole) << c.name;
  for (size_t first = 1; first < c.text.size(); ++first) {
    bool cut = false;
    EXPECT_EQ(streamed(c, [&](size_t left) { return std::exchange(cut, true) ? left : first; }).events, whole)
        << c.name << " cut at " << first;
  }
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(streamed(c, [&](size_t left) { return std::min(left, static_cast<size_t>(prng.between(1, 9))); }).events, whole)
        << c.name;
  }
}

TEST(Parse, NoCutChangesAnEvent) {
  Prng prng(7);
  for (const Case& c : all_cases()) expect_same_however_cut(c, prng);
}

// Cases with bytes changed, left out and doubled: nothing crashes, no text is lost where no call is seen, and what is called a
// call has JSON arguments.
TEST(Parse, DamagedTextIsContent) {
  Prng prng(8);
  for (Case c : all_cases()) {
    const std::string text = c.text;
    if (text.empty() || c.format.reasoning) continue;
    if (c.format.tool_parser == &kNamedCall) continue;  // arguments are whatever was written: the grammar sees to it
    for (int i = 0; i < 200; ++i) {
      c.text = text;
      for (int edits = static_cast<int>(prng.between(1, 3)); edits > 0 && !c.text.empty(); --edits) {
        const auto at = static_cast<size_t>(prng.below(c.text.size()));
        const int kind = static_cast<int>(prng.below(3));
        if (kind == 0) c.text[at] = "{}[]()<>\"'\\,:=a1 "[prng.below(17)];
        if (kind == 1) c.text.erase(at, static_cast<size_t>(prng.between(1, 8)));
        if (kind == 2) c.text.insert(at, c.text.substr(at, static_cast<size_t>(prng.between(1, 8))));
      }
      const Message m = parse_message(c.format, c.text);
      if (m.calls.empty() && !c.format.harmony) EXPECT_EQ(m.content.value_or(""), c.text) << c.name;
      for (const ToolCall& call : m.calls) {
        if (valid_utf8(c.text) && !c.format.harmony)
          EXPECT_TRUE(parse_json(call.arguments)) << c.name << "\n" << c.text << "\n" << call.arguments;
      }
      EXPECT_EQ(streamed(c, [&](size_t left) { return std::min(left, static_cast<size_t>(prng.between(1, 9))); }).events,
                streamed(c, [](size_t left) { return left; }).events)
          << c.text;
    }
  }
}

// Messages with tags left out, doubled and in a wrong order: a word that stands where a body may be is never lost.
TEST(Parse, HarmonyLosesNoWord) {
  Prng prng(9);
  constexpr std::string_view kHeads[] = {"<|channel|>analysis<|message|>",
                                         "<|channel|>final<|message|>",
                                         "<|channel|>commentary<|message|>",
                                         "<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
                                         " to=g<|channel|>commentary json<|message|>",
                                         "<|channel|>commentary to=python<|message|>"};
  constexpr std::string_view kEnds[] = {"<|end|>", "<|call|>", "<|return|>", "<|end", ""};
  constexpr std::string_view kStarts[] = {"<|start|>assistant", "<|start|>", "<|start|>user", "assistant", "\n", ""};
  for (int round = 0; round < 3000; ++round) {
    Case c;
    c.format.harmony = kHarmonyHeader;
    if (prng.chance(0.7)) c.format.tool_parser = find_tool_parser("openai");
    std::vector<std::string> words;
    for (uint64_t parts = 1 + prng.below(4); parts > 0; --parts) {
      if (prng.chance(0.9)) c.text += kHeads[prng.below(std::size(kHeads))];
      words.push_back(cat("{w", words.size(), "}"));
      c.text += words.back();
      c.text += kEnds[prng.below(std::size(kEnds))];
      if (prng.chance(0.1)) {
        words.push_back(cat("{w", words.size(), "}"));
        c.text += words.back();
      }
      c.text += kStarts[prng.below(std::size(kStarts))];
    }
    const Events whole = streamed(c, [](size_t left) { return left; }).events;
    std::string all;
    for (const Event& event : whole) all += event.text;
    size_t at = 0;
    for (const std::string& word : words) {
      at = all.find(word, at);
      ASSERT_NE(at, std::string::npos) << word << " of " << c.text << " in " << all;
    }
    EXPECT_EQ(streamed(c, [&](size_t left) { return std::min(left, static_cast<size_t>(prng.between(1, 9))); }).events, whole);
  }
}

TEST(Parse, HarmonyBeginsWhereThePromptEnds) {
  const std::string turn = "<|start|>user<|message|>hi<|end|>";
  EXPECT_EQ(harmony_begun(turn + "<|start|>assistant"), "assistant");
  EXPECT_EQ(harmony_begun("a template of another kind"), "assistant");
  const auto content = [](std::string_view begun, std::string_view answer) {
    const Message m = parse_message({.harmony = std::string(begun)}, answer);
    return cat(m.reasoning.value_or("-"), "|", m.content.value_or("-"));
  };
  EXPECT_EQ(content("assistant", "<|channel|>final<|message|>Hi"), "-|Hi");
  EXPECT_EQ(content("assistant<|channel|>final<|message|>Hello", " there<|return|>"), "-| there");
  EXPECT_EQ(content("assistant<|channel|>analysis", "<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hi"),
            "hm|Hi");
  EXPECT_EQ(content("user<|message|>hi<|end|>", "<|start|>assistant<|channel|>final<|message|>Hi"), "-|Hi");
  EXPECT_EQ(content("user<|message|>hi<|end|>", "Hi"), "-|Hi");
  EXPECT_EQ(content("assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{", "}<|call|>"), "-|}");
}

TEST(Parse, EveryRowMakesAParserThatPassesTextOn) {
  const Json tools;
  for (const ToolParserRow& row : tool_parsers()) {
    const auto parser = row.make(tools);
    Events out;
    parser->add("Hello {there} [x] <y>.", out);
    parser->finish(out);
    EXPECT_EQ(out, (Events{{Event::Kind::kContent, "Hello {there} [x] <y>."}})) << row.name;
    EXPECT_EQ(find_tool_parser(row.name), &row);
  }
  for (const ReasoningRow& row : reasoning_parsers()) EXPECT_EQ(find_reasoning_parser(row.name), &row);
  EXPECT_EQ(find_tool_parser("none"), nullptr);
}

bool same(const Json& a, const Json& b) {
  if (a.kind != b.kind || a.items.size() != b.items.size() || a.boolean != b.boolean || a.keys != b.keys) return false;
  if (a.is_number() && a.as_double() != b.as_double()) return false;
  if (a.is_string() && a.text != b.text) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!same(a.items[i], b.items[i])) return false;
  }
  return true;
}

Message message_of_json(const Json& j) {
  Message m;
  if (const Json& text = *j.find("reasoning"); text.is_string()) m.reasoning = text.text;
  if (const Json& text = *j.find("content"); text.is_string()) m.content = text.text;
  for (const Json& call : j.find("calls")->items) m.calls.push_back({call.items.at(0).text, call.items.at(1).text});
  return m;
}

// As a client takes them: arguments are what they are as JSON, none are {}.
bool same_calls(const Message& m, const Json& other) {
  const Message theirs = message_of_json(other);
  if (m.calls.size() != theirs.calls.size()) return false;
  for (size_t i = 0; i < m.calls.size(); ++i) {
    const auto json = [](const std::string& arguments) { return parse_json(arguments.empty() ? "{}" : arguments); };
    const auto a = json(m.calls[i].arguments), b = json(theirs.calls[i].arguments);
    if (m.calls[i].name != theirs.calls[i].name) return false;
    if (a && b ? !same(*a, *b) : m.calls[i].arguments != theirs.calls[i].arguments) return false;
  }
  return true;
}

std::string without_space(std::string s) {
  std::erase_if(s, is_space);
  return s;
}

// The same calls, and no word of theirs is missing: vLLM drops text beside calls, and some white space.
bool covers(const Message& m, const Json& theirs) {
  const auto has = [&](const std::optional<std::string>& ours, const char* key) {
    return without_space(ours.value_or("")).find(without_space(theirs.find(key)->text)) != std::string::npos;
  };
  return has(m.reasoning, "reasoning") && has(m.content, "content") && same_calls(m, theirs);
}

struct Judged {
  Case c;
  const Json* whole = nullptr;  // what vLLM made of it
  bool told = false;            // it says the same whole and streamed, of an answer that is whole
};

// BATON_PARSE_CASES: another file than ours, with more of them.
Json vllm_file() {
  const char* path = std::getenv("BATON_PARSE_CASES");
  const bool other = path != nullptr && *path != '\0';
  return parse_json(read_file(other ? path : BATON_SOURCE_DIR "/tests/cases/tools/vllm.json", 64 << 20).value()).value();
}

std::vector<Judged> vllm_cases(const Json& root) {
  const auto tools = std::make_shared<const Json>(*root.find("tools"));
  std::vector<Judged> out;
  for (const Json& one : root.find("cases")->items) {
    Judged& judged = out.emplace_back();
    Case& c = judged.c;
    const std::string tool(one.find("tool")->as_string().value_or("")),
        reasoning(one.find("reasoning")->as_string().value_or(""));
    c.name = cat(tool, " ", reasoning);
    c.text = one.find("text")->text;
    c.format.tools = tools;
    if (!tool.empty()) head_line("parser", tool, c);
    if (!reasoning.empty()) head_line("reasoning", reasoning, c);
    judged.whole = one.find("whole");
    const Json* stream = one.find("stream");
    // It takes a tag within a string for one.
    const bool odd = one.find("tagged")->boolean || one.find("cut")->boolean;
    judged.told = !odd && judged.whole && stream && same_calls(message_of_json(*judged.whole), *stream);
  }
  return out;
}

// What vLLM's parsers made of the same answers (tests/text/make_parse_cases.py). Where they say the same whole and streamed, we
// must.
TEST(Parse, AgreesWithVllm) {
  const Json root = vllm_file();
  std::map<std::string, std::pair<int, int>> judged;
  for (const Judged& one : vllm_cases(root)) {
    const Case& c = one.c;
    auto& [agreed, all] = judged[c.name];
    ++all;
    if (!one.told) continue;
    ++agreed;
    const Message ours = parse_message(c.format, c.text);
    EXPECT_TRUE(covers(ours, *one.whole)) << c.name << "\n"
                                          << c.text << "\n"
                                          << as_text(ours) << as_text(message_of_json(*one.whole));
    const Message streams = message_of(streamed(c, [](size_t left) { return std::min(left, size_t{3}); }).events);
    EXPECT_TRUE(covers(streams, *one.whole)) << c.name << "\n"
                                             << c.text << "\n"
                                             << as_text(streams) << as_text(message_of_json(*one.whole));
  }
  EXPECT_GT(judged.size(), 40u);
  for (const auto& [name, n] : judged) {
    EXPECT_GT(n.first, 0) << name;
    std::cout << name << ": " << n.first << " of " << n.second << " judged\n";
  }
}

TEST(Parse, NoCutChangesAnEventOfTheirs) {
  Prng prng(10);
  const Json root = vllm_file();
  for (const Judged& one : vllm_cases(root)) expect_same_however_cut(one.c, prng);
}

TEST(Parse, ReasoningMayBeLeftOut) {
  MessageFormat format{.reasoning = Reasoning::Start::kThinking, .include_reasoning = false};
  const Message m = parse_message(format, "hm</think>yes");
  EXPECT_FALSE(m.reasoning);
  EXPECT_EQ(m.content, "yes");
}

// Kimi's templates know a call by the id that the model gave it.
TEST(Parse, ACallKeepsTheIdThatTheModelWrote) {
  const MessageFormat format{.tool_parser = find_tool_parser("kimi_k2"), .tools = std::make_shared<const Json>()};
  const Message message =
      parse_message(format,
                    "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}"
                    "<|tool_call_end|><|tool_call_begin|> functions.g:1 <|tool_call_argument_begin|>{}<|tool_call_end|>");
  ASSERT_EQ(message.calls.size(), 2u);
  EXPECT_EQ(message.calls[0].id, "functions.f:0");
  EXPECT_EQ(message.calls[1].id, "functions.g:1");
  EXPECT_EQ(message.calls[1].name, "g");
}

}  // namespace
}  // namespace baton::parse
