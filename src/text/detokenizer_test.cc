#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include "base/prng.h"
#include "text/testing/tiny_tokenizer.h"
#include "text/unicode.h"

namespace baton::text {
namespace {

using testing::tiny_gguf;

class DetokenizerTest : public ::testing::Test {
 protected:
  DetokenizerTest() { tokenizer_ = *Tokenizer::from_gguf(tiny_gguf("gpt-2")); }

  struct Outcome {
    std::string text;
    std::vector<std::string> pieces;
    std::optional<std::string> stopped;
  };
  // One token a byte, the hardest stream there is.
  Outcome feed(std::string_view bytes, DetokenizerOptions options) {
    Detokenizer d(*tokenizer_, std::move(options));
    Outcome out;
    for (char c : bytes) {
      out.pieces.push_back(d.add(static_cast<unsigned char>(c)));
      out.text += out.pieces.back();
      if (d.stopped()) break;
    }
    out.text += d.finish();
    out.stopped = d.stopped();
    return out;
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(DetokenizerTest, NeverEmitsHalfACharacter) {
  auto out = feed("aé中🎉z", {});
  EXPECT_EQ(out.text, "aé中🎉z");
  for (const auto& p : out.pieces) EXPECT_EQ(first_invalid_utf8(p), p.size());
}

TEST_F(DetokenizerTest, BrokenBytesBecomeReplacementCharacters) {
  const std::string r(kReplacementCharacter);
  EXPECT_EQ(feed("a\xe4\xb8", {}).text, "a" + r);
  EXPECT_EQ(feed("\xe4\xb8z\xff", {}).text, r + "z" + r);
}

TEST_F(DetokenizerTest, StopStringCutsTheTextAndNamesItself) {
  auto out = feed("one\n\nUser: two", {.stop = {"\n\nUser:", "###"}});
  EXPECT_EQ(out.text, "one");
  EXPECT_EQ(out.stopped, "\n\nUser:");
  out = feed("one###two", {.stop = {"\n\nUser:", "###"}, .include_stop = true});
  EXPECT_EQ(out.text, "one###");
}

TEST_F(DetokenizerTest, WhatOnlyLookedLikeAStopIsReleased) {
  auto out = feed("a##b##", {.stop = {"###"}});
  EXPECT_EQ(out.text, "a##b##");
  EXPECT_FALSE(out.stopped);
  EXPECT_EQ(out.pieces, (std::vector<std::string>{"a", "", "", "##b", "", ""}));
}

TEST_F(DetokenizerTest, StopStringsWaitForMinTokens) {
  EXPECT_EQ(feed("xabxab", {.stop = {"ab"}, .min_tokens = 3}).text, "xabx");
  EXPECT_EQ(feed("xab", {.stop = {"ab"}, .min_tokens = 3}).text, "xab");
  EXPECT_EQ(feed("xab", {.stop = {"ab"}, .min_tokens = 2}).text, "x");  // begun before, ended after
  EXPECT_EQ(feed("aaa", {.stop = {"aa"}, .min_tokens = 2}).text, "a");
}

TEST_F(DetokenizerTest, EarliestStopWins) {
  Detokenizer d(*tokenizer_, {.stop = {"lo", "el"}});
  EXPECT_EQ(d.add(tokenizer_->id_of("hello")), "h");
  EXPECT_EQ(d.stopped(), "el");
}

TEST_F(DetokenizerTest, SpecialTokensAreHiddenOrShown) {
  Detokenizer hidden(*tokenizer_, {}), shown(*tokenizer_, {.skip_special = false});
  EXPECT_EQ(hidden.add(256), "");
  EXPECT_EQ(shown.add(256), "<|im_start|>");
  EXPECT_EQ(shown.add(1 << 20), "");  // no such id
}

TEST_F(DetokenizerTest, OptionsAreChecked) {
  EXPECT_TRUE(Detokenizer::check({.stop = {"a"}}));
  EXPECT_FALSE(Detokenizer::check({.stop = {""}}));
  EXPECT_FALSE(Detokenizer::check({.stop = {std::string(5000, 'x')}}));
}

// Whatever the stops, the stream equals the whole text cut at the first stop that ends first.
TEST_F(DetokenizerTest, StreamEqualsCuttingTheWholeText) {
  const uint64_t seed = 5;
  Prng prng(seed);
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    auto some = [&](uint64_t n) {
      std::string s;
      for (; n > 0; --n) s += std::string_view("ab\nc").substr(prng.below(4), 1);
      return s;
    };
    text = some(prng.below(20));
    std::vector<std::string> stops;
    for (uint64_t n = prng.below(3); n > 0; --n) stops.push_back(some(1 + prng.below(4)));
    bool include = prng.chance(0.5);
    std::string want = text;
    for (size_t end = 1; end <= text.size(); ++end) {  // byte by byte: the first end, then the earliest start
      size_t start = std::string::npos;
      for (auto& s : stops) {
        if (end >= s.size() && text.compare(end - s.size(), s.size(), s) == 0) start = std::min(start, end - s.size());
      }
      if (start == std::string::npos) continue;
      want = text.substr(0, include ? end : start);
      break;
    }
    EXPECT_EQ(feed(text, {.stop = stops, .include_stop = include}).text, want) << "seed " << seed << " round " << i;
  }
}

}  // namespace
}  // namespace baton::text
