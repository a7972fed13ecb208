#include "engine/thinking_budget.h"

#include <algorithm>

namespace baton::engine {

ThinkingBudget::ThinkingBudget(std::shared_ptr<const ThinkingMarks> marks, int64_t budget, std::span<const int32_t> prompt)
    : marks_(std::move(marks)),
      budget_(budget),
      longest_(std::max({marks_->open.size(), marks_->close.size(), marks_->forced.size()})) {
  for (const int32_t token : prompt) accept(token);
}

bool ThinkingBudget::ends_with(std::span<const int32_t> tokens) const {
  return tail_.size() >= tokens.size() &&
         std::equal(tokens.begin(), tokens.end(), tail_.end() - static_cast<std::ptrdiff_t>(tokens.size()));
}

void ThinkingBudget::accept(int32_t token) {
  if (tail_.size() >= 2 * longest_) tail_.erase(tail_.begin(), tail_.end() - static_cast<std::ptrdiff_t>(longest_));
  tail_.push_back(token);
  ++tokens_;
  if (ends_with(marks_->open)) opened_ = tokens_ - static_cast<int64_t>(marks_->open.size());
  if (ends_with(marks_->close)) closed_ = tokens_ - static_cast<int64_t>(marks_->close.size());
}

std::optional<int32_t> ThinkingBudget::forced() const {
  if (opened_ < 0 || opened_ <= closed_) return std::nullopt;
  if (tokens_ - (opened_ + static_cast<int64_t>(marks_->open.size())) < budget_) return std::nullopt;
  // As much of the closing sequence as stands there already is not written again.
  const std::span<const int32_t> closing = marks_->forced;
  size_t begun = closing.size() - 1;
  while (begun > 0 && !ends_with(closing.first(begun))) --begun;
  return closing[begun];
}

}  // namespace baton::engine
