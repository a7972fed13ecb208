#pragma once
// Value: what a chat template computes with: Python's values as Jinja sees them, immutable but for namespaces.
// Cheap to copy (shared). Nesting (kValueDepthMax) and written-out size (kRenderBytesMax) are bounded at construction, so walking
// a value by recursion is safe. Dict keys keep their order. Not thread safe to mutate; one render owns its values.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace baton::text::jinja {

class Value;
struct Macro;  // ast.h
struct Scope;  // interpreter.h

struct Undefined {
  std::string name;  // what was missing, for the error message
};
struct None {};
struct BigInt {
  std::string digits;  // beyond int64: kept exactly, printed, compared as text, not computed with
};
using String = std::shared_ptr<const std::string>;

struct List;
struct Dict;

// Something to call: a macro, a built-in function, or a method bound to its object.
struct Callable {
  enum class Kind : uint8_t { kFunction, kMethod, kMacro } kind;
  std::string name = {};
  std::shared_ptr<const Value> self = {};  // kMethod: the object
  const Macro* macro = nullptr;            // kMacro: in the compiled template
  Scope* scope = nullptr;                  // where it was defined
};

struct Loop {  // the `loop` variable
  std::shared_ptr<const List> items;
  size_t index0 = 0;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
};

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, BigInt, String, std::shared_ptr<const List>,
                            std::shared_ptr<const Dict>, std::shared_ptr<const Callable>, std::shared_ptr<Loop>,
                            std::shared_ptr<Namespace>>;
  Value() = default;  // undefined
  Value(Data data) : data_(std::move(data)) {}
  static Value none() { return Data(None{}); }
  static Value undefined(std::string name) { return Data(Undefined{std::move(name)}); }
  static Value boolean(bool b) { return Data(b); }
  static Value integer(int64_t i) { return Data(i); }
  static Value real(double d) { return Data(d); }
  static Value string(std::string s) { return Data(std::make_shared<const std::string>(std::move(s))); }
  static Result<Value> list(std::vector<Value> items, bool tuple = false);
  static Result<Value> dict(std::vector<std::pair<Value, Value>> items);  // a later equal key replaces the earlier value
  static Result<Value> from_json(const Json& json);

  const Data& data() const { return data_; }
  template <class T>
  const T* as() const {
    return std::get_if<T>(&data_);
  }
  bool is_undefined() const { return as<Undefined>() != nullptr; }
  bool is_none() const { return as<None>() != nullptr; }
  bool is_bool() const { return as<bool>() != nullptr; }
  bool is_number() const { return is_bool() || as<int64_t>() || as<double>() || as<BigInt>(); }
  const std::string* string() const { return as<String>() ? as<String>()->get() : nullptr; }
  const List* list() const { return as<std::shared_ptr<const List>>() ? as<std::shared_ptr<const List>>()->get() : nullptr; }
  const Dict* dict() const { return as<std::shared_ptr<const Dict>>() ? as<std::shared_ptr<const Dict>>()->get() : nullptr; }
  bool truthy() const;
  int depth() const;                   // 0 for scalars
  size_t weight() const;               // bytes it takes written out, about; shared parts count every time
  std::string_view type_name() const;  // Python's: "str", "NoneType", ...

 private:
  Data data_;
};

struct List {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 1;
  size_t weight = 0;
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;
  std::unordered_map<std::string_view, size_t> index;  // of string keys, when there are many
  int depth = 1;
  size_t weight = 0;
  const Value* find(std::string_view key) const;
  const Value* find(const Value& key) const;
};

bool equal(const Value& a, const Value& b);
// Python's ordering; an error for types it cannot compare.
Result<int> compare(const Value& a, const Value& b);

std::string to_text(const Value& v);  // str(v)
std::string repr(const Value& v);     // repr(v)
std::string float_text(double d);     // repr of a float: "1.0", "1e-05", "nan"
// json.dumps(v, ensure_ascii=False, indent, sort_keys); indent < 0: one line with ", " and ": ".
struct JsonStyle {
  int indent = -1;
  bool sort_keys = false;
  bool ascii = false;
  std::string item_separator = ", ", key_separator = ": ";
};
Result<std::string> to_json(const Value& v, const JsonStyle& style);

}  // namespace baton::text::jinja
