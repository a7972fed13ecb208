#include "grammar/nfa.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>

#include "grammar/limits.h"

namespace baton::grammar {
namespace {

struct ByteRange {
  uint8_t first, last;
};

// A range of code points of one encoded length as byte ranges, one a position: all combinations are in the range. Splits where
// they would not be.
void utf8_ranges(uint32_t first, uint32_t last, const auto& out) {
  static constexpr uint32_t kEnds[] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
  for (const uint32_t end : kEnds) {
    if (first <= end && end < last) {
      utf8_ranges(first, end, out);
      return utf8_ranges(end + 1, last, out);
    }
  }
  const size_t length = last <= 0x7F ? 1 : last <= 0x7FF ? 2 : last <= 0xFFFF ? 3 : 4;
  for (uint32_t bits = 6; bits < 6 * length; bits += 6) {
    const uint32_t low = (1u << bits) - 1;
    if ((first & ~low) == (last & ~low)) continue;
    if ((first & low) != 0) {
      utf8_ranges(first, first | low, out);
      return utf8_ranges((first | low) + 1, last, out);
    }
    if ((last & low) != low) {
      utf8_ranges(first, (last & ~low) - 1, out);
      return utf8_ranges(last & ~low, last, out);
    }
  }
  static constexpr uint8_t kLead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  std::array<ByteRange, 4> bytes{};
  for (size_t i = 0; i < length; ++i) {
    const auto shift = static_cast<uint32_t>(6 * (length - 1 - i));
    const uint32_t tag = i > 0 ? 0x80u : kLead[length], mask = i > 0 ? 0x3Fu : 0xFFu;
    bytes[i] = {static_cast<uint8_t>(tag | ((first >> shift) & mask)), static_cast<uint8_t>(tag | ((last >> shift) & mask))};
  }
  out(std::span<const ByteRange>(bytes.data(), length));
}

}  // namespace

bool Nfa::spend(uint64_t n) {
  full_ |= steps_ < n;
  steps_ -= std::min(steps_, n);
  return !full_;
}

// A tree of marks, each node a beginning of some: free text is at the longest that it ends with. Aho and Corasick 1975, over code
// points, so that free text is UTF-8.
struct MarkTree {
  struct Node {
    std::map<uint32_t, size_t> next{};
    size_t shorter = 0;           // the longest other beginning that this one ends with
    std::vector<size_t> whole{};  // marks that end here
  };
  explicit MarkTree(std::span<const FreeMark> marks) {
    for (size_t m = 0; m < marks.size(); ++m) {
      size_t at = 0;
      for (const uint32_t c : code_points(marks[m].text)) {
        const auto [it, added] = nodes[at].next.try_emplace(c, nodes.size());
        at = it->second;
        if (added) nodes.emplace_back();
        alphabet.push_back({c, c});
      }
      nodes[at].whole.push_back(m);
    }
    alphabet = sorted(std::move(alphabet));
    std::vector<size_t> order{0};
    for (size_t i = 0; i < order.size(); ++i) {
      for (const auto& [c, child] : nodes[order[i]].next) {
        nodes[child].shorter = order[i] == 0 ? 0 : after(nodes[order[i]].shorter, c);
        const std::vector<size_t>& more = nodes[nodes[child].shorter].whole;
        nodes[child].whole.insert(nodes[child].whole.end(), more.begin(), more.end());
        order.push_back(child);
      }
    }
  }
  size_t after(size_t node, uint32_t c) const {
    for (;; node = nodes[node].shorter) {
      if (const auto it = nodes[node].next.find(c); it != nodes[node].next.end()) return it->second;
      if (node == 0) return 0;
    }
  }
  std::vector<Node> nodes{1};
  CodeRanges alphabet;
};

void Nfa::emit_free(const Expr& e, uint32_t from, uint32_t to, int depth) {
  const MarkTree tree(e.marks);
  std::vector<uint32_t> ids;
  for (const MarkTree::Node& node : tree.nodes) {
    ids.push_back(add());
    if (full_) return;
    if (node.whole.empty()) states_[ids.back()].empty.push_back(to);
  }
  states_[from].empty.push_back(ids[0]);
  for (size_t i = 0; i < tree.nodes.size() && !full_; ++i) {
    const MarkTree::Node& node = tree.nodes[i];
    if (!node.whole.empty()) {
      const bool never = std::ranges::any_of(node.whole, [&](size_t m) { return !e.marks[m].part; });
      for (size_t k = 0; k < node.whole.size() && !never; ++k)
        emit(*e.marks[node.whole[k]].part, ids[i], e.once ? to : ids[0], depth);
      continue;
    }
    std::map<size_t, CodeRanges> edges{{0, others(tree.alphabet)}};
    for (const CodeRange& range : tree.alphabet) {
      for (uint32_t c = range.first; c <= range.last; ++c) edges[tree.after(i, c)].push_back({c, c});
      if (!spend(range.last - range.first + 1)) return;
    }
    for (auto& [node_to, ranges] : edges) emit_chars(sorted(std::move(ranges)), ids[i], ids[node_to]);
  }
}

uint32_t Nfa::add() {
  if (states_.size() >= states_max_) {
    full_ = true;
    return 0;
  }
  states_.emplace_back();
  return static_cast<uint32_t>(states_.size() - 1);
}

Result<> Nfa::write(ExprId expr) {
  add(), add();
  if (!full_) emit(expr, 0, kEnd, 0);
  if (full_) return fail(Code::kInvalidArgument, "it is too large: more than ", kNfaStatesMax, " states");
  return {};
}

void Nfa::emit_chars(const CodeRanges& ranges, uint32_t from, uint32_t to) {
  const auto one = [&](std::span<const ByteRange> bytes) {
    uint32_t at = from;
    for (size_t i = 0; i < bytes.size() && !full_; ++i) {
      const uint32_t next = i + 1 == bytes.size() ? to : add();
      link(at, bytes[i].first, bytes[i].last, next);
      at = next;
    }
  };
  for (const CodeRange& r : common(ranges, {{0, 0xD7FF}, {0xE000, 0x10FFFF}})) utf8_ranges(r.first, r.last, one);
}

void Nfa::emit_repeat(const Expr& expr, uint32_t from, uint32_t to, int depth) {
  uint32_t at = from;
  for (int32_t i = 0; i < expr.min && !full_; ++i) {
    const uint32_t next = add();
    emit(expr.parts[0], at, next, depth);
    at = next;
  }
  if (expr.max == kNoEnd) {
    const uint32_t loop = add(), behind = add();
    if (full_) return;
    states_[at].empty.push_back(loop);
    emit(expr.parts[0], loop, behind, depth);
    states_[behind].empty.push_back(loop);
    states_[loop].empty.push_back(to);
    return;
  }
  for (int32_t i = expr.min; i < expr.max && !full_; ++i) {
    states_[at].empty.push_back(to);
    const uint32_t next = add();
    emit(expr.parts[0], at, next, depth);
    at = next;
  }
  states_[at].empty.push_back(to);
}

void Nfa::emit(ExprId id, uint32_t from, uint32_t to, int depth) {
  const Expr& e = rules_.at(id);
  // A front end bounds how deep its text nests; each level is a few expressions.
  if (full_ || depth > 16 * kNestingMax || !spend(1)) {
    full_ = true;
    return;
  }
  switch (e.kind) {
    case Expr::Kind::kBytes: {
      if (e.bytes.empty()) states_[from].empty.push_back(to);
      for (size_t i = 0; i < e.bytes.size() && !full_; ++i) {
        const uint32_t next = i + 1 == e.bytes.size() ? to : add();
        const auto byte = static_cast<uint8_t>(e.bytes[i]);
        link(from, byte, byte, next);
        from = next;
      }
      return;
    }
    case Expr::Kind::kChars:
      return emit_chars(e.chars, from, to);
    case Expr::Kind::kSeq: {
      if (e.parts.empty()) states_[from].empty.push_back(to);
      for (size_t i = 0; i < e.parts.size() && !full_; ++i) {
        const uint32_t next = i + 1 == e.parts.size() ? to : add();
        emit(e.parts[i], from, next, depth + 1);
        from = next;
      }
      return;
    }
    case Expr::Kind::kAlt:
      for (const ExprId part : e.parts) emit(part, from, to, depth + 1);
      return;
    case Expr::Kind::kRepeat:
      return emit_repeat(e, from, to, depth + 1);
    case Expr::Kind::kFree:
      return emit_free(e, from, to, depth + 1);
    case Expr::Kind::kCall:
      states_[from].calls.push_back({e.rule, to});
      return;
  }
}

// What is reached by empty edges alone; of these, those that matter: with edges of their own, or the end. Ascending.
std::vector<uint32_t> Nfa::closure(std::vector<uint32_t> from) {
  mark_.resize(states_.size(), 0);
  ++round_;
  std::vector<uint32_t> out;
  for (const uint32_t s : from) mark_[s] = round_;
  while (!from.empty()) {
    const uint32_t s = from.back();
    from.pop_back();
    if (!spend(1 + states_[s].empty.size())) return {};
    if (s == kEnd || !states_[s].bytes.empty() || !states_[s].calls.empty()) out.push_back(s);
    for (const uint32_t next : states_[s].empty) {
      if (mark_[next] == round_) continue;
      mark_[next] = round_;
      from.push_back(next);
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::optional<RuleStates> Nfa::determinise(size_t states_max) {
  RuleStates out;
  std::map<std::vector<uint32_t>, uint32_t> ids;
  std::vector<const std::vector<uint32_t>*> sets;
  bool fits = true;
  const auto id_of = [&](std::vector<uint32_t> targets) {
    const auto [it, added] = ids.try_emplace(closure(std::move(targets)), static_cast<uint32_t>(sets.size()));
    if (added) {
      fits &= sets.size() < states_max;
      sets.push_back(&it->first);
      out.states.emplace_back().accepts = std::binary_search(it->first.begin(), it->first.end(), kEnd);
    }
    return it->second;
  };
  id_of({0});
  for (size_t i = 0; i < sets.size() && fits && !full_; ++i) {
    std::vector<ByteEdge> edges;
    std::map<RuleId, std::vector<uint32_t>> calls;
    for (const uint32_t s : *sets[i]) {
      edges.insert(edges.end(), states_[s].bytes.begin(), states_[s].bytes.end());
      for (const CallEdge& c : states_[s].calls) calls[c.rule].push_back(c.to);
    }
    for (auto& [rule, targets] : calls) {
      const uint32_t to = id_of(std::move(targets));
      out.states[i].calls.push_back({rule, to});
    }
    std::array<bool, 257> cut{};
    for (const ByteEdge& e : edges) cut[e.first] = cut[e.last + 1u] = true;
    for (size_t first = 0; first < 256 && !full_;) {
      size_t end = first + 1;
      while (end < 256 && !cut[end]) ++end;
      std::vector<uint32_t> targets;
      spend(edges.size());
      for (const ByteEdge& e : edges) {
        if (e.first <= first && first <= e.last) targets.push_back(e.to);
      }
      if (!targets.empty()) {
        std::sort(targets.begin(), targets.end());
        targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
        const uint32_t to = id_of(std::move(targets));
        std::vector<ByteEdge>& mine = out.states[i].bytes;
        if (!mine.empty() && mine.back().to == to && mine.back().last + 1u == first)
          mine.back().last = static_cast<uint8_t>(end - 1);
        else
          mine.push_back({static_cast<uint8_t>(first), static_cast<uint8_t>(end - 1), to});
      }
      first = end;
    }
  }
  if (!fits) return std::nullopt;
  return out;
}

RuleStates Nfa::plain() {
  RuleStates out;
  out.states.resize(states_.size());
  for (uint32_t s = 0; s < states_.size() && !full_; ++s) {
    for (const uint32_t reached : closure({s})) {
      out.states[s].accepts |= reached == kEnd;
      const State& r = states_[reached];
      out.states[s].bytes.insert(out.states[s].bytes.end(), r.bytes.begin(), r.bytes.end());
      out.states[s].calls.insert(out.states[s].calls.end(), r.calls.begin(), r.calls.end());
      if (!spend(r.bytes.size() + r.calls.size())) break;
    }
    std::sort(out.states[s].bytes.begin(), out.states[s].bytes.end());
  }
  return out;
}

Result<RuleStates> Nfa::without_empty_edges() {
  // Sets of states may be exponentially many; then the walker carries the set along instead.
  const uint64_t before = steps_;
  steps_ /= 2;
  const uint64_t kept = before - steps_;
  auto small = determinise(4 * states_.size() + 256);
  steps_ += kept;
  if (small && !full_) return *std::move(small);
  full_ = false;
  RuleStates out = plain();
  if (full_) return fail(Code::kInvalidArgument, "it takes too long to compile");
  return out;
}

}  // namespace baton::grammar
