// Operators and access: what + - * / [] . in do to values, as Python.
#include <algorithm>
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/unicode.h"

namespace baton::text::jinja {
namespace {

std::unexpected<Error> bad_operands(std::string_view op, const Value& a, const Value& b) {
  return fail(Code::kInvalidArgument, "unsupported operand types for ", op, ": ", a.type_name(), " and ", b.type_name());
}

std::optional<int64_t> integer_of(const Value& v) {
  if (auto* b = v.as<bool>()) return *b ? 1 : 0;
  if (auto* i = v.as<int64_t>()) return *i;
  return std::nullopt;
}

std::optional<double> real_of(const Value& v) {
  if (auto i = integer_of(v)) return static_cast<double>(*i);
  if (auto* d = v.as<double>()) return *d;
  return std::nullopt;
}

Result<Value> integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) return Value::real(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  int64_t out = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(out, base, &out))
      return fail(Code::kOutOfRange, "integer result is too large");
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return fail(Code::kOutOfRange, "integer result is too large");
  }
  return Value::integer(out);
}

// Python rounds the quotient down and gives the remainder the divisor's sign.
Result<Value> integers(std::string_view op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &out);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &out);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &out);
  } else if (op == "**") {
    return integer_power(a, b);
  } else {
    if (b == 0) return fail(Code::kInvalidArgument, "division by zero");
    if (op == "/") return Value::real(static_cast<double>(a) / static_cast<double>(b));
    overflow = a == INT64_MIN && b == -1;
    if (!overflow) {
      int64_t quotient = a / b, remainder = a % b;
      if (remainder != 0 && (remainder < 0) != (b < 0)) --quotient, remainder += b;
      out = op == "//" ? quotient : remainder;
    }
  }
  if (overflow) return fail(Code::kOutOfRange, "integer result is too large");
  return Value::integer(out);
}

Result<Value> reals(std::string_view op, double a, double b) {
  if (op == "+") return Value::real(a + b);
  if (op == "-") return Value::real(a - b);
  if (op == "*") return Value::real(a * b);
  if (op == "**") return Value::real(std::pow(a, b));
  if (b == 0) return fail(Code::kInvalidArgument, "division by zero");
  if (op == "/") return Value::real(a / b);
  if (op == "//") return Value::real(std::floor(a / b));
  double r = std::fmod(a, b);
  return Value::real(r != 0 && (r < 0) != (b < 0) ? r + b : r);
}

// "ab" * 3, [x] * 3
Result<Value> repeated(Budget& budget, const Value& v, int64_t times) {
  auto n = static_cast<size_t>(std::max<int64_t>(times, 0));
  size_t size = v.weight();
  if (n > 0 && size > kRenderBytesMax / n)
    return fail(Code::kResourceExhausted, "a repeated value is larger than ", kRenderBytesMax, " bytes");
  if (const std::string* s = v.string()) {
    std::string out;
    for (size_t i = 0; i < n; ++i) out += *s;
    return budget.text(std::move(out));
  }
  std::vector<Value> items;
  for (size_t i = 0; i < n; ++i) items.insert(items.end(), v.list()->items.begin(), v.list()->items.end());
  return budget.list(std::move(items), v.list()->tuple);
}

std::string attribute_error(const Value& v, std::string_view name) {
  return cat("'", v.type_name(), " object' has no attribute '", name, "'");
}

Value bound_method(const Value& self, std::string_view name) {
  return Value(Value::Data(std::make_shared<const Callable>(
      Callable{.kind = Callable::Kind::kMethod, .name = std::string(name), .self = std::make_shared<const Value>(self)})));
}

Result<Value> loop_attribute(const Loop& loop, std::string_view name) {
  const auto& items = loop.items->items;
  auto i = static_cast<int64_t>(loop.index0), n = static_cast<int64_t>(items.size());
  if (name == "index") return Value::integer(i + 1);
  if (name == "index0") return Value::integer(i);
  if (name == "revindex") return Value::integer(n - i);
  if (name == "revindex0") return Value::integer(n - i - 1);
  if (name == "first") return Value::boolean(i == 0);
  if (name == "last") return Value::boolean(i + 1 == n);
  if (name == "length") return Value::integer(n);
  if (name == "depth") return Value::integer(1);  // loops are not recursive
  if (name == "depth0") return Value::integer(0);
  if (name == "previtem") return i > 0 ? items[loop.index0 - 1] : Value::undefined("there is no previous item");
  if (name == "nextitem") return i + 1 < n ? items[loop.index0 + 1] : Value::undefined("there is no next item");
  return Value::undefined(cat("'loop' has no attribute '", name, "'"));
}

// An index as Python reads it: negative from the end.
std::optional<size_t> position(const Value& key, size_t size) {
  std::optional<int64_t> i = integer_of(key);
  auto n = static_cast<int64_t>(size);
  if (!i || *i >= n || *i < -n) return std::nullopt;
  return static_cast<size_t>(*i < 0 ? *i + n : *i);
}

// Byte offsets of the code points of s, and its end.
std::vector<size_t> offsets(std::string_view s) {
  std::vector<size_t> out;
  out.reserve(s.size() + 1);
  for (size_t i = 0; i < s.size(); i += code_point_at(s, i).length) out.push_back(i);
  out.push_back(s.size());
  return out;
}

}  // namespace

Result<> need_defined(const Value& v) {
  if (auto* u = v.as<Undefined>()) return fail(Code::kInvalidArgument, u->name.empty() ? "a value is undefined" : u->name);
  return {};
}

size_t code_points(std::string_view s) {
  return static_cast<size_t>(std::ranges::count_if(s, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

Result<Value> binary(Budget& budget, std::string_view op, const Value& a, const Value& b) {
  BATON_OK(need_defined(a));
  BATON_OK(need_defined(b));
  if (auto i = integer_of(a), j = integer_of(b); i && j) return integers(op, *i, *j);
  if (auto x = real_of(a), y = real_of(b); x && y) return reals(op, *x, *y);
  if (op == "+" && a.string() != nullptr && b.string() != nullptr) {
    if (a.string()->size() + b.string()->size() > kRenderBytesMax) {
      return fail(Code::kResourceExhausted, "a text is larger than ", kRenderBytesMax, " bytes");
    }
    return budget.text(*a.string() + *b.string());
  }
  if (op == "+" && a.list() != nullptr && b.list() != nullptr && a.list()->tuple == b.list()->tuple) {
    std::vector<Value> items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    return budget.list(std::move(items), a.list()->tuple);
  }
  if (op == "*") {
    bool left = a.string() != nullptr || a.list() != nullptr, right = b.string() != nullptr || b.list() != nullptr;
    if (auto n = integer_of(b); left && n) return repeated(budget, a, *n);
    if (auto n = integer_of(a); right && n) return repeated(budget, b, *n);
  }
  return bad_operands(op, a, b);
}

Result<Value> get_attribute(const Value& v, std::string_view name) {
  BATON_OK(need_defined(v));
  if (has_method(v, name)) return bound_method(v, name);
  if (auto* d = v.dict()) {
    if (const Value* found = d->find(name)) return *found;
  } else if (auto* ns = v.as<std::shared_ptr<Namespace>>()) {
    for (const auto& [key, value] : (*ns)->attributes) {
      if (key == name) return value;
    }
  } else if (auto* loop = v.as<std::shared_ptr<Loop>>()) {
    return loop_attribute(**loop, name);
  }
  return Value::undefined(attribute_error(v, name));
}

Result<Value> get_item(Budget& budget, const Value& v, const Value& key) {
  BATON_OK(need_defined(v));
  if (auto* d = v.dict()) {
    if (const Value* found = d->find(key)) return *found;
  } else if (auto* l = v.list()) {
    if (auto at = position(key, l->items.size())) return l->items[*at];
  } else if (auto* s = v.string(); s != nullptr && integer_of(key)) {
    BATON_OK(budget.work(s->size()));
    std::vector<size_t> at = offsets(*s);
    if (auto i = position(key, at.size() - 1)) return Value::string(s->substr(at[*i], at[*i + 1] - at[*i]));
  }
  if (auto* name = key.string()) return get_attribute(v, *name);
  return Value::undefined(attribute_error(v, to_text(key)));
}

Result<Value> get_slice(Budget& budget, const Value& v, const Value& start, const Value& stop, const Value& step) {
  BATON_OK(need_defined(v));
  if (v.string() == nullptr && v.list() == nullptr) return fail(Code::kInvalidArgument, "a ", v.type_name(), " cannot be sliced");
  std::vector<size_t> at;
  if (v.string() != nullptr) at = offsets(*v.string());
  auto size = static_cast<int64_t>(v.list() != nullptr ? v.list()->items.size() : at.size() - 1);
  BATON_OK(budget.work(static_cast<size_t>(size)));
  auto bound = [&](const Value& part, int64_t otherwise) -> Result<int64_t> {
    if (part.is_none()) return otherwise;
    if (auto i = integer_of(part)) return *i;
    BATON_OK(need_defined(part));
    return fail(Code::kInvalidArgument, "slice indices must be integers or none, not ", part.type_name());
  };
  BATON_TRY(int64_t by, bound(step, 1));
  if (by == 0) return fail(Code::kInvalidArgument, "slice step cannot be zero");
  BATON_TRY(int64_t from, bound(start, by > 0 ? 0 : size));
  BATON_TRY(int64_t to, bound(stop, by > 0 ? size : INT64_MIN));
  int64_t lowest = by > 0 ? 0 : -1, highest = by > 0 ? size : size - 1;
  if (from < 0) from += size;
  if (to < 0 && to != INT64_MIN) to += size;
  from = std::clamp(from, lowest, highest);
  to = std::clamp(to, lowest, highest);
  std::string text;
  std::vector<Value> items;
  while (by > 0 ? from < to : from > to) {
    auto i = static_cast<size_t>(from);
    if (v.list() != nullptr) {
      items.push_back(v.list()->items[i]);
    } else {
      text.append(*v.string(), at[i], at[i + 1] - at[i]);
    }
    if (__builtin_add_overflow(from, by, &from)) break;
  }
  if (v.list() != nullptr) return budget.list(std::move(items), v.list()->tuple);
  return budget.text(std::move(text));
}

Result<std::vector<Value>> iterate(Budget& budget, const Value& v) {
  std::vector<Value> out;
  if (v.is_undefined()) return out;
  if (auto* l = v.list()) {
    out = l->items;
  } else if (auto* d = v.dict()) {
    for (const auto& [key, value] : d->items) out.push_back(key);
  } else if (auto* s = v.string()) {
    BATON_OK(budget.work(s->size() * sizeof(Value)));
    for (size_t i = 0; i < s->size();) {
      size_t n = code_point_at(*s, i).length;
      out.push_back(Value::string(s->substr(i, n)));
      i += n;
    }
  } else {
    return fail(Code::kInvalidArgument, "'", v.type_name(), "' object is not iterable");
  }
  BATON_OK(budget.work(out.size() * sizeof(Value)));
  return out;
}

Result<bool> contains(Budget& budget, const Value& container, const Value& v) {
  if (container.is_undefined()) return false;
  BATON_OK(budget.work(container.dict() != nullptr ? 16 : container.weight()));
  if (auto* s = container.string()) {
    BATON_OK(need_defined(v));
    if (v.string() == nullptr)
      return fail(Code::kInvalidArgument, "'in <string>' requires string as left operand, not ", v.type_name());
    return s->find(*v.string()) != std::string::npos;
  }
  if (auto* l = container.list()) return std::ranges::any_of(l->items, [&](const Value& item) { return equal(item, v); });
  if (auto* d = container.dict()) return d->find(v) != nullptr;
  return fail(Code::kInvalidArgument, "argument of type '", container.type_name(), "' is not iterable");
}

}  // namespace baton::text::jinja
