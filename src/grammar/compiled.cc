#include "grammar/compiled.h"

#include <algorithm>

#include "base/prng.h"

namespace baton::grammar {
namespace {

constexpr uint64_t kKindStepsMax =
    20'000'000;  // edges looked at to tell states apart, some 100 ms; beyond it each is of its own kind

struct Signature {
  uint64_t a = 1, b = 2;  // not 0, which adding 0 (the edge of the byte 0) would leave as it is
  void add(uint64_t x) {
    a = mix64(a ^ x);
    b = mix64(b + x * 0x9e3779b97f4a7c15ULL);
  }
  auto operator<=>(const Signature&) const = default;
};

}  // namespace

StateMask state_mask(Configs& configs, const Vocabulary& v, StateId state) {
  StateMask out;
  walk(configs, v, configs.only(state), 0, v.size(), 0, [&](uint32_t i, Configs::Id at) {
    const Vocabulary::Node& node = v.node(i);
    out.tokens.insert(out.tokens.end(), v.ids() + node.tokens, v.ids() + node.tokens + node.n_tokens);
    if (configs.accepts(at) && node.end > i + 1) out.exits.push_back(i);
  });
  if (out.tokens.size() * 4 > v.words() * 8) {
    out.bits.resize(v.words());
    for (const int32_t t : out.tokens) out.bits[static_cast<size_t>(t) / 64] |= uint64_t{1} << (t % 64);
    out.tokens = {};
  }
  out.exits.shrink_to_fit();
  out.tokens.shrink_to_fit();
  return out;
}

// Two states are of one kind if no text as long as the longest token tells them apart: refined once a byte, until nothing
// changes. A call of a rule that may be empty reads no byte, so what lies behind it is compared as it is.
void Compiled::find_kinds() {
  const size_t n = automaton_.size();
  kind_.assign(n, 0);
  for (size_t s = 0; s < n; ++s) kind_[s] = automaton_.accepts(static_cast<StateId>(s));
  uint64_t steps = 0;
  size_t kinds = 0;
  std::vector<std::pair<Signature, uint32_t>> signatures(n);
  std::vector<uint32_t> next(n);
  for (size_t round = 0; round <= vocabulary_->longest(); ++round) {
    for (StateId s = 0; s < n; ++s) {
      Signature sign;
      sign.add(kind_[s]);
      uint32_t first = 1, last = 0, to = 0;  // neighbouring ranges to one kind count as one
      const auto flush = [&] {
        if (first <= last) sign.add(first | last << 8 | static_cast<uint64_t>(to) << 16);
      };
      for (const ByteEdge& e : automaton_.bytes(s)) {
        if (kind_[e.to] == to && first <= last && e.first == last + 1) {
          last = e.last;
          continue;
        }
        flush();
        first = e.first, last = e.last, to = kind_[e.to];
      }
      flush();
      for (const CallEdge& e : automaton_.calls(s))
        sign.add(uint64_t{1} << 63 | static_cast<uint64_t>(e.rule) << 32 | (automaton_.nullable(e.rule) ? ~e.to : kind_[e.to]));
      steps += 2 + automaton_.bytes(s).size() + automaton_.calls(s).size();
      signatures[s] = {sign, s};
    }
    std::sort(signatures.begin(), signatures.end());
    size_t found = 0;
    for (size_t i = 0; i < n; ++i) {
      found += i > 0 && signatures[i].first != signatures[i - 1].first;
      next[signatures[i].second] = static_cast<uint32_t>(found);
    }
    kind_.swap(next);
    if (++found == kinds) break;
    kinds = found;
    if (steps > kKindStepsMax) {
      for (size_t s = 0; s < n; ++s) kind_[s] = static_cast<uint32_t>(s);
      kinds = n;
      break;
    }
  }
  masks_.resize(kinds);
}

void Compiled::warm() {
  Configs configs(automaton_);
  size_t bytes = 0;
  for (StateId s = 0; s < automaton_.size(); ++s) {
    std::unique_ptr<const StateMask>& mask = masks_[kind_[s]];
    if (mask || automaton_.bytes(s).empty()) continue;
    StateMask made = state_mask(configs, *vocabulary_, s);
    bytes += made.bytes_used();
    mask = std::make_unique<const StateMask>(std::move(made));
    if (bytes > kWarmBytesMax || configs.bytes_used() > kWarmBytesMax || configs.work() > kWarmVisitsMax) return;
  }
}

size_t Compiled::bytes_used() const {
  size_t bytes = automaton_.bytes_used() + kind_.size() * 4 + masks_.size() * 8;
  for (const auto& mask : masks_) bytes += mask ? mask->bytes_used() : 0;
  return bytes;
}

Result<std::shared_ptr<const Compiled>> Compiled::make(const Rules& rules, std::shared_ptr<const Vocabulary> vocabulary) {
  auto out = std::make_shared<Compiled>();
  BATON_TRY(out->automaton_, Automaton::build(rules));
  out->vocabulary_ = std::move(vocabulary);
  out->find_kinds();
  out->warm();
  return out;
}

}  // namespace baton::grammar
