// What a matcher promises beyond the cases: values to copy, thoughts before the answer, the end of a text, limits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grammar/constraint.h"
#include "grammar/harmony.h"
#include "grammar/limits.h"
#include "grammar/number_range.h"
#include "grammar/testing/vocabulary.h"

namespace baton::grammar {
namespace {

using testing::bit;
using Kind = Constraint::Kind;

struct World {
  explicit World(bool strips = false) : tokens(testing::test_tokens()), vocabulary(testing::vocabulary_of(tokens, strips)) {}
  std::shared_ptr<Walker> walker(const Constraint& c) const {
    auto compiled = compile(c, vocabulary);
    EXPECT_TRUE(compiled.has_value()) << compiled.error().message;
    return std::make_shared<Walker>(*compiled);
  }
  int32_t id(std::string_view text) const {
    const auto it = std::ranges::find(tokens, text);
    EXPECT_NE(it, tokens.end()) << text;
    return static_cast<int32_t>(it - tokens.begin());
  }
  bool say(Matcher& m, std::initializer_list<std::string_view> texts) const {
    return std::ranges::all_of(texts, [&](std::string_view t) { return m.accept(id(t)); });
  }
  std::vector<std::string> tokens;
  std::shared_ptr<const Vocabulary> vocabulary;
};

Constraint schema_of(std::string_view text) { return {.kind = Kind::kSchema, .schema = parse_json(text).value()}; }

TEST(Matcher, IsAValueThatLooksAhead) {
  const World w;
  Matcher m(w.walker(schema_of(R"({"type":"object","properties":{"a":{"type":"string"}},"required":["a"]})")));
  ASSERT_TRUE(w.say(m, {"{\"", "a", "\": ", "\""}));
  Matcher ahead = m;
  EXPECT_TRUE(w.say(ahead, {"hello", "\"}"}));
  EXPECT_TRUE(ahead.must_end());
  EXPECT_FALSE(m.may_end());
  EXPECT_FALSE(ahead.accept(w.id("a")));
  EXPECT_FALSE(m.accept(0)) << "a special token is no text";
  EXPECT_FALSE(m.accept(1 << 20));
  EXPECT_TRUE(m.accepts(w.id("\"}")));
  EXPECT_TRUE(w.say(m, {"\"", "\n  ", "}"}));
  EXPECT_TRUE(m.must_end());
}

TEST(Matcher, MayEndAndGoOn) {
  const World w;
  Matcher m(w.walker({.kind = Kind::kRegex, .text = "a+"}));
  EXPECT_FALSE(m.may_end());
  EXPECT_TRUE(w.say(m, {"aaaa"}));
  EXPECT_TRUE(m.may_end());
  EXPECT_FALSE(m.must_end());
  EXPECT_TRUE(bit(m.mask(), w.id("a")));
  EXPECT_FALSE(bit(m.mask(), w.id("b")));
}

TEST(Matcher, BeginsBehindTheThoughts) {
  const World w;
  const Begin begin{.when = Begin::When::kAfterTag, .open = "<think>", .close = "</think>"};
  Matcher m(w.walker(schema_of(R"({"type":"integer"})")), begin);
  EXPECT_TRUE(m.may_end()) << "thoughts are free";
  EXPECT_TRUE(w.say(m, {"hello", "{\""}));
  EXPECT_TRUE(m.accept(0));
  EXPECT_TRUE(bit(m.mask(), 0));
  EXPECT_TRUE(bit(m.mask(), w.id("</think>")));
  EXPECT_FALSE(bit(m.mask(), w.id("</think>\n"))) << "an integer does not begin with a line end";
  EXPECT_FALSE(m.accepts(w.id("</think>\n")));
  EXPECT_TRUE(w.say(m, {"<", "/"}));
  EXPECT_TRUE(bit(m.mask(), w.id("think>")));
  EXPECT_TRUE(w.say(m, {"think>"}));
  EXPECT_FALSE(m.may_end());
  EXPECT_FALSE(bit(m.mask(), w.id("hello")));
  EXPECT_TRUE(w.say(m, {"123"}));
  EXPECT_TRUE(m.may_end());
}

TEST(Matcher, ThoughtsOnlyIfTheyAreOpened) {
  const World w;
  const Begin begin{.when = Begin::When::kAfterTagIfOpened, .open = "<think>", .close = "</think>"};
  const auto walker = w.walker(schema_of(R"({"type":"integer"})"));
  Matcher plain(walker, begin);
  EXPECT_TRUE(bit(plain.mask(), w.id("123")));
  EXPECT_TRUE(bit(plain.mask(), w.id("<think>")));
  EXPECT_TRUE(bit(plain.mask(), w.id("<")));
  EXPECT_FALSE(bit(plain.mask(), w.id("hello")));
  EXPECT_FALSE(plain.accept(w.id("hello")));
  EXPECT_TRUE(w.say(plain, {"123"}));
  EXPECT_FALSE(plain.accept(w.id("<think>")));
  Matcher thinking(walker, begin);
  EXPECT_TRUE(w.say(thinking, {"<"}));
  EXPECT_FALSE(bit(thinking.mask(), w.id("123")));
  EXPECT_TRUE(w.say(thinking, {"think>", "hello"}));
  EXPECT_TRUE(w.say(thinking, {"</think>", "123"}));
  EXPECT_TRUE(thinking.may_end());
}

TEST(Matcher, TheFirstSpaceOfSentencePieceIsNone) {
  const World w(true);
  Matcher m(w.walker({.kind = Kind::kChoice, .choices = {"the end", " the other"}}));
  EXPECT_TRUE(bit(m.mask(), w.id(" the")));
  EXPECT_TRUE(bit(m.mask(), w.id("t")));
  EXPECT_TRUE(bit(m.mask(), w.id(" ")));
  Matcher spaced = m;
  EXPECT_TRUE(w.say(m, {" the"}));
  EXPECT_TRUE(bit(m.mask(), w.id(" ")));
  EXPECT_TRUE(w.say(m, {" ", "e", "n", "d"}));
  EXPECT_TRUE(m.must_end());
  EXPECT_TRUE(w.say(spaced, {" ", " the", " "}));
}

TEST(Walker, AFullOneIsLeftForAFreshOne) {
  const World w;
  const auto walker = w.walker(schema_of("{}"));
  Matcher m(walker);
  ASSERT_TRUE(w.say(m, {"[{\"", "a", "\":", "[\"", "hello"}));
  Configs::Id at = walker->configs().start();
  for (const char c : std::string_view("[{\"a\":[\"hello")) at = walker->configs().next(at, static_cast<uint8_t>(c));
  const auto next = walker->successor();
  EXPECT_EQ(next, walker->successor());
  Configs& fresh = next->configs();
  Configs::Id moved = fresh.import(walker->configs(), at);
  EXPECT_EQ(walker->mask(at), next->mask(moved));
  for (const char c : std::string_view("\"]}]")) moved = fresh.next(moved, static_cast<uint8_t>(c));
  EXPECT_TRUE(fresh.accepts(moved));
}

TEST(Walker, ATableKeepsTheRecentOnes) {
  const World w;
  WalkerTable table;
  const auto first = compile({.kind = Kind::kRegex, .text = "a"}, w.vocabulary).value();
  const auto walker = table.of(first);
  EXPECT_EQ(table.of(first), walker);
  for (size_t i = 0; i < kWalkersMax; ++i) {
    const auto other = compile({.kind = Kind::kRegex, .text = cat("b", i)}, w.vocabulary).value();
    EXPECT_EQ(table.of(other), table.of(other));
  }
  EXPECT_NE(table.of(first), walker);
}

TEST(Calls, RequiredAndNamed) {
  const World w;
  const Json parameters =
      parse_json(
          R"({"type":"object","properties":{"city":{"$ref":"#/$defs/c"}},"required":["city"],"$defs":{"c":{"type":"string"}}})")
          .value();
  const auto lets_in = [&](const Constraint& c, std::string_view text) {
    const auto walker = w.walker(c);
    Configs::Id at = walker->configs().start();
    for (const char b : text) at = walker->configs().next(at, static_cast<uint8_t>(b));
    return walker->configs().accepts(at);
  };
  Constraint c{.kind = Kind::kCalls, .tools = {{"weather", parameters}, {"time", Json{}}}};
  EXPECT_TRUE(lets_in(c, R"([{"name": "weather", "parameters": {"city": "Paris"}}])"));
  EXPECT_TRUE(lets_in(c, R"([{"name":"time","parameters":{"any":1}}, {"name": "weather", "parameters": {"city": "x"}}])"));
  EXPECT_FALSE(lets_in(c, "[]"));
  EXPECT_FALSE(lets_in(c, R"([{"name": "weather", "parameters": {"town": "Paris"}}])"));
  EXPECT_FALSE(lets_in(c, R"([{"name": "other", "parameters": {}}])"));
  c.one_call = true;
  EXPECT_FALSE(lets_in(c, R"([{"name":"time","parameters":{}}, {"name": "time", "parameters": {}}])"));
  EXPECT_TRUE(lets_in({.kind = Kind::kArguments, .tools = {{"weather", parameters}}}, R"({"city": "Paris"})"));
}

TEST(Limits, NestingEndsButNeverGetsStuck) {
  const World w;
  Matcher m(w.walker({.kind = Kind::kGrammar, .text = "root ::= \"(\" root \")\" | \"x\""}));
  size_t open = 0;
  while (open < 2 * kStackMax && bit(m.mask(), w.id("("))) {
    ASSERT_TRUE(m.accept(w.id("(")));
    ++open;
  }
  EXPECT_LE(open, kStackMax);
  EXPECT_GT(open, kStackMax - 4);
  ASSERT_TRUE(m.accept(w.id("x")));
  for (; open > 0; --open) ASSERT_TRUE(m.accept(w.id(")")));
  EXPECT_TRUE(m.must_end());
}

TEST(Limits, LargeOnesAreRefusedInTime) {
  const World w;
  const auto error = [&](const Constraint& c) {
    const auto compiled = compile(c, w.vocabulary);
    return compiled ? std::string() : compiled.error().message;
  };
  EXPECT_THAT(error({.kind = Kind::kRegex, .text = "((a{1000}){1000}){1000}"}), ::testing::HasSubstr("too large"));
  EXPECT_THAT(error({.kind = Kind::kRegex, .text = std::string(100, '(') + std::string(100, ')')}),
              ::testing::HasSubstr("groups in each other"));
  EXPECT_EQ(error({.kind = Kind::kRegex, .text = "(a|b)*a(a|b){16}"}), "") << "exponential if it were made deterministic";
  std::string doubling = "root ::= r0\n";
  for (int i = 0; i < 60; ++i) doubling += cat("r", i, " ::= r", i + 1, " r", i + 1, "\n");
  EXPECT_EQ(error({.kind = Kind::kGrammar, .text = doubling + "r60 ::= \"a\"?"}), "");
  std::string nested = "{}";
  for (int i = 0; i < 70; ++i) nested = cat(R"({"items":)", nested, "}");
  EXPECT_THAT(error({.kind = Kind::kSchema, .schema = parse_json(nested, {.depth_max = 200}).value()}),
              ::testing::HasSubstr("nested"));
  EXPECT_THAT(error(schema_of(R"({"anyOf":[{"$ref":"#"},{"$ref":"#","x":1},{"type":"null"}],"type":["null","object"]})")),
              ::testing::HasSubstr("not valid"));
  EXPECT_EQ(error(schema_of(R"({"type":"string","maxLength":20000})")), "");
}

TEST(Limits, AmbiguityIsBounded) {
  const World w;
  Matcher m(w.walker({.kind = Kind::kGrammar, .text = "root ::= s\ns ::= \"a\" s s s | \"a\""}));
  for (int i = 0; i < 60 && m.accept(w.id("a")); ++i) (void)m.mask();
}

// gpt-oss's format: special tokens where its tags stand, and nowhere else.
TEST(Harmony, HoldsTheAnswerToItsChannel) {
  World w;
  for (const std::string_view token : kHarmonyTokens) w.tokens.push_back(special_bytes(token));
  for (const char* text : {"analysis", "commentary", "final", "assistant", " json", "json", " to=functions.f", "<|end|>"})
    w.tokens.emplace_back(text);
  w.vocabulary = testing::vocabulary_of(w.tokens);
  // Words in | are special tokens. "": the whole may end; else the words from which on it may not be so.
  const auto walk = [&](const Constraint& constraint, const std::vector<std::string>& words) -> std::string {
    Matcher m(w.walker(constraint));
    for (const std::string& word : words) {
      const bool special = word.size() > 1 && word.starts_with('|') && word.ends_with('|');
      const int32_t id = w.id(special ? special_bytes(cat("<", word, ">")) : word);
      EXPECT_EQ(bit(m.mask(), id), m.accepts(id)) << word;
      if (!m.accept(id)) return word;
    }
    return m.may_end() ? "" : "not whole";
  };
  Constraint choice{.kind = Kind::kChoice, .choices = {"a", "true"}, .harmony = true};
  EXPECT_EQ(walk(choice, {"|channel|", "final", "|message|", "true"}), "");
  EXPECT_EQ(walk(choice, {"|channel|", "analysis", "|message|", "hello", "<|end|>", "|end|", "|start|", "assistant", "|channel|", "final",
                          "|message|", "a"}),
            "");
  EXPECT_EQ(walk(choice, {"|channel|", "analysis", "|message|", "hello", "|channel|"}), "|channel|");
  EXPECT_EQ(walk(choice, {"|channel|", "analysis", "|message|", "hello"}), "not whole");
  EXPECT_EQ(walk(choice, {"|channel|", "commentary"}), "commentary");
  EXPECT_EQ(walk(choice, {"|channel|", "final", " json"}), " json");
  EXPECT_EQ(walk(choice, {"a"}), "a");
  Constraint object = schema_of(R"({"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false})");
  object.harmony = true;
  for (const std::vector<std::string>& form : {std::vector<std::string>{}, {" json"}, {" ", "|constrain|", "json"}}) {
    std::vector<std::string> words{"|channel|", "final"};
    words.insert(words.end(), form.begin(), form.end());
    for (const char* word : {"|message|", "{\"", "a", "\":", "\"", "<|end|>", "\"}"}) words.emplace_back(word);
    EXPECT_EQ(walk(object, words), "");
    words.back() = "|end|";  // no special token within a string
    EXPECT_EQ(walk(object, words), "|end|");
  }
  Constraint calls{.kind = Kind::kCalls, .tools = {{.name = "f", .parameters = {}}}, .harmony = true};
  EXPECT_EQ(walk(calls, {"|channel|", "commentary", "|message|", "hello", "|end|", "|start|", "assistant", "|channel|", "commentary",
                         " to=functions.f", " ", "|constrain|", "json", "|message|", "{", "}"}),
            "");
  EXPECT_EQ(walk(calls, {" to=functions.f", "|channel|", "commentary", " json", "|message|", "{", "}"}), "");
  EXPECT_EQ(walk(calls, {"|channel|", "final"}), "final");
  EXPECT_EQ(walk(calls, {" to=functions.f", "|channel|", "commentary", " json", "|message|", "["}), "[");
}

TEST(Kinds, CountedRepetitionsShareTheirMasks) {
  const World w;
  const auto compiled = compile(schema_of(R"({"type":"string","maxLength":5000})"), w.vocabulary).value();
  EXPECT_GT(compiled->automaton().size(), 5000u);
  EXPECT_LT(compiled->kinds(), 400u);
}

TEST(Kinds, TheByteZeroTellsStatesApart) {
  const World w;
  Matcher m(w.walker({.kind = Kind::kRegex, .text = std::string("\0*&*,", 5)}));
  EXPECT_TRUE(bit(m.mask(), w.id(std::string(1, '\0'))));
  ASSERT_TRUE(m.accept(w.id("&")));
  EXPECT_FALSE(bit(m.mask(), w.id(std::string(1, '\0'))));
}

TEST(Decimal, IsExact) {
  const auto text = [](std::string_view s) {
    const Decimal d = decimal_of(s).value();
    return cat(d.negative ? "-" : "", d.whole, ".", d.fraction);
  };
  EXPECT_EQ(text("-12.50e-1"), "-1.25");
  EXPECT_EQ(text("1e3"), "1000.");
  EXPECT_EQ(text("-0.0"), "0.");
  EXPECT_EQ(text("5e-3"), "0.005");
  EXPECT_EQ(text("123.456e2"), "12345.6");
  EXPECT_FALSE(decimal_of("1e999"));
}

// Every integer of a small range by trying: the expression says the same as the comparison.
TEST(Decimal, RangesAgreeWithComparing) {
  Prng prng(3);
  for (int round = 0; round < 60; ++round) {
    const auto low = prng.between(-130, 130), high = low + prng.between(0, 150);
    NumberRange range;
    range.low = Bound{decimal_of(std::to_string(low)).value(), prng.chance(0.5)};
    range.high = Bound{decimal_of(std::to_string(high)).value(), prng.chance(0.5)};
    range.integer = prng.chance(0.5);
    Rules rules;
    rules.define(rules.start = rules.add("n"), number_between(rules, range));
    const auto automaton = Automaton::build(rules);
    const auto lets_in = [&](const std::string& text) {
      if (!automaton) return false;
      Configs configs(*automaton);
      Configs::Id at = configs.start();
      for (const char c : text) at = configs.next(at, static_cast<uint8_t>(c));
      return configs.accepts(at);
    };
    for (int64_t tenth = -3000; tenth <= 3000; ++tenth) {
      if (range.integer && tenth % 10 != 0) continue;
      const int64_t least = low * 10 + range.low->exclusive, most = high * 10 - range.high->exclusive;
      std::string text = cat(tenth < 0 ? "-" : "", std::abs(tenth) / 10);
      if (tenth % 10 != 0) text += cat(".", std::abs(tenth) % 10);
      ASSERT_EQ(lets_in(text), tenth >= least && tenth <= most) << text << " in " << low << ".." << high << range.integer;
    }
  }
}

}  // namespace
}  // namespace baton::grammar
