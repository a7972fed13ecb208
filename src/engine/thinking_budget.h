#pragma once
// ThinkingBudget: how many tokens an answer may think. Where the last opening mark has no closing one behind it and at least
// `budget` tokens follow it, the next token is forced to be the next one of the closing sequence. A function of prompt and output
// alone, so an answer that another worker goes on with is the same; thoughts in the prompt count. One per sequence; step thread.
// Source: vLLM 0.32, v1/worker/gpu/sample/thinking_budget.py.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace baton::engine {

// As tokens; none is empty.
struct ThinkingMarks {
  std::vector<int32_t> open, close;  // what begins thoughts, and what ends them when the model does it by itself
  std::vector<int32_t> forced;       // what is written when the budget is spent: `close`, or a phrase that ends with it
};

class ThinkingBudget {
 public:
  ThinkingBudget(std::shared_ptr<const ThinkingMarks> marks, int64_t budget, std::span<const int32_t> prompt);
  void accept(int32_t token);
  std::optional<int32_t> forced() const;  // the token that must come next, if one must

 private:
  bool ends_with(std::span<const int32_t> tokens) const;

  std::shared_ptr<const ThinkingMarks> marks_;
  int64_t budget_;
  size_t longest_;                     // of the marks
  std::vector<int32_t> tail_;          // the last tokens, at least longest_ of them if there are so many
  int64_t tokens_ = 0;                 // so far
  int64_t opened_ = -1, closed_ = -1;  // where the last opening and closing mark begin, counted in tokens; -1 = there is none
};

}  // namespace baton::engine
