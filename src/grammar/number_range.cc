#include "grammar/number_range.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <tuple>

namespace baton::grammar {
namespace {

constexpr size_t kBoundDigitsMax = 64;  // of a bound; more is no number anybody means
constexpr size_t kMoreDigits = 9;       // decimals beyond those of the bounds

Bound zero(bool exclusive) { return {.at = {}, .exclusive = exclusive}; }

// Numbers without a sign in [low, high], high perhaps open. Digits are written from the left; while they equal a bound's the next
// one is tied to it.
class Magnitudes {
 public:
  Magnitudes(Rules& rules, Bound low, std::optional<Bound> high, bool integer)
      : rules_(rules), low_(std::move(low)), high_(std::move(high)), integer_(integer) {
    decimals_ = low_.at.fraction.size();
    if (high_) decimals_ = std::max(decimals_, high_->at.fraction.size());
    decimals_ += kMoreDigits;
  }

  ExprId write() {
    std::vector<ExprId> lengths;
    const size_t shortest = low_.at.whole.size(), longest = high_ ? high_->at.whole.size() : shortest;
    for (size_t n = shortest; n <= longest; ++n) {
      length_ = n;
      known_.clear();
      lengths.push_back(whole(0, n == shortest, high_ && n == longest));
    }
    if (!high_) {  // one more digit or any more
      const auto more = static_cast<int32_t>(shortest);
      lengths.push_back(rules_.seq({digits('1', '9'), rules_.repeat(digits('0', '9'), more, kNoEnd), free_fraction(0)}));
    }
    return rules_.alt(std::move(lengths));
  }

 private:
  ExprId digits(char first, char last) { return rules_.chars({{static_cast<uint32_t>(first), static_cast<uint32_t>(last)}}); }
  static char digit_of(const std::string& s, size_t i) { return i < s.size() ? s[i] : '0'; }

  ExprId free_fraction(size_t written) {
    if (integer_) return rules_.bytes("");
    const auto left = static_cast<int32_t>(decimals_ - written);
    if (written > 0) return rules_.repeat(digits('0', '9'), 0, left);
    return rules_.optional(rules_.seq({rules_.bytes("."), rules_.repeat(digits('0', '9'), 1, left)}));
  }

  // One digit between what the ties let through, and what `next` writes behind it.
  template <class Next>
  ExprId tied(char least, char most, bool tie_low, bool tie_high, Next next) {
    std::vector<ExprId> ways;
    const auto way = [&](char first, char last, bool low, bool high) {
      if (first <= last) ways.push_back(rules_.seq({digits(first, last), next(low, high)}));
    };
    if (tie_low && tie_high && least == most) {
      way(least, most, true, true);
      return rules_.alt(std::move(ways));
    }
    if (tie_low) way(least, least, true, false);
    if (tie_high && most >= least) way(most, most, false, true);
    way(static_cast<char>(least + tie_low), static_cast<char>(most - tie_high), false, false);
    if (least > most) ways.clear();
    return rules_.alt(std::move(ways));
  }

  ExprId whole(size_t i, bool low, bool high) {
    if (i == length_) return fraction(0, low, high);
    if (!low && !high && i > 0)
      return rules_.seq({rules_.repeat(digits('0', '9'), static_cast<int32_t>(length_ - i), static_cast<int32_t>(length_ - i)),
                         free_fraction(0)});
    const char floor = i == 0 && length_ > 1 ? '1' : '0';
    const char least = low ? std::max(floor, low_.at.whole[i]) : floor;
    return memo(0, i, low, high, [&] {
      return tied(least, high ? high_->at.whole[i] : '9', low, high, [&](bool l, bool h) { return whole(i + 1, l, h); });
    });
  }

  // May the number end behind i decimals? Tied to a bound, what is left of the bound decides.
  bool may_end(size_t i, bool low, bool high) const {
    const auto rest = [i](const Bound& b) { return b.at.fraction.size() > i; };
    if (low && (rest(low_) || low_.exclusive)) return false;
    return !high || rest(*high_) || !high_->exclusive;
  }

  ExprId fraction(size_t i, bool low, bool high) {
    if (!low && !high) return free_fraction(i);
    return memo(1, i, low, high, [&] {
      std::vector<ExprId> ways;
      if (may_end(i, low, high)) ways.push_back(rules_.bytes(""));
      if (!integer_ && i < decimals_) {
        const ExprId more = tied(low ? digit_of(low_.at.fraction, i) : '0', high ? digit_of(high_->at.fraction, i) : '9', low,
                                 high, [&](bool l, bool h) { return fraction(i + 1, l, h); });
        ways.push_back(i == 0 ? rules_.seq({rules_.bytes("."), more}) : more);
      }
      return rules_.alt(std::move(ways));
    });
  }

  template <class Make>
  ExprId memo(int part, size_t i, bool low, bool high, Make make) {
    const auto key = std::tuple(part, i, low, high);
    if (const auto it = known_.find(key); it != known_.end()) return it->second;
    const ExprId made = make();
    return known_[key] = made;
  }

  Rules& rules_;
  const Bound low_;
  const std::optional<Bound> high_;
  const bool integer_;
  size_t decimals_ = 0, length_ = 0;
  std::map<std::tuple<int, size_t, bool, bool>, ExprId> known_;
};

// Is the magnitude of a under that of b?
bool smaller(const Decimal& a, const Decimal& b) {
  if (a.whole.size() != b.whole.size()) return a.whole.size() < b.whole.size();
  return std::pair(a.whole, a.fraction) < std::pair(b.whole, b.fraction);
}

}  // namespace

Result<Decimal> decimal_of(std::string_view text) {
  Decimal out;
  const auto too_long = [&] { return fail(Code::kInvalidArgument, "the number ", text, " is too long for a bound"); };
  std::string_view rest = text;
  if (rest.starts_with('-')) out.negative = true, rest.remove_prefix(1);
  const size_t e = rest.find_first_of("eE");
  int exponent = 0;
  if (e != std::string_view::npos) {
    std::string_view digits = rest.substr(e + 1);
    if (digits.starts_with('+')) digits.remove_prefix(1);
    const auto [end, bad] = std::from_chars(digits.data(), digits.data() + digits.size(), exponent);
    if (bad != std::errc{} || std::abs(exponent) > static_cast<int>(kBoundDigitsMax)) return too_long();
    rest = rest.substr(0, e);
  }
  const size_t point = std::min(rest.find('.'), rest.size());
  std::string digits(rest.substr(0, point));
  auto whole = static_cast<std::ptrdiff_t>(digits.size()) + exponent;
  if (point < rest.size()) digits += rest.substr(point + 1);
  if (digits.size() > kBoundDigitsMax) return too_long();
  if (whole < 0) digits.insert(0, static_cast<size_t>(-whole), '0'), whole = 0;
  if (digits.size() < static_cast<size_t>(whole)) digits.append(static_cast<size_t>(whole) - digits.size(), '0');
  out.whole = digits.substr(0, static_cast<size_t>(whole));
  out.fraction = digits.substr(static_cast<size_t>(whole));
  out.whole.erase(0, std::min(out.whole.find_first_not_of('0'), out.whole.size()));
  if (out.whole.empty()) out.whole = "0";
  while (out.fraction.ends_with('0')) out.fraction.pop_back();
  if (out.zero()) out.negative = false;
  return out;
}

ExprId number_between(Rules& rules, const NumberRange& range) {
  std::vector<ExprId> ways;
  const auto& [low, high, integer] = range;
  if (!high || !high->at.negative) {  // zero and above
    const bool from_low = low && !low->at.negative;
    const Bound least = from_low ? *low : zero(false);
    if (!high || !smaller(high->at, least.at)) ways.push_back(Magnitudes(rules, least, high, integer).write());
  }
  if (!low || low->at.negative) {  // below zero: the bounds change sides
    const bool to_high = high && high->at.negative;
    const Bound least = to_high ? *high : zero(true);
    std::optional<Bound> most = low;
    if (!most || !smaller(most->at, least.at))
      ways.push_back(rules.seq({rules.bytes("-"), Magnitudes(rules, least, most, integer).write()}));
  }
  return rules.alt(std::move(ways));
}

}  // namespace baton::grammar
