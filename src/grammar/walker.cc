#include "grammar/walker.h"

#include <algorithm>

namespace baton::grammar {
namespace {

void set(Mask& mask, const Vocabulary& v, const Vocabulary::Node& node) {
  for (uint32_t i = 0; i < node.n_tokens; ++i) {
    const auto t = static_cast<size_t>(v.ids()[node.tokens + i]);
    mask[t / 64] |= uint64_t{1} << (t % 64);
  }
}

void set_all(Mask& mask, const Vocabulary& v, uint32_t begin, uint32_t end) {
  for (uint32_t i = begin; i < end; ++i) set(mask, v, v.node(i));
}

void clear_all(Mask& mask, const Vocabulary& v, uint32_t begin, uint32_t end) {
  for (uint32_t i = begin; i < end; ++i) {
    const Vocabulary::Node& node = v.node(i);
    for (uint32_t k = 0; k < node.n_tokens; ++k) {
      const auto t = static_cast<size_t>(v.ids()[node.tokens + k]);
      mask[t / 64] &= ~(uint64_t{1} << (t % 64));
    }
  }
}

// The longest end of `text` that a tag begins with, shorter than the tag.
std::string_view tag_tail(std::string_view text, std::string_view tag) {
  for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n) {
    if (tag.starts_with(text.substr(text.size() - n))) return text.substr(text.size() - n);
  }
  return {};
}

}  // namespace

const StateMask& Walker::mask_of(StateId state) {
  const uint32_t kind = compiled_->kind(state);
  if (const StateMask* known = compiled_->mask(kind)) return *known;
  std::unique_ptr<const StateMask>& late = late_[kind];
  if (!late) {
    late = std::make_unique<const StateMask>(state_mask(configs_, vocabulary(), state));
    masks_bytes_ += late->bytes_used();
  }
  return *late;
}

void Walker::add_walk(Configs::Id from, uint32_t begin, uint32_t end, size_t depth, Mask& mask) {
  const Vocabulary& v = vocabulary();
  walk(configs_, v, from, begin, end, depth, [&](uint32_t i, Configs::Id) { set(mask, v, v.node(i)); });
}

const Mask& Walker::mask(Configs::Id at) {
  if (const auto it = masks_.find(at); it != masks_.end()) return *it->second;
  const Vocabulary& v = vocabulary();
  const uint64_t work_max = configs_.work() + kMaskWorkMax;
  Mask out(v.words());
  const std::vector<Configs::Thread> threads(configs_.threads(at).begin(), configs_.threads(at).end());  // walks make new ones
  // Close to the end of the stack a state's own mask may promise what there is no room for: each token is tried.
  const bool deep = std::any_of(threads.begin(), threads.end(),
                                [&](const Configs::Thread& t) { return configs_.depth(t.stack) + v.longest() >= kStackMax; });
  if (deep) add_walk(at, 0, v.size(), 0, out);
  for (size_t k = 0; k < threads.size() && !deep; ++k) {
    const Configs::Thread t = threads[k];
    const StateMask& own = mask_of(t.state);
    for (size_t i = 0; i < own.bits.size(); ++i) out[i] |= own.bits[i];
    for (const int32_t token : own.tokens) out[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64);
    if (t.stack == Configs::kBottom) continue;
    const Configs::Id caller = configs_.behind(t.stack);
    for (const uint32_t exit : own.exits) {
      const Vocabulary::Node& node = v.node(exit);
      add_walk(caller, exit + 1, node.end, node.depth, out);
    }
    if (configs_.work() > work_max) {  // nobody writes such a grammar but to keep us busy
      std::fill(out.begin(), out.end(), 0);
      break;
    }
  }
  masks_bytes_ += out.size() * 8 + 64;
  return *masks_.emplace(at, std::make_unique<const Mask>(std::move(out))).first->second;
}

Mask Walker::first_mask(Configs::Id at) {
  const Vocabulary& v = vocabulary();
  Mask out = mask(at);
  const uint32_t space = v.find(" ");
  if (space == v.size()) return out;
  clear_all(out, v, space, v.node(space).end);
  set(out, v, v.node(space));  // nothing of it is left
  // Below the space a token's second byte is the first that counts.
  add_walk(at, space + 1, v.node(space).end, 1, out);
  return out;
}

std::shared_ptr<Walker> Walker::successor() {
  if (!successor_) successor_ = std::make_shared<Walker>(compiled_);
  return successor_;
}

Matcher::Matcher(std::shared_ptr<Walker> walker, const Begin& begin)
    : walker_(std::move(walker)), at_(walker_->configs().start()) {
  first_ = walker_->vocabulary().strips_first_space();
  if (begin.when == Begin::When::kAtOnce) return;
  phase_ = begin.when == Begin::When::kAfterTag ? Phase::kBefore : Phase::kMaybe;
  begin_ = std::make_shared<const Begin>(begin);
}

// A walker that has grown too large is left for a fresh one; those who still read the old one keep it.
void Matcher::renew() {
  while (walker_->full()) {
    const std::shared_ptr<Walker> next = walker_->successor();
    at_ = next->configs().import(walker_->configs(), at_);
    walker_ = next;
    if (walker_->full()) return;  // one place alone fills it
  }
}

Configs::Id Matcher::read(Configs::Id at, std::string_view bytes) const {
  for (const char c : bytes) {
    if (at == Configs::kDead) break;
    at = walker_->configs().next(at, static_cast<uint8_t>(c));
  }
  return at;
}

// Anything goes, but a token that ends the tag and goes on must go on as the constraint begins.
void Matcher::mask_before(Mask& mask) {
  const Vocabulary& v = walker_->vocabulary();
  std::fill(mask.begin(), mask.end(), ~uint64_t{0});
  const std::string_view close = begin_->close;
  for (size_t have = 0; have < close.size(); ++have) {
    if (have > held_.size() || !close.starts_with(std::string_view(held_).substr(held_.size() - have))) continue;
    const uint32_t node = v.find(close.substr(have));
    if (node == v.size()) continue;
    clear_all(mask, v, node + 1, v.node(node).end);
    walk(walker_->configs(), v, at_, node + 1, v.node(node).end, v.node(node).depth,
         [&](uint32_t i, Configs::Id) { set(mask, v, v.node(i)); });
  }
}

// As the constraint begins, or any way on along the opening tag.
void Matcher::mask_maybe(Mask& mask) {
  const Vocabulary& v = walker_->vocabulary();
  if (at_ != Configs::kDead) mask = first_ ? walker_->first_mask(at_) : walker_->mask(at_);
  const std::string_view rest = std::string_view(begin_->open).substr(held_.size());
  for (size_t n = 1; n <= rest.size(); ++n) {
    const uint32_t node = v.find(rest.substr(0, n));
    if (node == v.size()) return;
    set(mask, v, v.node(node));
    if (n == rest.size()) set_all(mask, v, node + 1, v.node(node).end);
  }
}

const Mask& Matcher::mask() {
  renew();
  if (phase_ == Phase::kOn && !first_) return walker_->mask(at_);
  Mask& out = walker_->scratch();
  out.assign(walker_->vocabulary().words(), 0);
  if (phase_ == Phase::kBefore)
    mask_before(out);
  else if (phase_ == Phase::kMaybe)
    mask_maybe(out);
  else
    out = walker_->first_mask(at_);
  return out;
}

// True while no byte behind the closing tag is wrong.
bool Matcher::feed_before(std::string_view bytes) {
  const std::string text = held_ + std::string(bytes);
  const size_t found = text.find(begin_->close);
  if (found == std::string::npos) {
    held_ = tag_tail(text, begin_->close);
    return true;
  }
  const Configs::Id to = read(at_, std::string_view(text).substr(found + begin_->close.size()));
  if (to == Configs::kDead) return false;
  at_ = to;
  held_.clear();
  phase_ = Phase::kOn;
  return true;
}

bool Matcher::accept(int32_t token) {
  const Vocabulary& v = walker_->vocabulary();
  if (token < 0 || token >= v.tokens()) return phase_ == Phase::kBefore;
  renew();
  std::string_view bytes = v.bytes(token);
  if (bytes.empty()) return phase_ == Phase::kBefore;  // a special token among the thoughts
  if (first_ && bytes.starts_with(' ')) bytes.remove_prefix(1);
  if (phase_ == Phase::kBefore) {
    if (!feed_before(bytes)) return false;
    first_ = false;
    return true;
  }
  if (phase_ == Phase::kMaybe) return accept_maybe(bytes);
  const Configs::Id to = read(at_, bytes);
  if (to == Configs::kDead) return false;
  at_ = to;
  first_ = false;
  return true;
}

bool Matcher::accept_maybe(std::string_view bytes) {
  const std::string_view open = begin_->open;
  const std::string text = held_ + std::string(bytes);
  const Configs::Id to = read(at_, bytes);
  if (text.starts_with(open)) {
    Matcher thinking = *this;
    thinking.at_ = walker_->configs().start();
    thinking.held_.clear();
    thinking.phase_ = Phase::kBefore;
    if (!thinking.feed_before(std::string_view(text).substr(open.size()))) return false;
    *this = std::move(thinking);
  } else if (open.starts_with(text)) {
    held_ = text;  // both readings, the constraint's perhaps none
    at_ = to;
  } else {
    if (to == Configs::kDead) return false;
    at_ = to;
    phase_ = Phase::kOn;
  }
  first_ = false;
  return true;
}

bool Matcher::accepts(int32_t token) const { return Matcher(*this).accept(token); }

bool Matcher::must_end() {
  if (phase_ != Phase::kOn || !may_end()) return false;
  return walker_->configs().threads(at_).empty();
}

std::shared_ptr<Walker> WalkerTable::of(const std::shared_ptr<const Compiled>& compiled) {
  auto it = std::find_if(recent_.begin(), recent_.end(), [&](const auto& w) { return &w->compiled() == compiled.get(); });
  if (it == recent_.end()) {
    if (recent_.size() >= kWalkersMax) recent_.erase(recent_.begin());
    recent_.push_back(std::make_shared<Walker>(compiled));
    return recent_.back();
  }
  std::rotate(it, it + 1, recent_.end());
  if (recent_.back()->full()) recent_.back() = recent_.back()->successor();
  return recent_.back();
}

}  // namespace baton::grammar
