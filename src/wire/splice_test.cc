#include "wire/splice.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/prng.h"

namespace baton::wire {
namespace {

std::string edited(std::string_view text, const std::function<void(Splice&)>& edit) {
  auto root = parse_json(text);
  EXPECT_TRUE(root.has_value()) << text;
  Splice splice(text, *root);
  edit(splice);
  return splice.text();
}

TEST(Splice, SetsReplacesAndErases) {
  auto set = [](std::string_view text) { return edited(text, [](Splice& s) { s.set({"k"}, "7"); }); };
  EXPECT_EQ(set(R"({})"), R"({"k":7})");
  EXPECT_EQ(set(R"({"a":1})"), R"({"a":1,"k":7})");
  EXPECT_EQ(set(R"({ "a" : 1 , "k" : [1,2] , "b":2 })"), R"({ "a" : 1 , "k" : 7 , "b":2 })");
  EXPECT_EQ(set(R"( {"\u006b":1} )"), R"( {"\u006b":7} )");
  EXPECT_EQ(set(R"({"k":1,"a":{"k":2},"k":3})"), R"({"a":{"k":2},"k":7})");
  auto erase = [](std::string_view text) { return edited(text, [](Splice& s) { s.erase({"k"}); }); };
  EXPECT_EQ(erase(R"({})"), R"({})");
  EXPECT_EQ(erase(R"({"k":1})"), R"({})");
  EXPECT_EQ(erase(R"({"k":1, "a":2})"), R"({ "a":2})");
  EXPECT_EQ(erase(R"({"a":2, "k":1})"), R"({"a":2})");
  EXPECT_EQ(erase(R"({"k":1,"a":2,"k":"}","b":[],"k":null})"), R"({"a":2,"b":[]})");
}

TEST(Splice, KeepsWhatItDoesNotTouch) {
  constexpr std::string_view kBody =
      "{\n  \"uuid\": 1223960640850184400, \"x\":1.0e+2,\t\"s\":\"\\u00e9\\/ \xc3\xa9\",\n  \"stream\" : true\n}\n";
  EXPECT_EQ(edited(kBody, [](Splice& s) { s.set({"stream"}, "false"); }),
            "{\n  \"uuid\": 1223960640850184400, \"x\":1.0e+2,\t\"s\":\"\\u00e9\\/ \xc3\xa9\",\n  \"stream\" : false\n}\n");
}

TEST(Splice, NestedPaths) {
  auto set = [](std::string_view text) {
    return edited(text, [](Splice& s) { s.set({"usage", "prompt_tokens_details", "cached_tokens"}, "9"); });
  };
  EXPECT_EQ(set(R"({})"), R"({"usage":{"prompt_tokens_details":{"cached_tokens":9}}})");
  EXPECT_EQ(set(R"({"usage":{"a": 1}})"), R"({"usage":{"a": 1,"prompt_tokens_details":{"cached_tokens":9}}})");
  EXPECT_EQ(set(R"({"usage":{"prompt_tokens_details":null}})"), R"({"usage":{"prompt_tokens_details":{"cached_tokens":9}}})");
  EXPECT_EQ(set(R"({"usage":{"prompt_tokens_details":{"cached_tokens": 3, "z":1}},"b":2})"),
            R"({"usage":{"prompt_tokens_details":{"cached_tokens": 9, "z":1}},"b":2})");
  EXPECT_EQ(edited(R"({"p":{"a":1,"b":2}})", [](Splice& s) { s.erase({"p", "a"}).set({"p", "c"}, "3"); }),
            R"({"p":{"b":2,"c":3}})");
  EXPECT_EQ(edited(R"({"a":1})", [](Splice& s) { s.erase({"p", "a"}); }), R"({"a":1})");
  EXPECT_EQ(edited(R"({"p":5})", [](Splice& s) { s.erase({"p", "a"}); }), R"({"p":5})");
}

TEST(Splice, LaterEditsWin) {
  EXPECT_EQ(edited(R"({"a":1})", [](Splice& s) { s.erase({"a"}).set({"a"}, "2"); }), R"({"a":2})");
  EXPECT_EQ(edited(R"({"a":1})", [](Splice& s) { s.set({"a"}, "2").erase({"a"}); }), R"({})");
  EXPECT_EQ(edited(R"({"a":{"b":1}})", [](Splice& s) { s.set({"a", "b"}, "2").set({"a"}, "3"); }), R"({"a":3})");
}

// A random object as text, with duplicates, escapes and odd spacing.
std::string random_object(Prng& prng, int depth) {
  static constexpr std::string_view kKeys[] = {"\"a\"", "\"b\"", "\"\\u0061\"", "\"k\"", "\"x y\"", "\"\""};
  static constexpr std::string_view kValues[] = {"1",   "-0.0e5", "18446744073709551616", "\"},{\\\"\"", "null", "[1,{\"a\":2}]",
                                                 "true"};
  static constexpr std::string_view kSpaces[] = {"", " ", "\n\t", "", ""};
  auto space = [&] { return kSpaces[prng.below(std::size(kSpaces))]; };
  std::string out = "{";
  uint64_t n = prng.below(5);
  for (uint64_t i = 0; i < n; ++i) {
    if (i) out += ',';
    out += cat(space(), kKeys[prng.below(std::size(kKeys))], space(), ":", space());
    out += depth < 2 && prng.chance(0.3) ? random_object(prng, depth + 1) : std::string(kValues[prng.below(std::size(kValues))]);
    out += space();
  }
  if (n == 0) out += space();
  return out + "}";
}

// The members with a key other than `key`, as text, in order.
std::vector<std::pair<std::string, std::string>> others(std::string_view text, std::string_view key) {
  auto root = parse_json(text);
  EXPECT_TRUE(root.has_value()) << text;
  std::vector<std::pair<std::string, std::string>> out;
  for (size_t i = 0; i < root->items.size(); ++i) {
    if (root->keys[i] != key) out.emplace_back(root->keys[i], root->items[i].raw(text));
  }
  return out;
}

TEST(Splice, RandomObjects) {
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(seed);
    std::string text = random_object(prng, 0);
    std::string_view key = std::array<std::string_view, 4>{"a", "b", "", "new"}[prng.below(4)];
    std::string set = edited(text, [&](Splice& s) { s.set({key}, "{\"v\": 1}"); });
    auto root = parse_json(set);
    ASSERT_TRUE(root.has_value()) << text << " -> " << set;
    EXPECT_EQ(std::ranges::count(root->keys, key), 1);
    EXPECT_EQ(root->find(key)->raw(set), "{\"v\": 1}");
    EXPECT_EQ(others(set, key), others(text, key));
    EXPECT_TRUE(nlohmann::json::accept(set));
    std::string erased = edited(text, [&](Splice& s) { s.erase({key}); });
    ASSERT_TRUE(parse_json(erased).has_value()) << text << " -> " << erased;
    EXPECT_EQ(std::ranges::count(parse_json(erased)->keys, key), 0);
    EXPECT_EQ(others(erased, key), others(text, key));
    std::string nested = edited(text, [&](Splice& s) { s.set({key, "k"}, "5").erase({key, "a"}); });
    auto inner = parse_json(nested);
    ASSERT_TRUE(inner.has_value()) << text << " -> " << nested;
    EXPECT_EQ(inner->find_path({key, "k"})->raw(nested), "5");
    EXPECT_EQ(inner->find_path({key, "a"}), nullptr);
    EXPECT_EQ(others(nested, key), others(text, key));
  }
}

}  // namespace
}  // namespace baton::wire
