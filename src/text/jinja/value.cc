#include "text/jinja/value.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>

#include "text/limits.h"
#include "text/unicode.h"

namespace baton::text::jinja {
namespace {

constexpr size_t kSmallDict = 16;  // up to here a search beats an index

Result<int> deeper(int depth) {
  if (depth + 1 > kValueDepthMax) return fail(Code::kResourceExhausted, "a value is nested deeper than ", kValueDepthMax);
  return depth + 1;
}

Result<> check_weight(size_t weight) {
  if (weight > kRenderBytesMax) return fail(Code::kResourceExhausted, "a value is larger than ", kRenderBytesMax, " bytes");
  return {};
}

// The number behind a bool, int or float, so that True == 1 == 1.0.
std::optional<double> number_of(const Value& v) {
  if (auto* b = v.as<bool>()) return *b ? 1.0 : 0.0;
  if (auto* i = v.as<int64_t>()) return static_cast<double>(*i);
  if (auto* d = v.as<double>()) return *d;
  return std::nullopt;
}

std::optional<int64_t> integer_of(const Value& v) {
  if (auto* b = v.as<bool>()) return *b ? 1 : 0;
  if (auto* i = v.as<int64_t>()) return *i;
  return std::nullopt;
}

}  // namespace

Result<Value> Value::list(std::vector<Value> items, bool tuple) {
  int depth = 0;
  auto list = std::make_shared<List>();
  for (const Value& v : items) {
    depth = std::max(depth, v.depth());
    BATON_OK(check_weight(list->weight += v.weight()));
  }
  BATON_TRY(list->depth, deeper(depth));
  list->items = std::move(items);
  list->tuple = tuple;
  return Value(Data(std::shared_ptr<const List>(std::move(list))));
}

Result<Value> Value::dict(std::vector<std::pair<Value, Value>> items) {
  auto dict = std::make_shared<Dict>();
  bool indexed = items.size() > kSmallDict;
  int depth = 0;
  for (auto& [key, value] : items) {
    depth = std::max(depth, value.depth());
    BATON_OK(check_weight(dict->weight += key.weight() + value.weight()));
    if (key.list() != nullptr || key.dict() != nullptr)
      return fail(Code::kInvalidArgument, "a ", key.type_name(), " cannot be a key");
    Value* found = const_cast<Value*>(dict->find(key));  // ours until it is published
    if (found != nullptr) {
      *found = std::move(value);
      continue;
    }
    if (const std::string* s = key.string(); s != nullptr && indexed) dict->index.emplace(*s, dict->items.size());
    dict->items.emplace_back(std::move(key), std::move(value));
  }
  BATON_TRY(dict->depth, deeper(depth));
  return Value(Data(std::shared_ptr<const Dict>(std::move(dict))));
}

Result<Value> Value::from_json(const Json& json) {
  switch (json.kind) {
    case Json::Kind::kNull:
      return none();
    case Json::Kind::kBool:
      return boolean(json.boolean);
    case Json::Kind::kString:
      return string(json.text);
    case Json::Kind::kNumber: {
      bool fraction = json.text.find_first_of(".eE") != std::string::npos;
      if (fraction) return real(json.as_double().value_or(HUGE_VAL));
      if (auto i = json.as_int()) return integer(*i);
      return Value(Data(BigInt{json.text}));
    }
    case Json::Kind::kArray: {
      std::vector<Value> items;
      items.reserve(json.items.size());
      for (const Json& item : json.items) {
        BATON_TRY(Value v, from_json(item));
        items.push_back(std::move(v));
      }
      return list(std::move(items));
    }
    case Json::Kind::kObject: {
      std::vector<std::pair<Value, Value>> items;
      items.reserve(json.items.size());
      for (size_t i = 0; i < json.items.size(); ++i) {
        BATON_TRY(Value v, from_json(json.items[i]));
        items.emplace_back(string(json.keys[i]), std::move(v));
      }
      return dict(std::move(items));
    }
  }
  return none();
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  if (auto n = number_of(*this)) return *n != 0;
  if (auto* s = string()) return !s->empty();
  if (auto* l = list()) return !l->items.empty();
  if (auto* d = dict()) return !d->items.empty();
  return true;
}

int Value::depth() const {
  if (auto* l = list()) return l->depth;
  if (auto* d = dict()) return d->depth;
  return 0;
}

size_t Value::weight() const {
  constexpr size_t kScalar = 16;
  if (auto* s = string()) return kScalar + s->size();
  if (auto* l = list()) return kScalar + l->weight;
  if (auto* d = dict()) return kScalar + d->weight;
  return kScalar;
}

std::string_view Value::type_name() const {
  if (auto* l = list()) return l->tuple ? "tuple" : "list";
  static constexpr std::string_view kNames[] = {"Undefined", "NoneType", "bool", "int",      "float",       "int",
                                                "str",       "list",     "dict", "function", "LoopContext", "Namespace"};
  return kNames[data_.index()];
}

const Value* Dict::find(std::string_view key) const {
  if (!index.empty()) {
    auto it = index.find(key);
    return it == index.end() ? nullptr : &items[it->second].second;
  }
  for (const auto& [k, v] : items) {
    if (const std::string* s = k.string(); s != nullptr && *s == key) return &v;
  }
  return nullptr;
}

const Value* Dict::find(const Value& key) const {
  if (const std::string* s = key.string()) return find(std::string_view(*s));
  for (const auto& [k, v] : items) {
    if (equal(k, key)) return &v;
  }
  return nullptr;
}

bool equal(const Value& a, const Value& b) {
  if (auto i = integer_of(a), j = integer_of(b); i && j) return *i == *j;
  if (auto x = number_of(a), y = number_of(b); x && y) return *x == *y;
  if (a.data().index() != b.data().index()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (auto* s = a.string()) return *s == *b.string();
  if (auto* big = a.as<BigInt>()) return big->digits == b.as<BigInt>()->digits;
  if (auto* l = a.list()) {
    return l->tuple == b.list()->tuple && std::ranges::equal(l->items, b.list()->items, equal);
  }
  if (auto* d = a.dict()) {
    return d->items.size() == b.dict()->items.size() && std::ranges::all_of(d->items, [&](const auto& item) {
             const Value* other = b.dict()->find(item.first);
             return other != nullptr && equal(item.second, *other);
           });
  }
  if (auto* n = a.as<std::shared_ptr<Namespace>>()) return *n == *b.as<std::shared_ptr<Namespace>>();
  return false;
}

Result<int> compare(const Value& a, const Value& b) {
  auto sign = [](auto x, auto y) { return x < y ? -1 : x > y ? 1 : 0; };
  if (auto i = integer_of(a), j = integer_of(b); i && j) return sign(*i, *j);
  if (auto x = number_of(a), y = number_of(b); x && y) return sign(*x, *y);
  if (a.string() != nullptr && b.string() != nullptr) return sign(*a.string(), *b.string());
  if (a.list() != nullptr && b.list() != nullptr) {
    const auto &x = a.list()->items, &y = b.list()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (equal(x[i], y[i])) continue;
      return compare(x[i], y[i]);
    }
    return sign(x.size(), y.size());
  }
  return fail(Code::kInvalidArgument, "cannot order ", a.type_name(), " and ", b.type_name());
}

}  // namespace baton::text::jinja
