// Filters. Source: Jinja 3.1 documentation; `tojson` as Hugging Face redefines it.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <list>

#include "base/json.h"
#include "text/jinja/builtins.h"
#include "text/unicode.h"

namespace baton::text::jinja {
namespace {

using Filter = Result<Value> (*)(Budget&, std::string_view name, const Value& v, const Args&);

Result<Value> text_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  BATON_OK(budget.work(v.weight()));
  std::string s = to_text(v);
  if (name == "upper" || name == "lower") s = change_case(s, name == "upper");
  if (name == "capitalize") s = capitalize(s);
  return budget.text(std::move(s));
}

// Each word's first letter up, the rest down; words are parted by whitespace, hyphens and brackets.
Result<Value> title_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  BATON_OK(budget.work(v.weight()));
  std::string text = to_text(v), out;
  bool start = true;
  for (std::string_view s = text; !s.empty();) {
    CodePoint c = code_point_at(s, 0);
    out += change_case(s.substr(0, c.length), start);
    start = code_class(c.value) == kSpace || (c.value < 0x80 && std::string_view("-([{<").find(s[0]) != std::string_view::npos);
    s.remove_prefix(c.length);
  }
  return budget.text(std::move(out));
}

Result<Value> trim_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"chars"}));
  bool all = !b.has(0) || b[0].is_none();
  BATON_TRY(std::string characters, all ? Result<std::string>("") : b.text(0, ""));
  BATON_OK(budget.work(v.weight()));
  return budget.text(std::string(strip(to_text(v), all ? nullptr : &characters, true, true)));
}

Result<Value> replace_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"old", "new", "count"}, 2));
  BATON_TRY(int64_t count, b.integer(2, -1));
  BATON_TRY(std::string out, replace(budget, to_text(v), to_text(b[0]), to_text(b[1]), count));
  return budget.text(std::move(out));
}

Result<Value> default_filter(Budget&, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"default_value", "boolean"}));
  if (!v.is_undefined() && !(b.flag(1, false) && !v.truthy())) return v;
  return b.has(0) ? b[0] : Value::string("");
}

Result<Value> length_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  if (v.is_undefined()) return Value::integer(0);
  if (auto* s = v.string()) {
    BATON_OK(budget.work(s->size()));
    return Value::integer(static_cast<int64_t>(code_points(*s)));
  }
  if (auto* l = v.list()) return Value::integer(static_cast<int64_t>(l->items.size()));
  if (auto* d = v.dict()) return Value::integer(static_cast<int64_t>(d->items.size()));
  return fail(Code::kInvalidArgument, "object of type '", v.type_name(), "' has no len()");
}

Result<Value> tojson_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  // Jinja's own tojson takes indent first; Hugging Face's takes it by keyword, and so do all templates.
  JsonStyle style{.sort_keys = b.flag(3, false), .ascii = b.flag(0, false)};
  if (b.has(1) && !b[1].is_none()) {
    BATON_TRY(int64_t indent, b.integer(1, 0));
    if (indent < 0 || indent > kJsonIndentMax)
      return fail(Code::kResourceExhausted, "tojson: indent must be from 0 to ", kJsonIndentMax);
    style.indent = static_cast<int>(indent);
    style.item_separator = ",";
  }
  if (b.has(2) && !b[2].is_none()) {
    const List* l = b[2].list();
    if (l == nullptr || l->items.size() != 2) return fail(Code::kInvalidArgument, "tojson: separators must be two texts");
    style.item_separator = to_text(l->items[0]);
    style.key_separator = to_text(l->items[1]);
  }
  BATON_OK(budget.work(v.weight()));
  BATON_TRY(std::string out, to_json(v, style));
  return budget.text(std::move(out));
}

Result<Value> end_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  BATON_TRY(std::vector<Value> items, iterate(budget, v));
  if (items.empty()) return Value::undefined("No first or last item, sequence was empty.");
  return name == "first" ? items.front() : items.back();
}

Result<Value> list_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  BATON_TRY(std::vector<Value> items, iterate(budget, v));
  return budget.list(std::move(items));
}

Result<Value> reverse_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  BATON_TRY(std::vector<Value> items, iterate(budget, v));
  std::ranges::reverse(items);
  if (v.string() == nullptr) return budget.list(std::move(items));
  std::string out;
  for (const Value& c : items) out += *c.string();
  return budget.text(std::move(out));
}

Result<Value> items_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  if (v.is_undefined()) return budget.list({});
  if (v.dict() == nullptr) return fail(Code::kInvalidArgument, "Can only get item pairs from a mapping.");
  BATON_OK(Bound::bind(name, args, {}));
  return call_method(budget, v, "items", {});
}

// item.a.b or item.0, as map(attribute=) and sort(attribute=) spell it.
Result<Value> dotted(Budget& budget, const Value& item, std::string_view path) {
  Value v = item;
  while (!path.empty()) {
    size_t dot = path.find('.');
    std::string part(path.substr(0, dot));
    path.remove_prefix(dot == std::string_view::npos ? path.size() : dot + 1);
    int64_t index = 0;
    auto [end, code] = std::from_chars(part.data(), part.data() + part.size(), index);
    bool number = code == std::errc() && end == part.data() + part.size();
    BATON_TRY(v, get_item(budget, v, number ? Value::integer(index) : Value::string(std::move(part))));
  }
  return v;
}

Result<Value> join_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"d", "attribute"}));
  BATON_TRY(std::vector<Value> items, iterate(budget, v));
  std::string separator = b.has(0) ? to_text(b[0]) : "", out;
  for (size_t i = 0; i < items.size(); ++i) {
    Value item = items[i];
    if (b.has(1)) {
      BATON_TRY(item, dotted(budget, item, to_text(b[1])));
    }
    BATON_OK(budget.work(item.weight() + separator.size()));
    if (i > 0) out += separator;
    out += to_text(item);
  }
  return budget.text(std::move(out));
}

// map(attribute=x, default=y) and map('filter', arguments...)
Result<Value> map_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(std::vector<Value> items, iterate(budget, v));
  bool by_attribute = args.positional.empty();
  Args inner;
  if (by_attribute) {
    BATON_OK(Bound::bind(name, args, {"attribute", "default"}, 1));
  } else {
    inner = Args{{args.positional.begin() + 1, args.positional.end()}, args.keywords};
  }
  for (Value& item : items) {
    BATON_OK(budget.step());
    if (!by_attribute) {
      BATON_TRY(item, call_filter(budget, to_text(args.positional[0]), item, inner));
      continue;
    }
    BATON_TRY(Bound b, Bound::bind(name, args, {"attribute", "default"}, 1));
    BATON_TRY(item, dotted(budget, item, to_text(b[0])));
    if (item.is_undefined() && b.has(1)) item = b[1];
  }
  return budget.list(std::move(items));
}

// select, reject, selectattr, rejectattr
Result<Value> select_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  bool wanted = name.starts_with("select"), by_attribute = name.ends_with("attr");
  size_t skip = by_attribute ? 1 : 0;
  if (args.positional.size() < skip) return fail(Code::kInvalidArgument, name, "() needs an attribute");
  BATON_TRY(std::vector<Value> items, iterate(budget, v));
  Args inner;
  bool tested = args.positional.size() > skip;
  if (tested) inner.positional.assign(args.positional.begin() + static_cast<ptrdiff_t>(skip) + 1, args.positional.end());
  std::vector<Value> out;
  for (Value& item : items) {
    BATON_OK(budget.step());
    Value subject = item;
    if (by_attribute) {
      BATON_TRY(subject, dotted(budget, item, to_text(args.positional[0])));
    }
    bool yes = subject.truthy();
    if (tested) {
      BATON_TRY(yes, call_test(budget, to_text(args.positional[skip]), subject, inner));
    }
    if (yes == wanted) out.push_back(std::move(item));
  }
  return budget.list(std::move(out));
}

// What sorting and uniqueness compare: the attribute, in lower case unless case matters.
Result<Value> sort_key(Budget& budget, const Value& item, const Bound& b, size_t case_sensitive, size_t attribute) {
  Value key = item;
  if (b.has(attribute) && !b[attribute].is_none()) {
    BATON_TRY(key, dotted(budget, item, to_text(b[attribute])));
  }
  if (key.string() != nullptr && !b.flag(case_sensitive, false)) return budget.text(change_case(*key.string(), false));
  return key;
}

struct Keyed {
  Value key, item;
};

// A list's merge sort is stable and stays within bounds whatever the order says (NaN is equal to everything).
Result<std::vector<Value>> sorted(Budget& budget, std::list<Keyed> rows, bool reverse) {
  Error error{Code::kOk, ""};
  size_t spent = 0;
  rows.sort([&](const Keyed& a, const Keyed& b) {
    spent += std::min(a.key.weight(), b.key.weight());
    auto order = compare(reverse ? b.key : a.key, reverse ? a.key : b.key);
    if (!order) error = order.error();
    return order.value_or(0) < 0;
  });
  BATON_OK(budget.work(spent));
  if (error.code != Code::kOk) return std::unexpected(error);
  std::vector<Value> out;
  for (Keyed& row : rows) out.push_back(std::move(row.item));
  return out;
}

Result<Value> sort_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"reverse", "case_sensitive", "attribute"}));
  BATON_TRY(std::vector<Value> items, iterate(budget, v));
  std::list<Keyed> rows;
  for (Value& item : items) {
    BATON_TRY(Value key, sort_key(budget, item, b, 1, 2));
    rows.push_back({std::move(key), std::move(item)});
  }
  BATON_TRY(std::vector<Value> out, sorted(budget, std::move(rows), b.flag(0, false)));
  return budget.list(std::move(out));
}

Result<Value> dictsort_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"case_sensitive", "by", "reverse"}));
  BATON_TRY(std::string by, b.text(1, "key"));
  BATON_OK(need_defined(v));
  if (v.dict() == nullptr) return fail(Code::kInvalidArgument, "dictsort needs a mapping, not a ", v.type_name());
  std::list<Keyed> rows;
  for (const auto& [key, value] : v.dict()->items) {
    Value order = by == "value" ? value : key;
    if (order.string() != nullptr && !b.flag(0, false)) order = Value::string(change_case(*order.string(), false));
    BATON_TRY(Value pair, Value::list({key, value}, true));
    rows.push_back({std::move(order), std::move(pair)});
  }
  BATON_TRY(std::vector<Value> out, sorted(budget, std::move(rows), b.flag(2, false)));
  return budget.list(std::move(out));
}

Result<Value> unique_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"case_sensitive", "attribute"}));
  BATON_TRY(std::vector<Value> items, iterate(budget, v));
  std::vector<Value> keys, out;
  for (Value& item : items) {
    BATON_TRY(Value key, sort_key(budget, item, b, 0, 1));
    for (const Value& k : keys) BATON_OK(budget.work(std::min(k.weight(), key.weight())));
    if (std::ranges::any_of(keys, [&](const Value& k) { return equal(k, key); })) continue;
    keys.push_back(std::move(key));
    out.push_back(std::move(item));
  }
  return budget.list(std::move(out));
}

Result<Value> extreme_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"case_sensitive", "attribute"}));
  BATON_TRY(std::vector<Value> items, iterate(budget, v));
  if (items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  BATON_TRY(Value best_key, sort_key(budget, items[0], b, 0, 1));
  for (size_t i = 1; i < items.size(); ++i) {
    BATON_TRY(Value key, sort_key(budget, items[i], b, 0, 1));
    BATON_TRY(int order, compare(key, best_key));
    if (name == "min" ? order < 0 : order > 0) best = i, best_key = std::move(key);
  }
  return items[best];
}

Result<Value> sum_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"attribute", "start"}));
  BATON_TRY(std::vector<Value> items, iterate(budget, v));
  Value total = b.has(1) ? b[1] : Value::integer(0);
  for (const Value& item : items) {
    Value term = item;
    if (b.has(0) && !b[0].is_none()) {
      BATON_TRY(term, dotted(budget, item, to_text(b[0])));
    }
    BATON_TRY(total, binary(budget, "+", total, term));
  }
  return total;
}

Result<Value> batch_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"linecount", "fill_with"}, 1));
  BATON_TRY(int64_t count, b.integer(0, 0));
  if (count < 1 || count > kRangeMax) return fail(Code::kInvalidArgument, "batch() needs a count from 1 to ", kRangeMax);
  BATON_TRY(std::vector<Value> items, iterate(budget, v));
  std::vector<Value> out, row;
  auto flush = [&]() -> Result<> {
    BATON_TRY(Value list, budget.list(std::exchange(row, {})));
    out.push_back(std::move(list));
    return {};
  };
  for (Value& item : items) {
    row.push_back(std::move(item));
    if (static_cast<int64_t>(row.size()) == count) BATON_OK(flush());
  }
  if (!row.empty()) {
    while (b.has(1) && static_cast<int64_t>(row.size()) < count) row.push_back(b[1]);
    BATON_OK(flush());
  }
  return budget.list(std::move(out));
}

Result<Value> int_filter(Budget&, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"default", "base"}));
  BATON_TRY(int64_t otherwise, b.integer(0, 0));
  BATON_TRY(int64_t base, b.integer(1, 10));
  if (v.as<int64_t>() != nullptr || v.as<BigInt>() != nullptr) return v;
  if (auto* flag = v.as<bool>()) return Value::integer(*flag ? 1 : 0);
  std::optional<double> real;
  if (auto* d = v.as<double>()) real = *d;
  if (auto* s = v.string(); s != nullptr && base >= 2 && base <= 36) {
    std::string_view text = strip(*s, nullptr, true, true);
    if (text.starts_with('+')) text.remove_prefix(1);
    int64_t i = 0;
    const char* end = text.data() + text.size();
    if (auto r = std::from_chars(text.data(), end, i, static_cast<int>(base)); r.ec == std::errc() && r.ptr == end)
      return Value::integer(i);
    double d = 0;
    if (auto r = std::from_chars(text.data(), end, d); r.ec == std::errc() && r.ptr == end) real = d;
  }
  if (real && std::fabs(*real) < 9e18) return Value::integer(static_cast<int64_t>(*real));
  return Value::integer(otherwise);
}

Result<Value> float_filter(Budget&, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"default"}));
  if (auto* i = v.as<int64_t>()) return Value::real(static_cast<double>(*i));
  if (auto* flag = v.as<bool>()) return Value::real(*flag ? 1 : 0);
  if (v.as<double>() != nullptr) return v;
  if (auto* s = v.string()) {
    std::string_view text = strip(*s, nullptr, true, true);
    double d = 0;
    const char* end = text.data() + text.size();
    if (auto r = std::from_chars(text.data(), end, d); r.ec == std::errc() && r.ptr == end) return Value::real(d);
  }
  return b.has(0) ? b[0] : Value::real(0);
}

Result<Value> round_filter(Budget&, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"precision", "method"}));
  BATON_TRY(int64_t precision, b.integer(0, 0));
  BATON_TRY(std::string method, b.text(1, "common"));
  if (precision < -300 || precision > 300) return fail(Code::kInvalidArgument, "round(): precision is out of range");
  double d = 0;
  if (auto* i = v.as<int64_t>()) {
    d = static_cast<double>(*i);
  } else if (auto* real = v.as<double>()) {
    d = *real;
  } else {
    return fail(Code::kInvalidArgument, "cannot round a ", v.type_name());
  }
  double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value::real(std::ceil(d * scale) / scale);
  if (method == "floor") return Value::real(std::floor(d * scale) / scale);
  return Value::real(std::nearbyint(d * scale) / scale);  // to even, as Python
}

Result<Value> abs_filter(Budget&, std::string_view name, const Value& v, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  if (auto* i = v.as<int64_t>(); i != nullptr && *i != INT64_MIN) return Value::integer(std::abs(*i));
  if (auto* d = v.as<double>()) return Value::real(std::fabs(*d));
  return fail(Code::kInvalidArgument, "bad operand type for abs(): '", v.type_name(), "'");
}

Result<Value> indent_filter(Budget& budget, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"width", "first", "blank"}));
  std::string pad;
  if (b.has(0) && b[0].string() != nullptr) {
    pad = *b[0].string();
  } else {
    BATON_TRY(int64_t width, b.integer(0, 4));
    if (width < 0 || width > 1000) return fail(Code::kResourceExhausted, "indent(): width must be from 0 to 1000");
    pad.assign(static_cast<size_t>(width), ' ');
  }
  std::string text = to_text(v), out;
  size_t line = 0;
  for (std::string_view s = text;; ++line) {
    size_t end = s.find('\n');
    std::string_view one = s.substr(0, end);
    bool padded = line == 0 ? b.flag(1, false) : !one.empty() || b.flag(2, false);
    BATON_OK(budget.work(one.size() + pad.size()));
    if (padded) out += pad;
    out += one;
    if (end == std::string_view::npos) break;
    out += '\n';
    s.remove_prefix(end + 1);
  }
  return budget.text(std::move(out));
}

Result<Value> same_filter(Budget&, std::string_view name, const Value& v, const Args& args) {
  BATON_OK(Bound::bind(name, args, {}));
  return v;
}

Result<Value> attr_filter(Budget&, std::string_view name, const Value& v, const Args& args) {
  BATON_TRY(Bound b, Bound::bind(name, args, {"name"}, 1));
  std::string attribute = to_text(b[0]);
  if (v.dict() != nullptr && !has_method(v, attribute))
    return Value::undefined(cat("'dict object' has no attribute '", attribute, "'"));
  return get_attribute(v, attribute);  // never an item of a dict
}

struct Row {
  std::string_view name;
  Filter filter;
};
constexpr Row kFilters[] = {
    {"string", text_filter},       {"upper", text_filter},        {"lower", text_filter},        {"capitalize", text_filter},
    {"title", title_filter},       {"trim", trim_filter},         {"replace", replace_filter},   {"default", default_filter},
    {"d", default_filter},         {"length", length_filter},     {"count", length_filter},      {"tojson", tojson_filter},
    {"first", end_filter},         {"last", end_filter},          {"list", list_filter},         {"reverse", reverse_filter},
    {"items", items_filter},       {"join", join_filter},         {"map", map_filter},           {"select", select_filter},
    {"reject", select_filter},     {"selectattr", select_filter}, {"rejectattr", select_filter}, {"sort", sort_filter},
    {"dictsort", dictsort_filter}, {"unique", unique_filter},     {"min", extreme_filter},       {"max", extreme_filter},
    {"sum", sum_filter},           {"batch", batch_filter},       {"int", int_filter},           {"float", float_filter},
    {"round", round_filter},       {"abs", abs_filter},           {"indent", indent_filter},     {"safe", same_filter},
    {"attr", attr_filter}};

}  // namespace

Result<Value> call_filter(Budget& budget, std::string_view name, const Value& subject, const Args& args) {
  auto it = std::ranges::find(kFilters, name, &Row::name);
  if (it == std::end(kFilters))
    return fail(Code::kUnimplemented, "filter ", json_string(name), " is not supported in chat templates");
  return it->filter(budget, name, subject, args);
}

}  // namespace baton::text::jinja
