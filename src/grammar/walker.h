#pragma once
// Walker: a compiled constraint while it is walked: remembers what was worked out, for all sequences of one step thread that
// share the constraint. Matcher: one sequence's place in it, a value: copying it is how to look ahead and come back. WalkerTable:
// a step thread's walkers. None is thread safe.
#include <memory>
#include <string>

#include "grammar/compiled.h"

namespace baton::grammar {

class Walker {
 public:
  explicit Walker(std::shared_ptr<const Compiled> compiled) : compiled_(std::move(compiled)), configs_(compiled_->automaton()) {}

  const Compiled& compiled() const { return *compiled_; }
  const Vocabulary& vocabulary() const { return compiled_->vocabulary(); }
  Configs& configs() { return configs_; }
  // The tokens that a text at this place may go on with; none if working it out exceeds kMaskWorkMax. Lives as long as this.
  const Mask& mask(Configs::Id at);
  Mask first_mask(Configs::Id at);  // the same of the first token of a text, which loses its leading space
  bool full() const { return configs_.bytes_used() + masks_bytes_ > kWalkerBytesMax; }
  Mask& scratch() { return scratch_; }
  std::shared_ptr<Walker> successor();  // an empty one, the same for all who ask

 private:
  const StateMask& mask_of(StateId state);
  void add_walk(Configs::Id from, uint32_t begin, uint32_t end, size_t depth, Mask& mask);

  std::shared_ptr<const Compiled> compiled_;
  Configs configs_;
  std::unordered_map<uint32_t, std::unique_ptr<const StateMask>> late_;  // by kind: those Compiled has not
  std::unordered_map<Configs::Id, std::unique_ptr<const Mask>> masks_;
  Mask scratch_;
  size_t masks_bytes_ = 0;
  std::shared_ptr<Walker> successor_;
};

// Where in the text the constraint begins.
struct Begin {
  enum class When : uint8_t { kAtOnce, kAfterTag, kAfterTagIfOpened };
  When when = When::kAtOnce;
  std::string open{},
      close{};  // kAfterTag: behind `close`; kAfterTagIfOpened: likewise if the text begins with `open`, else at once
};

class Matcher {
 public:
  explicit Matcher(std::shared_ptr<Walker> walker, const Begin& begin = {});

  // Bit t: token t may come next. Valid until any matcher of this walker is used again.
  const Mask& mask();
  bool accept(int32_t token);         // false: it may not come here; nothing has changed
  bool accepts(int32_t token) const;  // accept() would take it
  bool may_end() const { return phase_ == Phase::kBefore || walker_->configs().accepts(at_); }
  bool must_end();  // the text is whole, and nothing may follow

 private:
  enum class Phase : uint8_t { kMaybe, kBefore, kOn };
  void renew();
  Configs::Id read(Configs::Id at, std::string_view bytes) const;
  void mask_before(Mask& mask);
  void mask_maybe(Mask& mask);
  bool feed_before(std::string_view bytes);
  bool accept_maybe(std::string_view bytes);

  std::shared_ptr<Walker> walker_;
  Configs::Id at_;
  Phase phase_ = Phase::kOn;
  bool first_ = false;  // the next token loses its leading space
  std::string held_;    // kMaybe: the beginning of open_; kBefore: the end of the text, shorter than close_
  std::shared_ptr<const Begin> begin_;
};

class WalkerTable {
 public:
  std::shared_ptr<Walker> of(const std::shared_ptr<const Compiled>& compiled);

 private:
  std::vector<std::shared_ptr<Walker>> recent_;  // the last used one last; at most kWalkersMax
};

}  // namespace baton::grammar
