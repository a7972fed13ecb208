#pragma once
// When a draft pays, and how long it should be. A draft row costs a step some time and is worth a token if it is right. With n
// sequences a step takes a + b n: the n tokens it gives cost that much, so a row that is right with probability p gives its
// tokens cheaper than the step does only if p > b n / (a + b n): its price. At batch 1 of a memory-bound model the price is near
// 0, in a large batch, bound by arithmetic, near 1. a and b are fitted to the steps that ran, so no machine or model has to be
// known. Guarantees: whatever the text, a sequence whose drafts are wrong soon drafts one token in kProbeTokens. Times steer how
// fast tokens come, never which. Pure; step thread.
#include <cstdint>

namespace baton::engine {

constexpr double kPriceMin = 0.1;     // below it a draft is not worth its sampling
constexpr int32_t kProbeTokens = 64;  // a sequence that does not draft tries one draft token after so many: texts change
constexpr double kStepMemory = 0.98;  // weight of a past step after each new one: some 50 steps count
constexpr double kRateMemory = 0.8;   // the same of a draft token's verdict

// Fits seconds = a + b * rows to decode steps, the recent ones most.
class StepCost {
 public:
  void observe(int32_t rows, double seconds);
  double price(int32_t rows) const;  // of one more row in a step of so many, kPriceMin to 1

 private:
  double n_ = 0, x_ = 0, y_ = 0, xx_ = 0, xy_ = 0;  // decayed sums
};

// One sequence's drafts.
class DraftPace {
 public:
  // Tokens to draft now, at most `most`: as long as all of them being right is likelier than the price. 0 = none. Called once for
  // each token the sequence goes on from.
  int32_t length(double price, int32_t most);
  void learn(int32_t drafted, int32_t accepted);
  double rate() const { return rate_; }  // of drafts whose forerunners are right, this share is right

 private:
  double rate_ = 0.5;
  int32_t since_ = 0;  // tokens since the last draft
};

}  // namespace baton::engine
