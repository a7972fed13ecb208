#pragma once
// Compiled: one constraint over one vocabulary: the automaton, and for its states which tokens they take whatever called their
// rule, worked out ahead of the first token as far as limits.h lets it. Immutable: made on an I/O thread, read by the step
// thread.
#include <memory>
#include <optional>

#include "grammar/automaton.h"
#include "grammar/configs.h"
#include "grammar/limits.h"
#include "grammar/vocabulary.h"

namespace baton::grammar {

using Mask = std::vector<uint64_t>;  // bit t of word t / 64: token t

// What a state takes by its own bytes. A token that leaves the state's rule halfway depends on the caller: exits are the nodes of
// the vocabulary where the rule was over and tokens go on.
struct StateMask {
  Mask bits;                    // where many tokens are taken, else empty and
  std::vector<int32_t> tokens;  // these
  std::vector<uint32_t> exits;
  size_t bytes_used() const { return bits.size() * 8 + tokens.size() * 4 + exits.size() * 4 + sizeof(StateMask); }
};
StateMask state_mask(Configs& configs, const Vocabulary& vocabulary, StateId state);

// Calls visit(node, config) for the nodes in [begin, end) that a text which is at `from` may go on with. Nodes are below `depth`.
template <class Visit>
void walk(Configs& configs, const Vocabulary& v, Configs::Id from, uint32_t begin, uint32_t end, size_t depth, Visit visit) {
  Configs::Id at[kTokenBytesMax + 1];
  at[depth] = from;
  for (uint32_t i = begin; i < end;) {
    const Vocabulary::Node& node = v.node(i);
    const Configs::Id to = configs.next(at[node.depth - 1], node.byte);
    if (to == Configs::kDead) {
      i = node.end;
      continue;
    }
    at[node.depth] = to;
    visit(i, to);
    ++i;
  }
}

class Compiled {
 public:
  static Result<std::shared_ptr<const Compiled>> make(const Rules& rules, std::shared_ptr<const Vocabulary> vocabulary);

  const Automaton& automaton() const { return automaton_; }
  const Vocabulary& vocabulary() const { return *vocabulary_; }
  // States of one kind cannot be told apart by any token, so they share a mask: most of a counted repetition are of one kind.
  uint32_t kind(StateId s) const { return kind_[s]; }
  uint32_t kinds() const { return static_cast<uint32_t>(masks_.size()); }
  const StateMask* mask(uint32_t kind) const { return masks_[kind].get(); }  // nullptr: not worked out
  size_t bytes_used() const;

 private:
  void find_kinds();
  void warm();

  Automaton automaton_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::vector<uint32_t> kind_;
  std::vector<std::unique_ptr<const StateMask>> masks_;  // by kind
};

}  // namespace baton::grammar
