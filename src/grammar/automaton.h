#pragma once
// Automaton: rules as states and edges. Inside a rule an edge reads one byte of a range, or calls a rule and goes on behind it;
// the walker (walker.h) keeps the stack of calls. Deterministic inside a rule but where that would be too large. Immutable.
// Guarantees of build(): every state can reach the end of its rule, so whatever was read can be completed; no rule calls itself
// before it has read a byte (a left recursion is refused by name); within limits.h.
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "grammar/rules.h"

namespace baton::grammar {

using StateId = uint32_t;

struct ByteEdge {
  uint8_t first = 0, last = 0;
  StateId to = 0;
  auto operator<=>(const ByteEdge&) const = default;
};
struct CallEdge {
  RuleId rule = 0;
  StateId to = 0;
  auto operator<=>(const CallEdge&) const = default;
};

class Automaton {
 public:
  static Result<Automaton> build(const Rules& rules);

  size_t size() const { return states_.size(); }
  std::span<const ByteEdge> bytes(StateId s) const { return {byte_edges_.data() + states_[s].bytes, states_[s].n_bytes}; }
  std::span<const CallEdge> calls(StateId s) const { return {call_edges_.data() + states_[s].calls, states_[s].n_calls}; }
  bool accepts(StateId s) const { return states_[s].accepts; }
  bool only_accepts(StateId s) const { return states_[s].accepts && states_[s].n_bytes == 0 && states_[s].n_calls == 0; }
  StateId start() const { return rule_start_[start_rule_]; }
  StateId start_of(RuleId rule) const { return rule_start_[static_cast<size_t>(rule)]; }
  bool nullable(RuleId rule) const { return nullable_[static_cast<size_t>(rule)]; }  // may read nothing at all
  size_t bytes_used() const;

 private:
  friend class Builder;
  struct State {
    uint32_t bytes = 0, calls = 0;  // where its edges begin
    uint32_t n_bytes = 0, n_calls = 0;
    bool accepts = false;
  };
  std::vector<State> states_;
  std::vector<ByteEdge> byte_edges_;
  std::vector<CallEdge> call_edges_;
  std::vector<StateId> rule_start_;
  std::vector<bool> nullable_;
  size_t start_rule_ = 0;
};

}  // namespace baton::grammar
