// Constraints as cases written in text (tests/cases/grammar/README.md): what is let in, what is not, what is refused; and of
// each, random walks: masks agree with trying every token, are never empty before the end, and what comes out is what was asked
// for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "grammar/constraint.h"
#include "grammar/testing/validate.h"
#include "grammar/testing/vocabulary.h"

namespace baton::grammar {
namespace {

using testing::bit;

struct Expected {
  std::string word, text;
};
struct Case {
  std::string name, kind;
  Constraint constraint;
  std::vector<Expected> expected;
};

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

Case read_case(const std::filesystem::path& path) {
  Case c;
  c.name = path.parent_path().filename().string() + "/" + path.stem().string();
  const std::string file = read_file(path.string(), 1 << 20).value();
  const size_t head = file.find("---\n"), end = file.find("\n---\n", head + 3);
  EXPECT_NE(end, std::string::npos) << path;
  c.kind = file.substr(0, file.find_first_of(" \n"));
  const std::string text = head + 4 > end ? "" : file.substr(head + 4, end - head - 4);
  using Kind = Constraint::Kind;
  c.constraint.kind = c.kind == "schema"   ? Kind::kSchema
                      : c.kind == "object" ? Kind::kJsonObject
                      : c.kind == "regex"  ? Kind::kRegex
                      : c.kind == "tag"    ? Kind::kStructuralTag
                      : c.kind == "choice" ? Kind::kChoice
                                           : Kind::kGrammar;
  if (c.kind == "schema" || c.kind == "tag") c.constraint.schema = parse_json(text).value();
  if (c.kind == "choice") c.constraint.choices = lines_of(text);
  c.constraint.text = text;
  c.constraint.style.any_whitespace = file.substr(0, head).find("compact") == std::string::npos;
  for (const std::string& line : lines_of(file.substr(end + 5))) {
    const size_t space = line.find(' ');
    Expected e{line.substr(0, space), line.substr(space + 1)};
    if (e.word.ends_with('"')) {
      e.word.pop_back();
      e.text = parse_json(e.text).value().text;
    }
    EXPECT_TRUE(e.word == "yes" || e.word == "no" || e.word == "error") << c.name << ": " << line;
    c.expected.push_back(std::move(e));
  }
  return c;
}

std::vector<Case> all_cases() {
  std::vector<Case> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(BATON_SOURCE_DIR "/tests/cases/grammar")) {
    if (entry.path().extension() == ".txt") out.push_back(read_case(entry.path()));
  }
  std::ranges::sort(out, {}, &Case::name);
  EXPECT_GT(out.size(), 50u);
  return out;
}

bool lets_in(Configs& configs, std::string_view text) {
  Configs::Id at = configs.start();
  for (const char c : text) at = configs.next(at, static_cast<uint8_t>(c));
  return configs.accepts(at);
}

TEST(Cases, LetInAndRefused) {
  for (const Case& c : all_cases()) {
    const auto rules = rules_of(c.constraint);
    const auto automaton = rules ? Automaton::build(*rules) : std::unexpected(rules.error());
    if (c.expected.at(0).word == "error") {
      ASSERT_FALSE(automaton.has_value()) << c.name;
      EXPECT_EQ(automaton.error().code, Code::kInvalidArgument) << c.name;
      EXPECT_THAT(automaton.error().message, ::testing::HasSubstr(c.expected[0].text)) << c.name;
      continue;
    }
    ASSERT_TRUE(automaton.has_value()) << c.name << ": " << automaton.error().message;
    Configs configs(*automaton);
    for (const Expected& e : c.expected) EXPECT_EQ(lets_in(configs, e.text), e.word == "yes") << c.name << ": " << e.text;
  }
}

// One text, token by token as the masks allow; "" if it did not end within a bound. Leans towards what ends things.
std::string walk_at_random(const Case& c, const std::shared_ptr<Walker>& walker, const std::vector<std::string>& tokens,
                           uint64_t seed) {
  Matcher matcher(walker);
  Prng prng(seed);
  std::string text;
  for (int step = 0; step < 400; ++step) {
    const Mask mask = matcher.mask();
    std::vector<int32_t> allowed;
    for (int32_t t = 0; t < walker->vocabulary().tokens(); ++t) {
      if (step % 8 == 0)
        EXPECT_EQ(bit(mask, t), matcher.accepts(t))
            << c.name << " after " << json_string(text) << ": " << tokens[static_cast<size_t>(t)];
      if (bit(mask, t)) allowed.push_back(t);
    }
    EXPECT_EQ(matcher.must_end(), matcher.may_end() && allowed.empty()) << c.name << " after " << text;
    if (matcher.may_end() && (allowed.empty() || prng.chance(0.2))) return text;
    EXPECT_FALSE(allowed.empty()) << c.name << ": stuck after " << text;
    if (allowed.empty()) return "";
    int32_t token = allowed[prng.below(allowed.size())];
    for (const int32_t t : allowed) {
      const std::string& s = tokens[static_cast<size_t>(t)];
      if (step > 20 && prng.chance(0.5) && (s == "\"" || s == "}" || s == "]" || s == ")" || s == "0" || s == "\"}")) token = t;
    }
    EXPECT_TRUE(matcher.accept(token)) << c.name;
    text += tokens[static_cast<size_t>(token)];
  }
  return "";
}

TEST(Cases, RandomWalksAreWhatWasAskedFor) {
  const std::vector<std::string> tokens = testing::test_tokens();
  const auto vocabulary = testing::vocabulary_of(tokens);
  int whole = 0;
  for (const Case& c : all_cases()) {
    if (c.expected.at(0).word == "error") continue;
    const auto compiled = compile(c.constraint, vocabulary);
    ASSERT_TRUE(compiled.has_value()) << c.name;
    const auto walker = std::make_shared<Walker>(*compiled);
    for (uint64_t seed = 1; seed <= 12; ++seed) {
      const std::string text = walk_at_random(c, walker, tokens, seed);
      if (::testing::Test::HasFailure()) return;
      if (text.empty()) continue;
      ++whole;
      Configs again((*compiled)->automaton());
      EXPECT_TRUE(lets_in(again, text)) << c.name << ": " << text;
      EXPECT_TRUE(valid_utf8(text)) << c.name << ": " << json_string(text);
      if (c.kind != "schema" && c.kind != "object") continue;
      const auto json = parse_json(text, {.depth_max = 300});
      ASSERT_TRUE(json.has_value()) << c.name << ": " << text << ": " << json.error().message;
      if (c.kind == "schema")
        EXPECT_TRUE(testing::Validator(c.constraint.schema).valid(*json, c.constraint.schema)) << c.name << ": " << text;
    }
  }
  EXPECT_GT(whole, 200);
}

}  // namespace
}  // namespace baton::grammar
