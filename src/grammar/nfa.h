#pragma once
// Nfa: one rule as a nondeterministic automaton with empty edges, written out from its expression; and that automaton made
// deterministic by sets of states. Used by automaton.cc alone.
#include <optional>

#include "grammar/automaton.h"

namespace baton::grammar {

// States of one rule with numbers of its own; 0 is the start.
struct RuleStates {
  struct State {
    std::vector<ByteEdge> bytes;
    std::vector<CallEdge> calls;
    bool accepts = false;
  };
  std::vector<State> states;
};

class Nfa {
 public:
  Nfa(const Rules& rules, size_t states_max, uint64_t& steps_left) : rules_(rules), states_max_(states_max), steps_(steps_left) {}
  Result<> write(ExprId expr);
  Result<RuleStates> without_empty_edges();
  size_t size() const { return states_.size(); }

 private:
  struct State {
    std::vector<uint32_t> empty;
    std::vector<ByteEdge> bytes;
    std::vector<CallEdge> calls;
  };
  uint32_t add();
  void emit(ExprId expr, uint32_t from, uint32_t to, int depth);
  void emit_chars(const CodeRanges& ranges, uint32_t from, uint32_t to);
  void emit_free(const Expr& expr, uint32_t from, uint32_t to, int depth);
  void emit_repeat(const Expr& expr, uint32_t from, uint32_t to, int depth);
  void link(uint32_t from, uint8_t first, uint8_t last, uint32_t to) { states_[from].bytes.push_back({first, last, to}); }
  bool spend(uint64_t n);
  std::vector<uint32_t> closure(std::vector<uint32_t> from);
  std::optional<RuleStates> determinise(size_t states_max);  // nullopt: too large
  RuleStates plain();

  const Rules& rules_;
  const size_t states_max_;
  uint64_t& steps_;
  bool full_ = false;
  std::vector<State> states_;
  std::vector<uint32_t> mark_;
  uint32_t round_ = 0;
  static constexpr uint32_t kEnd = 1;
};

}  // namespace baton::grammar
