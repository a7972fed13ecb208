#pragma once
// RewriteTable: InferenceModelRewrite compiled. A rule that names the model beats one for any model; among equals the oldest
// resource wins, then the order in it. Its target is drawn by weight; without weights all are alike. Immutable; any thread.
// Source: facts sheet "epp" 4.1.
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/prng.h"
#include "discovery/cluster.h"

namespace baton::picker {

class RewriteTable {
 public:
  RewriteTable() = default;
  explicit RewriteTable(std::vector<discovery::Rewrite> rewrites);
  struct Match {
    std::string_view rewrite, model;  // the resource's name, and what to ask the engine for
  };
  std::optional<Match> apply(std::string_view model, Prng& prng) const;
  bool empty() const { return exact_.empty() && !any_; }

 private:
  struct Rule {
    std::string name;
    std::vector<discovery::RewriteTarget> targets;
    uint64_t weights = 0;  // their sum; 0 = none given
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  std::vector<Rule> rules_;
  std::unordered_map<std::string, size_t, Hash, std::equal_to<>> exact_;
  std::optional<size_t> any_;
};

}  // namespace baton::picker
