#include "engine/thinking_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/prng.h"
#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using ::testing::HasSubstr;
using testing::TestEngine;

using ThoughtTokens = std::vector<int32_t>;

std::shared_ptr<const ThinkingMarks> marks_of(ThoughtTokens open, ThoughtTokens close, ThoughtTokens forced) {
  return std::make_shared<const ThinkingMarks>(ThinkingMarks{std::move(open), std::move(close), std::move(forced)});
}

int64_t last_of(std::span<const int32_t> all, std::span<const int32_t> mark) {
  for (auto at = std::ssize(all) - std::ssize(mark); at >= 0; --at) {
    if (std::ranges::equal(all.subspan(static_cast<size_t>(at), mark.size()), mark)) return at;
  }
  return -1;
}

// The definition, over the whole text.
std::optional<int32_t> forced_after(const ThoughtTokens& all, const ThinkingMarks& marks, int64_t budget) {
  const int64_t open = last_of(all, marks.open), close = last_of(all, marks.close);
  if (open < 0 || open <= close || std::ssize(all) - open - std::ssize(marks.open) < budget) return std::nullopt;
  size_t begun = 0;
  for (size_t n = 1; n < marks.forced.size() && n <= all.size(); ++n) {
    if (std::ranges::equal(std::span(all).last(n), std::span(marks.forced).first(n))) begun = n;
  }
  return marks.forced[begun];
}

TEST(ThinkingBudget, IsWhatItsDefinitionSays) {
  int forced = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Prng prng(seed);
    const auto some = [&](uint64_t least, uint64_t most) {  // of three tokens, so that marks overlap and come by chance
      ThoughtTokens out(static_cast<size_t>(prng.between(static_cast<int64_t>(least), static_cast<int64_t>(most))));
      for (int32_t& token : out) token = static_cast<int32_t>(prng.below(3));
      return out;
    };
    const auto marks = marks_of(some(1, 3), some(1, 3), some(1, 4));
    const auto budget = static_cast<int64_t>(prng.below(6));
    ThoughtTokens all = some(0, 30);
    ThinkingBudget state(marks, budget, all);
    for (int step = 0; step < 60; ++step) {
      const auto want = forced_after(all, *marks, budget);
      ASSERT_EQ(state.forced(), want) << "seed " << seed << " step " << step;
      forced += want.has_value();
      all.push_back(want ? *want : static_cast<int32_t>(prng.below(3)));
      state.accept(all.back());
    }
  }
  EXPECT_GT(forced, 1000);
}

TEST(ThinkingBudget, ForcesTheClosingMarkOnce) {
  const auto marks = marks_of({1}, {2}, {8, 9, 2});
  ThinkingBudget state(marks, 2, ThoughtTokens{5, 1});
  ThoughtTokens answer;
  for (const int32_t wish : {4, 8, 4, 4, 4, 1, 4, 2, 4}) {
    answer.push_back(state.forced().value_or(wish));
    state.accept(answer.back());
  }
  // The second thought ends by itself, within its budget.
  EXPECT_EQ(answer, (ThoughtTokens{4, 8, 9, 2, 4, 1, 4, 2, 4}));
}

EngineConfig thinking_config(std::string reasoning_config = "") {
  EngineConfig config;
  config.reasoning_parser = "qwen3";
  config.reasoning_config = std::move(reasoning_config);
  return config;
}

ThoughtTokens ids_of(TestEngine& e, const std::string& text) {
  ThoughtTokens out;
  const Json json = e.post("/tokenize", cat(R"({"add_special_tokens":false,"prompt":)", json_string(text), "}")).json();
  for (const Json& id : json.find("tokens")->items) out.push_back(static_cast<int32_t>(*id.as_int()));
  return out;
}

// Tokens of the answer to `fields`, in which the model would say the letters of "abcdefghij..." one by one.
ThoughtTokens answer_ids(TestEngine& e, const std::string& path, const std::string& fields) {
  e.model->say(ids_of(e, "abcdefghijklmnopqrstuvwxyz"));
  const Json json =
      e.post(path, cat(R"({"max_tokens":12,"temperature":0,"ignore_eos":true,"return_token_ids":true,)", fields, "}")).json();
  ThoughtTokens out;
  if (const Json* choices = json.find("choices")) {
    for (const Json& id : choices->items[0].find("token_ids")->items) out.push_back(static_cast<int32_t>(*id.as_int()));
  }
  return out;
}

// What is forced takes the place of what the model would have said there.
ThoughtTokens with_forced(TestEngine& e, size_t budget, const std::string& forced) {
  ThoughtTokens said = ids_of(e, "abcdefghijklmnopqrstuvwxyz");
  const ThoughtTokens closing = ids_of(e, forced);
  std::copy(closing.begin(), closing.end(), said.begin() + static_cast<std::ptrdiff_t>(budget));
  said.resize(12);
  return said;
}

TEST(ThinkingBudget, EndsTheThoughtsOfARequest) {
  TestEngine e(thinking_config());
  const std::string thinks = R"("prompt":"Why?<think>")";
  for (const size_t budget : {0, 1, 3}) {
    EXPECT_EQ(answer_ids(e, "/v1/completions", cat(thinks, R"(,"thinking_token_budget":)", budget)),
              with_forced(e, budget, "</think>"))
        << budget;
  }
  const ThoughtTokens free = answer_ids(e, "/v1/completions", thinks);
  EXPECT_EQ(answer_ids(e, "/v1/completions", cat(thinks, R"(,"thinking_token_budget":-1)")), free);
  EXPECT_EQ(answer_ids(e, "/v1/completions", cat(thinks, R"(,"thinking_token_budget":12)")), free);
  EXPECT_EQ(answer_ids(e, "/v1/completions", R"("prompt":"Why?","thinking_token_budget":1)"), free);
  EXPECT_EQ(answer_ids(e, "/v1/completions", R"("prompt":"Why?<think>x</think>","thinking_token_budget":1)"), free);
  // Thoughts in the prompt count, and what forbids the closing mark does not prevent it.
  const ThoughtTokens mark = ids_of(e, "</think>");
  EXPECT_EQ(answer_ids(e, "/v1/completions",
                       cat(R"("prompt":"Why?<think>yz","thinking_token_budget":3,"logit_bias":{")", mark[0], R"(":-100})")),
            with_forced(e, 1, "</think>"));
  const std::string hot = cat(thinks, R"(,"thinking_token_budget":2,"temperature":1.5,"top_k":5,"seed":3)");
  EXPECT_EQ(answer_ids(e, "/v1/completions", hot), with_forced(e, 2, "</think>"));
  e.expect_idle();
}

TEST(ThinkingBudget, OfChatsAndMessages) {
  TestEngine e(thinking_config());
  const std::string chat = R"("messages":[{"role":"user","content":"Why?"}],"chat_template":"{{ messages[0].content }}<think>")";
  e.model->say(ids_of(e, "abcdefghijklmnopqrstuvwxyz"));
  const Json json = e.post("/v1/chat/completions",
                           cat("{", chat, R"(,"max_tokens":16,"temperature":0,"ignore_eos":true,"thinking_token_budget":3})"))
                        .json();
  const Json* message = json.find("choices")->items[0].find("message");
  EXPECT_EQ(message->find("reasoning")->text, "abc");
  EXPECT_FALSE(message->find("content")->text.empty());
  const char* enabled =
      R"({"model":"tiny","max_tokens":4,"messages":[{"role":"user","content":"x"}],"thinking":{"type":"enabled","budget_tokens":)";
  EXPECT_EQ(e.post("/v1/messages", cat(enabled, "1024}}")).status, 200);
  EXPECT_THAT(e.post("/v1/messages", cat(enabled, "7}}")).body,
              HasSubstr("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"));
  TestEngine plain;
  EXPECT_THAT(plain.post("/v1/messages", cat(enabled, "1024}}")).body,
              HasSubstr("thinking_token_budget is set but reasoning_config"));
}

TEST(ThinkingBudget, ReasoningConfigSaysTheMarks) {
  TestEngine e(thinking_config(R"({"reasoning_start_str":"[[","reasoning_end_str":"so</think>"})"));
  EXPECT_EQ(answer_ids(e, "/v1/completions", R"("prompt":"Why?[[","thinking_token_budget":1)"), with_forced(e, 1, "so</think>"));
  // The parser's own mark ends them still.
  EXPECT_EQ(answer_ids(e, "/v1/completions", R"("prompt":"Why?[[x</think>","thinking_token_budget":1)"),
            answer_ids(e, "/v1/completions", R"("prompt":"Why?")"));
  EngineConfig own;
  own.reasoning_config = R"({"reasoning_start_str":"{{","reasoning_end_str":"}}"})";
  TestEngine other(own);
  EXPECT_EQ(answer_ids(other, "/v1/completions", R"("prompt":"Why?{{","thinking_token_budget":2)"), with_forced(other, 2, "}}"));
}

}  // namespace
}  // namespace baton::engine
