// Methods of str, dict and list, and the global functions. Source: Python's documentation; facts sheet "engine" 4.6.
#include <algorithm>
#include <ctime>

#include "base/json.h"
#include "text/jinja/builtins.h"
#include "text/unicode.h"

namespace baton::text::jinja {
namespace {

using Method = Result<Value> (*)(Budget&, const Value& self, std::string_view name, const Args&);

Result<Value> strip_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"chars"}));
  bool all = !b.has(0) || b[0].is_none();
  BATON_TRY(std::string characters, all ? Result<std::string>("") : b.text(0, ""));
  return budget.text(std::string(strip(*self.string(), all ? nullptr : &characters, name != "rstrip", name != "lstrip")));
}

// Words between whitespace; after count_max cuts the rest stays whole.
void split_words(std::string_view s, int64_t count_max, std::vector<Value>& out) {
  s = strip(s, nullptr, true, false);
  while (!s.empty()) {
    size_t end = 0;
    while (end < s.size() && code_class(code_point_at(s, end).value) != kSpace) end += code_point_at(s, end).length;
    if (count_max >= 0 && static_cast<int64_t>(out.size()) >= count_max) {
      out.push_back(Value::string(std::string(s)));
      return;
    }
    out.push_back(Value::string(std::string(s.substr(0, end))));
    s = strip(s.substr(end), nullptr, true, false);
  }
}

Result<Value> split_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"sep", "maxsplit"}));
  BATON_TRY(int64_t count_max, b.integer(1, -1));
  std::string_view s = *self.string();
  BATON_OK(budget.work(s.size()));
  std::vector<Value> out;
  if (!b.has(0) || b[0].is_none()) {
    if (name == "rsplit" && count_max >= 0)
      return fail(Code::kUnimplemented, "rsplit() by whitespace with maxsplit is not supported");
    split_words(s, count_max, out);
    return budget.list(std::move(out));
  }
  BATON_TRY(std::string separator, b.text(0, ""));
  if (separator.empty()) return fail(Code::kInvalidArgument, "empty separator");
  bool from_right = name == "rsplit";
  for (size_t at; count_max < 0 || static_cast<int64_t>(out.size()) < count_max;) {
    at = from_right ? s.rfind(separator) : s.find(separator);
    if (at == std::string_view::npos) break;
    out.push_back(Value::string(std::string(from_right ? s.substr(at + separator.size()) : s.substr(0, at))));
    s = from_right ? s.substr(0, at) : s.substr(at + separator.size());
  }
  out.push_back(Value::string(std::string(s)));
  if (from_right) std::ranges::reverse(out);
  return budget.list(std::move(out));
}

Result<Value> splitlines_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"keepends"}));
  std::string_view s = *self.string();
  std::vector<Value> out;
  while (!s.empty()) {
    size_t end = s.find_first_of("\n\r");
    size_t next = end == std::string_view::npos ? s.size() : s.substr(end).starts_with("\r\n") ? end + 2 : end + 1;
    out.push_back(Value::string(std::string(s.substr(0, b.flag(0, false) ? next : end))));
    s.remove_prefix(next);
  }
  BATON_OK(budget.work(self.weight()));
  return budget.list(std::move(out));
}

Result<Value> affix_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"affix"}, 1));
  std::vector<Value> tries{b[0]};
  if (auto* tuple = b[0].list(); tuple != nullptr && tuple->tuple) tries = tuple->items;
  for (const Value& t : tries) {
    BATON_OK(need_defined(t));
    if (t.string() == nullptr) return fail(Code::kInvalidArgument, name, "() takes a str or a tuple of str, not ", t.type_name());
    BATON_OK(budget.work(t.string()->size()));
    if (name == "startswith" ? self.string()->starts_with(*t.string()) : self.string()->ends_with(*t.string()))
      return Value::boolean(true);
  }
  return Value::boolean(false);
}

Result<Value> remove_affix_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"affix"}, 1));
  BATON_TRY(std::string affix, b.text(0, ""));
  std::string_view s = *self.string();
  if (name == "removeprefix" && s.starts_with(affix)) s.remove_prefix(affix.size());
  if (name == "removesuffix" && s.ends_with(affix)) s.remove_suffix(affix.size());
  return budget.text(std::string(s));
}

Result<Value> replace_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"old", "new", "count"}, 2));
  BATON_TRY(std::string from, b.text(0, ""));
  BATON_TRY(std::string to, b.text(1, ""));
  BATON_TRY(int64_t count, b.integer(2, -1));
  BATON_TRY(std::string out, replace(budget, *self.string(), from, to, count));
  return budget.text(std::move(out));
}

std::string title(std::string_view s) {
  std::string out;
  for (bool after_letter = false; !s.empty();) {
    CodePoint c = code_point_at(s, 0);
    out += change_case(s.substr(0, c.length), !after_letter);
    after_letter = code_class(c.value) == kLetter;
    s.remove_prefix(c.length);
  }
  return out;
}

Result<Value> case_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  const std::string& s = *self.string();
  if (name == "title") return budget.text(title(s));
  if (name == "capitalize") return budget.text(capitalize(s));
  return budget.text(change_case(s, name == "upper"));
}

Result<Value> find_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"sub"}, 1));
  BATON_TRY(std::string sub, b.text(0, ""));
  const std::string& s = *self.string();
  BATON_OK(budget.work(s.size()));
  if (name == "count") {
    int64_t n = sub.empty() ? static_cast<int64_t>(code_points(s)) + 1 : 0;
    for (size_t at = 0; !sub.empty() && (at = s.find(sub, at)) != std::string::npos; at += sub.size()) ++n;
    return Value::integer(n);
  }
  size_t at = name == "rfind" ? s.rfind(sub) : s.find(sub);
  if (at == std::string::npos && name == "index") return fail(Code::kInvalidArgument, "substring not found");
  return Value::integer(at == std::string::npos ? -1 : static_cast<int64_t>(code_points(std::string_view(s).substr(0, at))));
}

Result<Value> join_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"iterable"}, 1));
  BATON_TRY(std::vector<Value> items, iterate(budget, b[0]));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].string() == nullptr) return fail(Code::kInvalidArgument, "join(): expected str, found ", items[i].type_name());
    BATON_OK(budget.work(self.weight() + items[i].weight()));
    if (i > 0) out += *self.string();
    out += *items[i].string();
  }
  return budget.text(std::move(out));
}

Result<Value> kind_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  const std::string& s = *self.string();
  BATON_OK(budget.work(s.size()));
  bool all = !s.empty(), cased = false;
  for (size_t i = 0; i < s.size() && all;) {
    CodePoint c = code_point_at(s, i);
    std::string_view one = std::string_view(s).substr(i, c.length);
    CodeClass k = code_class(c.value);
    bool upper = change_case(one, false) != one, lower = change_case(one, true) != one;
    cased = cased || upper || lower;
    if (name == "isdigit" || name == "isnumeric" || name == "isdecimal") all = k == kNumber;
    if (name == "isalpha") all = k == kLetter;
    if (name == "isalnum") all = k == kLetter || k == kNumber;
    if (name == "isspace") all = k == kSpace;
    if (name == "isupper") all = !lower;
    if (name == "islower") all = !upper;
    i += c.length;
  }
  return Value::boolean(all && (cased || (name != "isupper" && name != "islower")));
}

// "{} and {name}": fields without format specifications.
Result<Value> format_method(Budget& budget, const Value& self, std::string_view, const Args& args) {
  std::string_view s = *self.string();
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    if ((s[i] == '{' || s[i] == '}') && i + 1 < s.size() && s[i + 1] == s[i]) {
      out += s[i++];
    } else if (s[i] == '{') {
      size_t close = s.find('}', i);
      if (close == std::string_view::npos) return fail(Code::kInvalidArgument, "format(): '{' is not closed");
      std::string field(s.substr(i + 1, close - i - 1));
      if (field.empty()) field = std::to_string(next++);
      const Value* found = nullptr;
      for (const auto& [key, value] : args.keywords) found = key == field ? &value : found;
      for (size_t k = 0; k < args.positional.size(); ++k) found = field == std::to_string(k) ? &args.positional[k] : found;
      if (found == nullptr) return fail(Code::kInvalidArgument, "format(): no argument for {", field, "}");
      BATON_OK(budget.work(found->weight()));
      out += to_text(*found);
      i = close;
    } else {
      out += s[i];
    }
  }
  return budget.text(std::move(out));
}

Result<Value> dict_view_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict()->items) {
    if (name == "items") {
      BATON_TRY(Value pair, Value::list({key, value}, true));
      out.push_back(std::move(pair));
    } else {
      out.push_back(name == "keys" ? key : value);
    }
  }
  return budget.list(std::move(out));
}

Result<Value> get_method(Budget&, const Value& self, std::string_view name, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"key", "default"}, 1));
  const Value* found = self.dict()->find(b[0]);
  return found != nullptr ? *found : b.has(1) ? b[1] : Value::none();
}

Result<Value> copy_method(Budget&, const Value& self, std::string_view name, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  return self;  // values never change
}

Result<Value> list_search_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"value"}, 1));
  BATON_OK(budget.work(self.weight()));
  const auto& items = self.list()->items;
  if (name == "count") return Value::integer(std::ranges::count_if(items, [&](const Value& v) { return equal(v, b[0]); }));
  auto it = std::ranges::find_if(items, [&](const Value& v) { return equal(v, b[0]); });
  if (it == items.end()) return fail(Code::kInvalidArgument, "value is not in list");
  return Value::integer(it - items.begin());
}

Result<Value> forbidden_method(Budget&, const Value& self, std::string_view name, const Args&) {
  return fail(Code::kInvalidArgument, "access to attribute '", name, "' of '", self.type_name(),
              "' object is unsafe: templates cannot change values, use namespace()");
}

struct Row {
  std::string_view name;
  Method method;
};
constexpr Row kStringMethods[] = {{"strip", strip_method},
                                  {"lstrip", strip_method},
                                  {"rstrip", strip_method},
                                  {"split", split_method},
                                  {"rsplit", split_method},
                                  {"splitlines", splitlines_method},
                                  {"startswith", affix_method},
                                  {"endswith", affix_method},
                                  {"removeprefix", remove_affix_method},
                                  {"removesuffix", remove_affix_method},
                                  {"replace", replace_method},
                                  {"upper", case_method},
                                  {"lower", case_method},
                                  {"title", case_method},
                                  {"capitalize", case_method},
                                  {"find", find_method},
                                  {"rfind", find_method},
                                  {"index", find_method},
                                  {"count", find_method},
                                  {"join", join_method},
                                  {"isdigit", kind_method},
                                  {"isnumeric", kind_method},
                                  {"isdecimal", kind_method},
                                  {"isalpha", kind_method},
                                  {"isalnum", kind_method},
                                  {"isspace", kind_method},
                                  {"isupper", kind_method},
                                  {"islower", kind_method},
                                  {"format", format_method}};
constexpr Row kDictMethods[] = {
    {"items", dict_view_method}, {"keys", dict_view_method},   {"values", dict_view_method}, {"get", get_method},
    {"copy", copy_method},       {"pop", forbidden_method},    {"update", forbidden_method}, {"setdefault", forbidden_method},
    {"clear", forbidden_method}, {"popitem", forbidden_method}};
constexpr Row kListMethods[] = {{"index", list_search_method}, {"count", list_search_method}, {"copy", copy_method},
                                {"append", forbidden_method},  {"extend", forbidden_method},  {"insert", forbidden_method},
                                {"pop", forbidden_method},     {"remove", forbidden_method},  {"clear", forbidden_method},
                                {"reverse", forbidden_method}, {"sort", forbidden_method}};

Method method_of(const Value& self, std::string_view name) {
  std::span<const Row> rows;
  if (self.string() != nullptr) rows = kStringMethods;
  if (self.dict() != nullptr) rows = kDictMethods;
  if (self.list() != nullptr) rows = kListMethods;
  auto it = std::ranges::find(rows, name, &Row::name);
  return it == rows.end() ? nullptr : it->method;
}

Result<Value> range_function(Budget& budget, const Args& args) {
  BATON_TRY(Bound b, Bound::bind("range", args, {"start", "stop", "step"}, 1));
  BATON_TRY(int64_t first, b.integer(0, 0));
  BATON_TRY(int64_t stop, b.integer(1, 0));
  BATON_TRY(int64_t step, b.integer(2, 1));
  int64_t start = b.has(1) ? first : 0;
  if (!b.has(1)) stop = first;
  if (step == 0) return fail(Code::kInvalidArgument, "range() step cannot be zero");
  std::vector<Value> out;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(out.size()) >= kRangeMax)
      return fail(Code::kResourceExhausted, "range() is longer than ", kRangeMax);
    out.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return budget.list(std::move(out));
}

Result<Value> strftime_function(Budget& budget, const Args& args) {
  BATON_TRY(Bound b, Bound::bind("strftime_now", args, {"format"}, 1));
  BATON_TRY(std::string format, b.text(0, ""));
  if (format.size() > 1000) return fail(Code::kResourceExhausted, "strftime_now() format is too long");
  std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char out[8192];
  size_t n = std::strftime(out, sizeof out, format.c_str(), &local);
  return budget.text(replace_invalid_utf8(std::string_view(out, n)));
}

Result<Value> namespace_function(const Args& args) {
  auto ns = std::make_shared<Namespace>();
  for (const Value& v : args.positional) {
    if (v.dict() == nullptr) return fail(Code::kInvalidArgument, "namespace() takes a dict and keywords");
    for (const auto& [key, value] : v.dict()->items) ns->attributes.emplace_back(to_text(key), value);
  }
  for (const auto& [key, value] : args.keywords) ns->attributes.emplace_back(key, value);
  return Value(Value::Data(std::move(ns)));
}

Result<Value> dict_function(const Args& args) {
  std::vector<std::pair<Value, Value>> items;
  for (const Value& v : args.positional) {
    if (v.dict() == nullptr) return fail(Code::kInvalidArgument, "dict() takes a dict and keywords");
    items.insert(items.end(), v.dict()->items.begin(), v.dict()->items.end());
  }
  for (const auto& [key, value] : args.keywords) items.emplace_back(Value::string(key), value);
  return Value::dict(std::move(items));
}

}  // namespace

bool has_method(const Value& self, std::string_view name) { return method_of(self, name) != nullptr; }

Result<Value> call_method(Budget& budget, const Value& self, std::string_view name, const Args& args) {
  Method method = method_of(self, name);
  if (method == nullptr) return fail(Code::kInvalidArgument, "'", self.type_name(), "' object has no method '", name, "'");
  return method(budget, self, name, args);
}

bool has_function(std::string_view name) {
  return name == "raise_exception" || name == "strftime_now" || name == "namespace" || name == "range" || name == "dict";
}

Result<Value> call_function(Budget& budget, std::string_view name, const Args& args) {
  if (name == "range") return range_function(budget, args);
  if (name == "strftime_now") return strftime_function(budget, args);
  if (name == "namespace") return namespace_function(args);
  if (name == "dict") return dict_function(args);
  BATON_TRY(Bound b, Bound::bind(name, args, {"message"}, 1));
  return fail(Code::kInvalidArgument, to_text(b[0]));  // raise_exception: the template's own words
}

}  // namespace baton::text::jinja
