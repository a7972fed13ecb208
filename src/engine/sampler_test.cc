#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/prng.h"
#include "grammar/constraint.h"
#include "grammar/testing/vocabulary.h"

namespace baton::engine {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> random_logits(uint64_t seed, size_t n, double spread = 6) {
  Prng prng(seed);
  std::vector<float> out(n);
  for (float& x : out) x = static_cast<float>((prng.uniform() - 0.5) * spread);
  return out;
}

int32_t draw(const SamplingParams& params, std::span<const float> logits, std::span<const int32_t> prompt = {},
             std::span<const int32_t> output = {}) {
  SamplerScratch scratch;
  Sampler sampler(params, prompt);
  for (int32_t token : output) sampler.accept(token);
  auto token = sampler.sample(logits, scratch);
  return token ? *token : -1;
}

SamplingParams greedy() {
  SamplingParams p;
  p.temperature = 0;
  return p;
}

// Probabilities by the definition, in double, with a full sort: what the sampler's short cuts must agree with.
std::map<int32_t, double> reference(const SamplingParams& p, std::span<const float> logits) {
  std::vector<std::pair<double, int32_t>> all;
  double top = -kInf;
  for (float x : logits) top = std::max(top, static_cast<double>(x));
  for (size_t i = 0; i < logits.size(); ++i)
    all.emplace_back(std::exp((logits[i] - top) / p.temperature), static_cast<int32_t>(i));
  std::erase_if(all, [&](auto& e) { return e.first < p.min_p; });
  std::sort(all.begin(), all.end(),
            [](auto& a, auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  if (p.top_k > 0 && static_cast<size_t>(p.top_k) < all.size()) all.resize(static_cast<size_t>(p.top_k));
  double total = 0, sum = 0;
  for (auto& [w, id] : all) total += w;
  size_t keep = 0;
  while (keep < all.size() && sum < p.top_p * total) sum += all[keep++].first;
  all.resize(std::max<size_t>(1, keep));
  total = 0;
  for (auto& [w, id] : all) total += w;
  std::map<int32_t, double> out;
  for (auto& [w, id] : all) out[id] = w / total;
  return out;
}

TEST(Sampler, GreedyTakesTheLowestIdOfEquals) {
  EXPECT_EQ(draw(greedy(), std::vector<float>{1, 3, 3, 2}), 1);
  std::vector<float> wide(1000, 1.0f);
  wide[700] = wide[999] = 2;
  EXPECT_EQ(draw(greedy(), wide), 700);
  std::vector<float> vocabulary(5000, -1.0f);
  for (const size_t at : {4999, 4096, 3000, 1024, 1023, 0}) {
    vocabulary[at] = 2;
    EXPECT_EQ(draw(greedy(), vocabulary), static_cast<int32_t>(at));
  }
  EXPECT_EQ(model::peak_of(std::vector<float>{-kInf, -kInf}).at, -1);
  EXPECT_EQ(model::peak_of(std::vector<float>{NAN, -5.0f, NAN}).at, 1);
}

TEST(Sampler, DistributionIsTheOneAskedFor) {
  struct Case {
    double temperature, top_p, min_p;
    int32_t top_k;
  };
  for (const Case& c : {Case{1, 1, 0, 0}, Case{0.5, 1, 0, 0}, Case{1.5, 0.8, 0, 0}, Case{1, 1, 0, 7}, Case{1, 1, 0.3, 0},
                        Case{0.7, 0.9, 0.05, 20}, Case{2, 0.1, 0, 0}}) {
    SamplingParams p;
    p.temperature = c.temperature, p.top_p = c.top_p, p.min_p = c.min_p, p.top_k = c.top_k;
    const auto logits = random_logits(11, 50);
    const auto want = reference(p, logits);
    constexpr int kDraws = 20000;
    std::map<int32_t, int> seen;
    SamplerScratch scratch;
    for (int i = 0; i < kDraws; ++i) {
      p.seed = static_cast<uint64_t>(i) * 7919;
      ++seen[*Sampler(p, {}).sample(logits, scratch)];
    }
    double chi2 = 0;
    for (auto [id, share] : want) chi2 += std::pow(seen[id] - share * kDraws, 2) / (share * kDraws);
    for (auto [id, n] : seen) EXPECT_TRUE(want.contains(id) || n == 0) << "token " << id << " is outside the asked set";
    // Chi-square with k degrees of freedom exceeds k + 6 sqrt(2k) + 10 about once in 10^7; the seeds are fixed.
    const double k = static_cast<double>(want.size());
    EXPECT_LT(chi2, k + 6 * std::sqrt(2 * k) + 10)
        << "temperature " << c.temperature << " top_p " << c.top_p << " top_k " << c.top_k;
  }
}

TEST(Sampler, NucleusOfALargeVocabularyIsExact) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SamplingParams p;
    p.top_p = 0.05 + 0.045 * static_cast<double>(seed);
    const auto logits = random_logits(seed, 5000, seed % 2 ? 30 : 3);  // peaked, and nearly flat
    const auto want = reference(p, logits);
    for (uint64_t i = 0; i < 50; ++i) {
      p.seed = i;
      EXPECT_TRUE(want.contains(draw(p, logits))) << "seed " << seed << " draw " << i;
    }
  }
}

TEST(Sampler, DrawDependsOnSeedAndOutputIndexAlone) {
  const auto logits = random_logits(3, 300);
  SamplingParams p;
  p.seed = 99;
  // The same index with another history gives the same token: what lets a decode worker continue.
  const std::vector<int32_t> a{1, 2, 3}, b{7, 8, 9};
  EXPECT_EQ(draw(p, logits, {}, a), draw(p, logits, {}, b));
  std::map<int32_t, int> seen;
  std::vector<int32_t> output;
  for (int i = 0; i < 50; ++i) {
    ++seen[draw(p, logits, {}, output)];
    output.push_back(0);
  }
  EXPECT_GT(seen.size(), 20u);
}

TEST(Sampler, PipelineOrder) {
  const std::vector<float> logits{5, 4, 3, 2, 1, 0};
  SamplingParams p = greedy();
  p.allowed = {2, 4};
  EXPECT_EQ(draw(p, logits), 2);
  p.logit_bias = {{4, 10.0f}, {0, 100.0f}};
  EXPECT_EQ(draw(p, logits), 4);  // bias cannot bring back what is not allowed
  p = greedy();
  p.masked_until_min = {0, 1};
  p.min_tokens = 2;
  EXPECT_EQ(draw(p, logits), 2);
  EXPECT_EQ(draw(p, logits, {}, std::vector<int32_t>{5, 5}), 0);
  p = greedy();
  p.bad_words = {{0}, {3, 1}};
  EXPECT_EQ(draw(p, logits), 1);
  EXPECT_EQ(draw(p, logits, {}, std::vector<int32_t>{3}), 2);  // 3 was sampled, so 1 would complete the word
}

TEST(Sampler, Penalties) {
  const std::vector<float> logits{5, 4.9f, -1};
  SamplingParams p = greedy();
  p.repetition_penalty = 2;
  EXPECT_EQ(draw(p, logits, std::vector<int32_t>{0}), 1);                              // the prompt counts
  EXPECT_EQ(draw(p, logits, std::vector<int32_t>{0, 0}, std::vector<int32_t>{1}), 0);  // once, however often
  p = greedy();
  p.frequency_penalty = 0.06;
  EXPECT_EQ(draw(p, logits, std::vector<int32_t>{0}, {}), 0);  // the prompt does not count
  EXPECT_EQ(draw(p, logits, {}, std::vector<int32_t>{0}), 0);
  EXPECT_EQ(draw(p, logits, {}, std::vector<int32_t>{0, 0}), 1);
  p = greedy();
  p.presence_penalty = 0.2;
  EXPECT_EQ(draw(p, logits, {}, std::vector<int32_t>{0, 0, 0}), 1);
}

TEST(Sampler, NothingLeftIsAnError) {
  SamplingParams p = greedy();
  p.allowed = {1};
  p.bad_words = {{1}};
  EXPECT_EQ(draw(p, std::vector<float>{1, 2, 3}), -1);
  EXPECT_EQ(draw(SamplingParams{}, std::vector<float>{-kInf, -kInf}), -1);
  SamplingParams random;
  EXPECT_EQ(draw(random, std::vector<float>{-kInf, 1.0f, -kInf}), 1);
}

// A logit that is not a number says that nothing here can be trusted, also where the best of the others would be clear.
TEST(Sampler, WhatIsNotANumberIsAnError) {
  for (const size_t n : {3, 40, 300, 1500}) {
    for (size_t at = 0; at < n; at += 7) {
      std::vector<float> logits(n, 1);
      logits[0] = -kInf;
      SamplerScratch scratch;
      EXPECT_TRUE(Sampler(greedy(), {}).sample(logits, scratch).has_value());
      logits[at] = NAN;
      EXPECT_EQ(Sampler(greedy(), {}).sample(logits, scratch).error().code, Code::kDataLoss);
    }
  }
}

TEST(Sampler, NoTemperatureMakesTheImpossiblePossible) {
  for (const double temperature : {1e-4, 1e30, 1e60}) {
    SamplingParams p;
    p.temperature = temperature;
    std::vector<float> logits(300, -kInf);
    logits[40] = -2, logits[299] = 7;
    for (p.seed = 0; p.seed < 50; ++p.seed) {
      for (const int32_t top_k : {0, 5}) {
        p.top_k = top_k;
        const int32_t token = draw(p, logits);
        EXPECT_TRUE(token == 299 || (token == 40 && temperature > 1)) << token;
      }
    }
  }
}

TEST(Logprobs, TableIsTheTokenFirstThenTheBest) {
  const std::vector<float> logits{1, 3, 2, 3};
  const auto table = logprob_table(logits, 2, 3);
  ASSERT_EQ(table.size(), 3u);  // rank 3 is the token itself
  EXPECT_EQ(table[0].id, 2);
  EXPECT_EQ(table[0].rank, 3);
  EXPECT_EQ(table[1].id, 1);  // of equals the lower id
  EXPECT_EQ(table[2].id, 3);
}

TEST(Logprobs, ASampledTokenAmongTheBestIsNotRepeated) {
  const std::vector<float> logits{1, 3, 2};
  const auto table = logprob_table(logits, 1, 2);
  ASSERT_EQ(table.size(), 2u);
  EXPECT_EQ(table[0].id, 1);
  EXPECT_EQ(table[1].id, 2);
  EXPECT_EQ(logprob_table(logits, 0, 0).size(), 1u);
  EXPECT_EQ(logprob_table(logits, 0, -1).size(), 3u);
}

TEST(Logprobs, AgreeWithDoubleLogSoftmax) {
  const auto logits = random_logits(5, 40000, 20);
  double sum = 0;
  for (float x : logits) sum += std::exp(static_cast<double>(x));
  const auto table = logprob_table(logits, 17, 20);
  for (const TokenLogprob& t : table) EXPECT_NEAR(t.logprob, logits[t.id] - std::log(sum), 2e-6);
  // lm-eval compares for exact equality: the best token's own number and the table's must come from one computation.
  EXPECT_EQ(logprob_table(logits, model::peak_of(logits).at, 0)[0].logprob, table[1].logprob);
}

TEST(Logprobs, AFewAreTheFirstOfAll) {
  Prng prng(8);
  for (int round = 0; round < 40; ++round) {
    auto logits = random_logits(prng.next(), 1 + prng.below(3000), round % 2 == 0 ? 20 : 0);
    for (float& x : logits) x = round % 4 < 2 ? std::round(x) : x;  // of equals the lower id
    const auto token = static_cast<int32_t>(prng.below(logits.size()));
    const auto all = logprob_table(logits, token, -1);
    for (const int32_t top : {1, 2, 20, 64, 128, 129, 500}) {
      const auto few = logprob_table(logits, token, top);
      std::vector<int32_t> expected{token};
      for (const TokenLogprob& t : all) {
        if (t.rank <= top && t.id != token) expected.push_back(t.id);
      }
      std::vector<int32_t> ids;
      for (const TokenLogprob& t : few) ids.push_back(t.id);
      EXPECT_EQ(ids, expected) << logits.size() << " logits, " << top;
    }
  }
}

// The greedy choice looks at what the mask takes; with another edit the logits are edited. Both must choose alike.
TEST(Sampler, AConstrainedChoiceIsTheSameHoweverItIsFound) {
  const auto vocabulary = grammar::testing::vocabulary_of(grammar::testing::test_tokens(400));
  constexpr int32_t end = 0;
  Prng prng(3);
  for (const char* regex : {"[a-z ]*", "(true|false|null)+", "[0-9]{2,4}(\\.[0-9]+)?", "[^x]*"}) {
    const auto compiled = grammar::compile({.kind = grammar::Constraint::Kind::kRegex, .text = regex}, vocabulary);
    ASSERT_TRUE(compiled) << compiled.error().message;
    SamplingParams edited = greedy();
    edited.logit_bias = {{0, 0.0f}};
    Sampler quick(greedy(), {}), slow(edited, {});
    const auto walker = std::make_shared<grammar::Walker>(*compiled);
    for (Sampler* s : {&quick, &slow}) s->constrain(grammar::Matcher(walker), {end}, false);
    SamplerScratch scratch;
    for (int step = 0; step < 60 && !quick.ended_at(step); ++step) {
      const auto logits = random_logits(prng.next(), static_cast<size_t>(vocabulary->tokens()));
      const auto token = quick.sample(logits, scratch), other = slow.sample(logits, scratch);
      ASSERT_TRUE(token && other);
      ASSERT_EQ(*token, *other) << regex << " at " << step;
      quick.accept(*token), slow.accept(*token);
    }
  }
}

}  // namespace
}  // namespace baton::engine
