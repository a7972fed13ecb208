#pragma once
// JSON numbers between two bounds as an expression over their digits: exact, no floating point. Written without an exponent where
// there is a bound.
#include <optional>
#include <string>

#include "base/result.h"
#include "grammar/rules.h"

namespace baton::grammar {

struct Decimal {
  bool negative = false;
  std::string whole = "0", fraction{};  // no superfluous zeros
  bool zero() const { return whole == "0" && fraction.empty(); }
};
Result<Decimal> decimal_of(std::string_view json_number);

struct Bound {
  Decimal at;
  bool exclusive = false;
};
struct NumberRange {
  std::optional<Bound> low, high;
  bool integer = false;
};
ExprId number_between(Rules& rules, const NumberRange& range);

}  // namespace baton::grammar
