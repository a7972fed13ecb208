#include "grammar/automaton.h"

#include <algorithm>
#include <numeric>

#include "grammar/limits.h"
#include "grammar/nfa.h"

namespace baton::grammar {

// From rules to one table of states, in passes: write each rule that is called, find what can never end, check, pack.
class Builder {
 public:
  explicit Builder(const Rules& rules) : rules_(rules), first_(rules.size(), kNone) {}
  Result<Automaton> build();

 private:
  static constexpr StateId kNone = UINT32_MAX;
  Result<> write_rule(RuleId rule);
  Result<> find_live();
  Result<> find_nullable();
  Result<> refuse_left_recursion() const;
  Automaton pack() const;
  template <class Better>
  Result<> until_stable(Better better);

  const Rules& rules_;
  uint64_t steps_ = kBuildStepsMax;
  size_t nfa_states_ = 0;
  std::vector<RuleStates::State> states_;  // of all rules; edges have the final numbers
  std::vector<StateId> first_;             // of each rule; kNone = never called
  std::vector<bool> live_;                 // can reach the end of its rule
  std::vector<bool> ends_;                 // can reach it without reading a byte
};

Result<> Builder::write_rule(RuleId rule) {
  const ExprId expr = rules_.definition(rule);
  if (expr < 0) return fail(Code::kInvalidArgument, "rule \"", rules_.name(rule), "\" is not defined");
  Nfa nfa(rules_, kNfaStatesMax - nfa_states_, steps_);
  BATON_OK(nfa.write(expr));
  nfa_states_ += nfa.size();
  BATON_TRY(RuleStates written, nfa.without_empty_edges());
  if (states_.size() + written.states.size() > kStatesMax)
    return fail(Code::kInvalidArgument, "it is too large: more than ", kStatesMax, " states");
  const auto base = static_cast<StateId>(states_.size());
  first_[static_cast<size_t>(rule)] = base;
  for (RuleStates::State& s : written.states) {
    for (ByteEdge& e : s.bytes) e.to += base;
    for (CallEdge& e : s.calls) e.to += base;
    states_.push_back(std::move(s));
  }
  return {};
}

// Calls better(state) over all states until none changes any more.
template <class Better>
Result<> Builder::until_stable(Better better) {
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t s = states_.size(); s-- > 0;) changed |= better(static_cast<StateId>(s));  // edges lead mostly to later states
    if (steps_ < states_.size()) return fail(Code::kInvalidArgument, "it takes too long to compile");
    steps_ -= states_.size();
  }
  return {};
}

Result<> Builder::find_live() {
  live_.assign(states_.size(), false);
  return until_stable([&](StateId s) {
    if (live_[s]) return false;
    const RuleStates::State& state = states_[s];
    live_[s] = state.accepts ||
               std::any_of(state.bytes.begin(), state.bytes.end(), [&](const ByteEdge& e) { return live_[e.to]; }) ||
               std::any_of(state.calls.begin(), state.calls.end(),
                           [&](const CallEdge& e) { return live_[e.to] && live_[first_[static_cast<size_t>(e.rule)]]; });
    return bool(live_[s]);
  });
}

Result<> Builder::find_nullable() {
  ends_.assign(states_.size(), false);
  return until_stable([&](StateId s) {
    if (ends_[s]) return false;
    const RuleStates::State& state = states_[s];
    ends_[s] = state.accepts || std::any_of(state.calls.begin(), state.calls.end(), [&](const CallEdge& e) {
                 return ends_[e.to] && ends_[first_[static_cast<size_t>(e.rule)]];
               });
    return bool(ends_[s]);
  });
}

// A rule that is called before a byte was read must not lead back to itself: the stack would grow without end. States that are
// reached without a byte form a graph; a call's edge leads to the called rule's start, and behind the call where that may be
// empty.
Result<> Builder::refuse_left_recursion() const {
  enum : uint8_t { kNew, kOpen, kDone };
  std::vector<uint8_t> seen(rules_.size(), kNew);
  struct Frame {
    RuleId rule;
    std::vector<RuleId> calls;
  };
  std::vector<Frame> open;
  const auto enter = [&](RuleId rule) {
    seen[static_cast<size_t>(rule)] = kOpen;
    Frame frame{rule, {}};
    std::vector<StateId> at{first_[static_cast<size_t>(rule)]};
    for (size_t i = 0; i < at.size(); ++i) {
      for (const CallEdge& e : states_[at[i]].calls) {
        frame.calls.push_back(e.rule);
        if (ends_[first_[static_cast<size_t>(e.rule)]] && std::find(at.begin(), at.end(), e.to) == at.end()) at.push_back(e.to);
      }
      if (at.size() > 4096) break;  // so many empty calls in a row are no grammar anybody writes; the walk is bounded anyway
    }
    open.push_back(std::move(frame));
  };
  enter(rules_.start);
  std::vector<RuleId> later;
  for (size_t r = 0; r < rules_.size(); ++r) {
    if (first_[r] != kNone) later.push_back(static_cast<RuleId>(r));
  }
  while (!open.empty() || !later.empty()) {
    if (open.empty()) {
      const RuleId rule = later.back();
      later.pop_back();
      if (seen[static_cast<size_t>(rule)] == kNew) enter(rule);
      continue;
    }
    if (open.back().calls.empty()) {
      seen[static_cast<size_t>(open.back().rule)] = kDone;
      open.pop_back();
      continue;
    }
    const RuleId called = open.back().calls.back();
    open.back().calls.pop_back();
    if (seen[static_cast<size_t>(called)] == kOpen)
      return fail(Code::kInvalidArgument, "rule \"", rules_.name(called),
                  "\" is left recursive: it calls itself before it has read anything");
    if (seen[static_cast<size_t>(called)] == kNew) enter(called);
  }
  return {};
}

Automaton Builder::pack() const {
  Automaton out;
  std::vector<StateId> number(states_.size(), kNone);
  StateId n = 0;
  for (size_t s = 0; s < states_.size(); ++s) {
    if (live_[s]) number[s] = n++;
  }
  out.states_.reserve(n);
  for (size_t s = 0; s < states_.size(); ++s) {
    if (!live_[s]) continue;
    Automaton::State state{.bytes = static_cast<uint32_t>(out.byte_edges_.size()),
                           .calls = static_cast<uint32_t>(out.call_edges_.size()),
                           .accepts = states_[s].accepts};
    for (const ByteEdge& e : states_[s].bytes) {
      if (live_[e.to]) out.byte_edges_.push_back({e.first, e.last, number[e.to]});
    }
    for (const CallEdge& e : states_[s].calls) {
      if (live_[e.to] && live_[first_[static_cast<size_t>(e.rule)]]) out.call_edges_.push_back({e.rule, number[e.to]});
    }
    state.n_bytes = static_cast<uint32_t>(out.byte_edges_.size()) - state.bytes;
    state.n_calls = static_cast<uint32_t>(out.call_edges_.size()) - state.calls;
    out.states_.push_back(state);
  }
  for (size_t r = 0; r < rules_.size(); ++r) {
    out.rule_start_.push_back(first_[r] == kNone ? kNone : number[first_[r]]);
    out.nullable_.push_back(first_[r] != kNone && ends_[first_[r]]);
  }
  out.start_rule_ = static_cast<size_t>(rules_.start);
  return out;
}

Result<Automaton> Builder::build() {
  if (rules_.full()) return fail(Code::kInvalidArgument, "it is too large: more than ", kExprsMax, " parts");
  BATON_OK(write_rule(rules_.start));
  for (size_t s = 0; s < states_.size(); ++s) {  // grows while it runs
    const std::vector<CallEdge> calls = states_[s].calls;
    for (const CallEdge& e : calls) {
      if (first_[static_cast<size_t>(e.rule)] == kNone) BATON_OK(write_rule(e.rule));
    }
  }
  BATON_OK(find_live());
  BATON_OK(find_nullable());
  if (!live_[first_[static_cast<size_t>(rules_.start)]]) return fail(Code::kInvalidArgument, "nothing can satisfy it");
  BATON_OK(refuse_left_recursion());
  return pack();
}

Result<Automaton> Automaton::build(const Rules& rules) { return Builder(rules).build(); }

size_t Automaton::bytes_used() const {
  return states_.size() * sizeof(State) + byte_edges_.size() * sizeof(ByteEdge) + call_edges_.size() * sizeof(CallEdge);
}

}  // namespace baton::grammar
