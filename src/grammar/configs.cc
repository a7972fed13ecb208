#include "grammar/configs.h"

#include <algorithm>

#include "base/prng.h"
#include "grammar/limits.h"

namespace baton::grammar {
namespace {

constexpr size_t kLinearMax = 32;  // threads up to which looking through them beats hashing

uint64_t key_of(uint32_t a, uint32_t b) { return static_cast<uint64_t>(a) << 32 | b; }

}  // namespace

Configs::Configs(const Automaton& automaton) : automaton_(automaton) {
  frames_.emplace_back();   // kBottom
  configs_.emplace_back();  // kDead
}

Configs::StackId Configs::push(StateId state, StackId parent) {
  if (frames_[parent].depth + 1 >= kStackMax) return kNone;
  const auto [it, added] = frame_ids_.try_emplace(key_of(state, parent), static_cast<StackId>(frames_.size()));
  if (added) {
    frames_.push_back({.state = state, .parent = parent, .depth = frames_[parent].depth + 1});
    bytes_used_ += sizeof(Frame) + 48;  // and its entry in the table
  }
  return it->second;
}

void Configs::open(Thread thread) {
  ++work_;
  if (open_.size() < kLinearMax) {
    if (std::find(open_.begin(), open_.end(), thread) != open_.end()) return;
  } else {
    if (open_.size() == kLinearMax) {
      seen_.clear();
      for (const Thread& t : open_) seen_.insert(key_of(t.state, t.stack));
    }
    if (open_.size() >= kThreadsMax || !seen_.insert(key_of(thread.state, thread.stack)).second) return;
  }
  open_.push_back(thread);
}

Configs::Id Configs::close() {
  bool accepts = false;
  std::vector<Thread> kept;
  for (size_t i = 0; i < open_.size(); ++i) {  // grows while it runs
    const Thread t = open_[i];
    if (!automaton_.bytes(t.state).empty()) kept.push_back(t);
    if (automaton_.accepts(t.state)) {
      if (t.stack == kBottom)
        accepts = true;
      else
        open({frames_[t.stack].state, frames_[t.stack].parent});
    }
    for (const CallEdge& call : automaton_.calls(t.state)) {
      // A call at the end of a rule returns to where the rule itself would.
      const StackId stack = automaton_.only_accepts(call.to) ? t.stack : push(call.to, t.stack);
      if (stack != kNone) open({automaton_.start_of(call.rule), stack});
    }
  }
  open_.clear();
  return intern(kept, accepts);
}

Configs::Id Configs::intern(std::vector<Thread>& threads, bool accepts) {
  if (threads.empty() && !accepts) return kDead;
  std::sort(threads.begin(), threads.end());
  uint64_t hash = mix64(threads.size() * 2 + accepts);
  for (const Thread& t : threads) hash = mix64(hash ^ key_of(t.state, t.stack));
  const auto [begin, end] = config_ids_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (configs_[it->second].accepts == accepts && std::ranges::equal(this->threads(it->second), threads)) return it->second;
  }
  const auto id = static_cast<Id>(configs_.size());
  configs_.push_back(
      {.begin = static_cast<uint32_t>(threads_.size()), .count = static_cast<uint32_t>(threads.size()), .accepts = accepts});
  threads_.insert(threads_.end(), threads.begin(), threads.end());
  config_ids_.emplace(hash, id);
  bytes_used_ += sizeof(Config) + threads.size() * sizeof(Thread) + 48;
  return id;
}

Configs::Id Configs::start() {
  open({automaton_.start(), kBottom});
  return close();
}

Configs::Id Configs::only(StateId state) {
  std::vector<Thread> one{{state, kBottom}};
  return intern(one, false);
}

Configs::Id Configs::behind(StackId stack) {
  if (frames_[stack].behind != kNone) return frames_[stack].behind;
  open({frames_[stack].state, frames_[stack].parent});
  const Id id = close();
  return frames_[stack].behind = id;
}

Configs::Id Configs::step(Id from, uint8_t byte) {
  if (from == kDead) return kDead;
  if (configs_[from].table == kNone) {
    configs_[from].table = static_cast<uint32_t>(tables_.size());
    tables_.push_back(std::make_unique<Table>());
    tables_.back()->fill(kNone);
    bytes_used_ += sizeof(Table);
  }
  // The edges that read this byte, and the bytes around it that the very same edges read.
  uint32_t first = 0, last = 255;
  for (uint32_t i = 0; i < configs_[from].count; ++i) {
    const Thread t = threads_[configs_[from].begin + i];
    for (const ByteEdge& e : automaton_.bytes(t.state)) {
      ++work_;
      if (e.last < byte) {
        first = std::max<uint32_t>(first, e.last + 1u);
      } else if (e.first > byte) {
        last = std::min<uint32_t>(last, e.first - 1u);
      } else {
        first = std::max<uint32_t>(first, e.first);
        last = std::min<uint32_t>(last, e.last);
        open({e.to, t.stack});
      }
    }
  }
  const Id to = close();
  Table& table = *tables_[configs_[from].table];
  std::fill(table.begin() + first, table.begin() + last + 1, to);
  return to;
}

Configs::Id Configs::import(const Configs& from, Id id) {
  std::vector<Thread> threads;
  for (const Thread& t : from.threads(id)) {
    std::vector<StateId> calls;
    for (StackId s = t.stack; s != kBottom; s = from.frames_[s].parent) calls.push_back(from.frames_[s].state);
    StackId stack = kBottom;
    for (size_t i = calls.size(); i-- > 0;) stack = push(calls[i], stack);
    threads.push_back({t.state, stack});
  }
  return intern(threads, from.accepts(id));
}

}  // namespace baton::grammar
