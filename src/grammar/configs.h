#pragma once
// Configs: where in an automaton a text may be: a set of threads, each a state and the calls it must return from. Sets and stacks
// are kept once each and have numbers, and what a byte does to a set is worked out once, so a walk is a table look-up a byte: a
// deterministic automaton that is built where it is walked. Grows; bytes_used() says how far. Not thread safe.
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "grammar/automaton.h"

namespace baton::grammar {

class Configs {
 public:
  using Id = uint32_t;
  using StackId = uint32_t;
  static constexpr Id kDead = 0;         // no reading is left
  static constexpr StackId kBottom = 0;  // nothing to return to: the end of the text

  struct Thread {
    StateId state = 0;  // one that reads bytes
    StackId stack = kBottom;
    auto operator<=>(const Thread&) const = default;
  };

  explicit Configs(const Automaton& automaton);
  Id start();
  Id only(StateId state);    // that state's own bytes, as if its rule were the whole
  Id behind(StackId stack);  // where its innermost call returns to; not kBottom
  Id next(Id from, uint8_t byte) {
    const uint32_t table = configs_[from].table;
    if (table != kNone) {
      const Id known = (*tables_[table])[byte];
      if (known != kNone) return known;
    }
    return step(from, byte);
  }
  bool accepts(Id id) const { return configs_[id].accepts; }  // the text may end here
  std::span<const Thread> threads(Id id) const { return {threads_.data() + configs_[id].begin, configs_[id].count}; }
  size_t depth(StackId stack) const { return frames_[stack].depth; }  // calls it must return from
  Id import(const Configs& from, Id id);  // the same place, of another Configs over the same automaton
  size_t bytes_used() const { return bytes_used_; }
  uint64_t work() const { return work_; }  // steps so far

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Config {
    uint32_t begin = 0, count = 0, table = kNone;
    bool accepts = false;
  };
  struct Frame {
    StateId state = 0;
    StackId parent = kBottom;
    uint32_t depth = 0;
    Id behind = kNone;
  };
  using Table = std::array<Id, 256>;

  StackId push(StateId state, StackId parent);  // kNone: too deep
  void open(Thread thread);
  Id close();  // of the opened threads
  Id intern(std::vector<Thread>& threads, bool accepts);
  Id step(Id from, uint8_t byte);

  const Automaton& automaton_;
  std::vector<Config> configs_;
  std::vector<Thread> threads_;
  std::vector<std::unique_ptr<Table>> tables_;
  std::vector<Frame> frames_;
  std::unordered_map<uint64_t, StackId> frame_ids_;
  std::unordered_multimap<uint64_t, Id> config_ids_;
  std::vector<Thread> open_;
  std::unordered_set<uint64_t> seen_;  // of open_, once it is long
  size_t bytes_used_ = 0;
  uint64_t work_ = 0;
};

}  // namespace baton::grammar
