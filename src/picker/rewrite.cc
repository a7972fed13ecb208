#include "picker/rewrite.h"

#include <algorithm>

namespace baton::picker {

RewriteTable::RewriteTable(std::vector<discovery::Rewrite> rewrites) {
  std::ranges::sort(rewrites, {}, [](const discovery::Rewrite& r) { return std::pair(r.created_s, r.name); });
  for (discovery::Rewrite& rewrite : rewrites) {
    for (discovery::RewriteRule& rule : rewrite.rules) {
      if (rule.targets.empty()) continue;
      const size_t index = rules_.size();
      Rule compiled{.name = rewrite.name, .targets = std::move(rule.targets)};
      for (const auto& target : compiled.targets) compiled.weights += static_cast<uint64_t>(std::max<int64_t>(0, target.weight));
      rules_.push_back(std::move(compiled));
      for (std::string& model : rule.models) exact_.emplace(std::move(model), index);  // the first, so the oldest, stays
      if (rule.models.empty() && !any_) any_ = index;
    }
  }
}

std::optional<RewriteTable::Match> RewriteTable::apply(std::string_view model, Prng& prng) const {
  const auto exact = exact_.find(model);
  if (exact == exact_.end() && !any_) return std::nullopt;
  const Rule& rule = rules_[exact != exact_.end() ? exact->second : *any_];
  if (rule.weights == 0) return Match{rule.name, rule.targets[prng.below(rule.targets.size())].model};
  uint64_t draw = prng.below(rule.weights);
  for (const auto& target : rule.targets) {
    const uint64_t weight = static_cast<uint64_t>(std::max<int64_t>(0, target.weight));
    if (draw < weight) return Match{rule.name, target.model};
    draw -= weight;
  }
  return std::nullopt;
}

}  // namespace baton::picker
