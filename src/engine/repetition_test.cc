#include "engine/repetition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/prng.h"
#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using ::testing::HasSubstr;
using testing::Reply;
using testing::TestEngine;

using RepeatedTokens = std::vector<int32_t>;

// The definition: for some length, the last min_count runs of it are equal.
bool repeats(const RepeatedTokens& tokens, const RepetitionLimits& l) {
  for (int32_t length = std::max(l.min_pattern, 1); length <= l.max_pattern; ++length) {
    if (l.min_count < 2 || static_cast<size_t>(length) * static_cast<size_t>(l.min_count) > tokens.size()) return false;
    const RepeatedTokens last(tokens.end() - length, tokens.end());
    bool all = true;
    for (int32_t k = 1; k < l.min_count; ++k) all &= std::equal(last.begin(), last.end(), tokens.end() - length * (k + 1));
    if (all) return true;
  }
  return false;
}

TEST(Repetition, IsWhatItsDefinitionSays) {
  int found = 0;
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    Prng prng(seed);
    RepeatedTokens tokens(static_cast<size_t>(prng.below(24)));
    for (int32_t& token : tokens) token = static_cast<int32_t>(prng.below(2));
    RepetitionLimits limits{.max_pattern = static_cast<int32_t>(prng.below(7)),
                            .min_count = static_cast<int32_t>(prng.between(0, 4))};
    limits.min_pattern = static_cast<int32_t>(prng.between(0, 4));
    const bool want = repeats(tokens, limits);
    ASSERT_EQ(ends_in_repetition(tokens, limits), want) << "seed " << seed;
    found += want;
  }
  EXPECT_GT(found, 100);
  EXPECT_FALSE(ends_in_repetition(RepeatedTokens(50, 1), {.max_pattern = 0, .min_count = 2}));
  EXPECT_TRUE(ends_in_repetition(RepeatedTokens{7, 1, 2, 1, 2, 1, 2}, {.max_pattern = INT32_MAX, .min_count = 3}));
}

TEST(Repetition, EndsAnAnswer) {
  TestEngine e;
  const auto ask = [&](const std::string& more) {
    e.model->say({50, 40, 41, 40, 41, 40, 41, 42, 43, 44});
    return e.complete(cat(R"("prompt":"a","max_tokens":10,"temperature":0,"ignore_eos":true,"return_token_ids":true)", more));
  };
  const auto tokens = [](const Reply& reply) { return reply.json().find("choices")->items[0].find("token_ids")->items.size(); };
  const auto member = [](const Reply& reply, std::string_view key) {
    const Json json = reply.json();
    const Json* value = json.find("choices")->items[0].find(key);
    return value->is_null() ? "null" : value->text;
  };
  EXPECT_EQ(tokens(ask("")), 10u);
  const Reply twice = ask(R"(,"repetition_detection":{"max_pattern_size":3,"min_count":2})");
  EXPECT_EQ(tokens(twice), 5u);
  EXPECT_EQ(member(twice, "finish_reason"), "repetition");
  EXPECT_EQ(member(twice, "stop_reason"), "repetition_detected");
  const Reply thrice = ask(R"(,"repetition_detection":{"max_pattern_size":3,"min_count":3})");
  EXPECT_EQ(tokens(thrice), 7u);
  EXPECT_EQ(tokens(ask(R"(,"repetition_detection":{"max_pattern_size":1,"min_count":2})")), 10u);
  EXPECT_EQ(tokens(ask(R"(,"repetition_detection":{"max_pattern_size":3,"min_pattern_size":3,"min_count":2})")), 10u);
  EXPECT_EQ(tokens(ask(R"(,"repetition_detection":{"max_pattern_size":0})")), 10u);
  EXPECT_EQ(tokens(ask(R"(,"repetition_detection":{"max_pattern_size":3,"min_count":2},"min_tokens":6)")), 6u);
  // The length is found first.
  const Reply both = e.complete(
      R"("prompt":"a","max_tokens":2,"temperature":0,"logit_bias":{"50":100},"repetition_detection":{"max_pattern_size":3,"min_count":2})");
  EXPECT_EQ(member(both, "finish_reason"), "length");
  EXPECT_EQ(e.metric("vllm:request_success_total", R"(finished_reason="repetition")"), 3);
  e.expect_idle();
}

TEST(Repetition, WrongLimitsAreRefused) {
  TestEngine e;
  const std::pair<const char*, const char*> cases[] = {
      {R"({"max_pattern_size":2,"min_pattern_size":3,"min_count":2})", "max_pattern_size, min_pattern_size must be >=0, with"},
      {R"({"max_pattern_size":-1,"min_count":2})", "max_pattern_size, min_pattern_size must be >=0, with"},
      {R"({"max_pattern_size":2})", "min_count must be >= 2 to detect repetitive patterns"},
      {R"({"max_pattern_size":"x"})", "repetition_detection.max_pattern_size: Input should be a valid integer"},
      {R"("x")", "repetition_detection: Input should be a dictionary"},
  };
  for (const auto& [value, message] : cases) {
    const Reply reply = e.complete(cat(R"("prompt":"a","repetition_detection":)", value));
    EXPECT_EQ(reply.status, 400) << value;
    EXPECT_THAT(reply.error(), HasSubstr(message));
  }
}

}  // namespace
}  // namespace baton::engine
