// Argument binding, text by code points, and tests (x is name).
#include "text/jinja/builtins.h"

#include <utf8proc.h>

#include <algorithm>

#include "base/json.h"
#include "text/unicode.h"

namespace baton::text::jinja {

Result<Bound> Bound::bind(std::string_view callee, const Args& args, std::initializer_list<std::string_view> parameters,
                          size_t required) {
  Bound b;
  b.callee_ = callee;
  b.values_.resize(parameters.size());
  if (args.positional.size() > parameters.size()) {
    return fail(Code::kInvalidArgument, callee, "() takes at most ", parameters.size(), " arguments, ", args.positional.size(),
                " given");
  }
  for (size_t i = 0; i < args.positional.size(); ++i) b.values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.keywords) {
    auto it = std::ranges::find(parameters, name);
    if (it == parameters.end()) return fail(Code::kInvalidArgument, callee, "() has no parameter ", json_string(name));
    b.values_[static_cast<size_t>(it - parameters.begin())] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!b.has(i)) return fail(Code::kInvalidArgument, callee, "() needs the argument ", *(parameters.begin() + i));
  }
  return b;
}

Result<int64_t> Bound::integer(size_t i, int64_t otherwise) const {
  if (!has(i)) return otherwise;
  if (auto* n = values_[i]->as<int64_t>()) return *n;
  if (auto* b = values_[i]->as<bool>()) return *b ? 1 : 0;
  return fail(Code::kInvalidArgument, callee_, "() needs an integer, found ", values_[i]->type_name());
}

Result<std::string> Bound::text(size_t i, std::string_view otherwise) const {
  if (!has(i)) return std::string(otherwise);
  if (auto* s = values_[i]->string()) return *s;
  BATON_OK(need_defined(*values_[i]));
  return fail(Code::kInvalidArgument, callee_, "() needs a str, found ", values_[i]->type_name());
}

std::string_view strip(std::string_view s, const std::string* characters, bool left, bool right) {
  auto strippable = [&](size_t i) {
    CodePoint c = code_point_at(s, i);
    if (characters != nullptr) return characters->find(s.substr(i, c.length)) != std::string::npos;
    return code_class(c.value) == kSpace || (c.value >= 0x1c && c.value <= 0x1f);  // Python's str.isspace
  };
  while (left && !s.empty() && strippable(0)) s.remove_prefix(code_point_at(s, 0).length);
  while (right && !s.empty()) {
    size_t i = code_point_before(s, s.size());
    if (!strippable(i)) break;
    s = s.substr(0, i);
  }
  return s;
}

std::string change_case(std::string_view s, bool upper) {
  std::string out;
  out.reserve(s.size());
  for (size_t i = 0; i < s.size();) {
    CodePoint c = code_point_at(s, i);
    if (upper && c.value == 0xdf) {
      out += "SS";
    } else if (upper) {
      append_utf8(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c.value))));
    } else {
      append_utf8(out, lower_case(c.value));
    }
    i += c.length;
  }
  return out;
}

std::string capitalize(std::string_view s) {
  if (s.empty()) return "";
  size_t first = code_point_at(s, 0).length;
  return change_case(s.substr(0, first), true) + change_case(s.substr(first), false);
}

Result<std::string> replace(Budget& budget, std::string_view s, std::string_view from, std::string_view to, int64_t count) {
  std::string out;
  size_t start = 0;
  BATON_OK(budget.work(s.size()));
  for (size_t at = 0; count != 0; --count) {  // an empty `from` is found before every character and at the end
    size_t found = from.empty() ? at : s.find(from, at);
    if (found == std::string_view::npos || found > s.size()) break;
    BATON_OK(budget.work(to.size() + 1));
    if (out.size() > kRenderBytesMax) return fail(Code::kResourceExhausted, "a text is larger than ", kRenderBytesMax, " bytes");
    out += s.substr(start, found - start);
    out += to;
    start = found + from.size();
    at = from.empty() ? found + std::max<size_t>(1, code_point_at(s, found).length) : start;
  }
  return out += s.substr(std::min(start, s.size()));
}

namespace {

using Test = Result<bool> (*)(Budget&, std::string_view name, const Value& v, const Args&);

Result<bool> kind_test(Budget&, std::string_view name, const Value& v, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  bool integer = v.as<int64_t>() != nullptr || v.as<BigInt>() != nullptr;
  if (name == "defined") return !v.is_undefined();
  if (name == "undefined") return v.is_undefined();
  if (name == "none") return v.is_none();
  if (name == "boolean") return v.is_bool();
  if (name == "true") return v.is_bool() && *v.as<bool>();
  if (name == "false") return v.is_bool() && !*v.as<bool>();
  if (name == "number") return v.is_number();
  if (name == "integer") return integer;
  if (name == "float") return v.as<double>() != nullptr;
  if (name == "string") return v.string() != nullptr;
  if (name == "mapping") return v.dict() != nullptr;
  if (name == "callable") return v.as<std::shared_ptr<const Callable>>() != nullptr;
  // sequence and iterable; undefined is an empty sequence
  return v.is_undefined() || v.string() != nullptr || v.list() != nullptr || v.dict() != nullptr;
}

Result<bool> compare_test(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"other"}, 1));
  BATON_OK(budget.work(std::min(v.weight(), b[0].weight())));
  if (name == "==" || name == "eq" || name == "equalto" || name == "sameas") return equal(v, b[0]);
  if (name == "!=" || name == "ne") return !equal(v, b[0]);
  BATON_TRY(int order, compare(v, b[0]));
  if (name == "<" || name == "lt" || name == "lessthan") return order < 0;
  if (name == "<=" || name == "le") return order <= 0;
  if (name == ">" || name == "gt" || name == "greaterthan") return order > 0;
  return order >= 0;
}

Result<bool> in_test(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"seq"}, 1));
  return contains(budget, b[0], v);
}

Result<bool> divisible_test(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"num"}, name == "divisibleby" ? 1 : 0));
  BATON_TRY(Value rest, binary(budget, "%", v, b.has(0) ? b[0] : Value::integer(2)));
  return equal(rest, Value::integer(name == "odd" ? 1 : 0));
}

Result<bool> case_test(Budget&, std::string_view name, const Value& v, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  std::string s = to_text(v);
  bool cased = change_case(s, true) != change_case(s, false);
  return cased && change_case(s, name == "upper") == s;
}

struct Row {
  std::string_view name;
  Test test;
};
constexpr Row kTests[] = {{"defined", kind_test},
                          {"undefined", kind_test},
                          {"none", kind_test},
                          {"boolean", kind_test},
                          {"true", kind_test},
                          {"false", kind_test},
                          {"number", kind_test},
                          {"integer", kind_test},
                          {"float", kind_test},
                          {"string", kind_test},
                          {"mapping", kind_test},
                          {"sequence", kind_test},
                          {"iterable", kind_test},
                          {"callable", kind_test},
                          {"==", compare_test},
                          {"eq", compare_test},
                          {"equalto", compare_test},
                          {"sameas", compare_test},
                          {"!=", compare_test},
                          {"ne", compare_test},
                          {"<", compare_test},
                          {"lt", compare_test},
                          {"lessthan", compare_test},
                          {"<=", compare_test},
                          {"le", compare_test},
                          {">", compare_test},
                          {"gt", compare_test},
                          {"greaterthan", compare_test},
                          {">=", compare_test},
                          {"ge", compare_test},
                          {"in", in_test},
                          {"divisibleby", divisible_test},
                          {"even", divisible_test},
                          {"odd", divisible_test},
                          {"lower", case_test},
                          {"upper", case_test}};

}  // namespace

Result<bool> call_test(Budget& budget, std::string_view name, const Value& subject, const Args& args) {
  auto it = std::ranges::find(kTests, name, &Row::name);
  if (it == std::end(kTests))
    return fail(Code::kUnimplemented, "test ", json_string(name), " is not supported in chat templates");
  return it->test(budget, name, subject, args);
}

}  // namespace baton::text::jinja
