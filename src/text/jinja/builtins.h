#pragma once
// What templates can call by name: filters (x | name), tests (x is name), methods (x.name()) and functions (name()).
// Semantics are Jinja 3.1's on Python values, in the immutable sandbox Hugging Face renders with. An unknown name is an error
// that names it. Every operation charges the Budget for the bytes it reads and builds. One render, one thread.
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"
#include "text/limits.h"

namespace baton::text::jinja {

// What one render may still spend.
class Budget {
 public:
  Result<> step() {
    if (++steps_ > kRenderStepsMax)
      return fail(Code::kResourceExhausted, "chat template takes more than ", kRenderStepsMax, " steps");
    return {};
  }
  Result<> work(size_t bytes) {
    if (bytes > kRenderWorkMax - work_)
      return fail(Code::kResourceExhausted, "chat template handles more than ", kRenderWorkMax, " bytes");
    work_ += bytes;
    return {};
  }
  Result<Value> text(std::string s) {
    BATON_OK(work(s.size()));
    if (s.size() > kRenderBytesMax) return fail(Code::kResourceExhausted, "a text is larger than ", kRenderBytesMax, " bytes");
    return Value::string(std::move(s));
  }
  Result<Value> list(std::vector<Value> items, bool tuple = false) {
    BATON_OK(work(items.size() * sizeof(Value)));
    return Value::list(std::move(items), tuple);
  }

 private:
  int64_t steps_ = 0;
  size_t work_ = 0;
};

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

// Arguments in the order of their parameters; absent ones are null. Parameters after the first `required` may be left out.
class Bound {
 public:
  static Result<Bound> bind(std::string_view callee, const Args& args, std::initializer_list<std::string_view> parameters,
                            size_t required = 0);
  bool has(size_t i) const { return values_[i] != nullptr; }
  const Value& operator[](size_t i) const { return *values_[i]; }  // requires has(i)
  bool flag(size_t i, bool otherwise) const { return has(i) ? values_[i]->truthy() : otherwise; }
  Result<int64_t> integer(size_t i, int64_t otherwise) const;
  Result<std::string> text(size_t i, std::string_view otherwise) const;  // a str, or an error

 private:
  std::string callee_;
  std::vector<const Value*> values_;
};

Result<Value> call_filter(Budget& budget, std::string_view name, const Value& subject, const Args& args);
Result<bool> call_test(Budget& budget, std::string_view name, const Value& subject, const Args& args);
bool has_method(const Value& self, std::string_view name);
Result<Value> call_method(Budget& budget, const Value& self, std::string_view name, const Args& args);
bool has_function(std::string_view name);
Result<Value> call_function(Budget& budget, std::string_view name, const Args& args);

// x.name and x[key]; what is not there is undefined, but asking an undefined value is an error.
Result<Value> get_attribute(const Value& v, std::string_view name);
Result<Value> get_item(Budget& budget, const Value& v, const Value& key);
Result<Value> get_slice(Budget& budget, const Value& v, const Value& start, const Value& stop, const Value& step);
// The elements a for loop sees: list items, dict keys, characters, nothing if undefined.
Result<std::vector<Value>> iterate(Budget& budget, const Value& v);
Result<bool> contains(Budget& budget, const Value& container, const Value& v);
Result<Value> binary(Budget& budget, std::string_view op, const Value& a, const Value& b);
Result<> need_defined(const Value& v);  // an error if v is undefined

// Text by code points.
size_t code_points(std::string_view s);
std::string_view strip(std::string_view s, const std::string* characters, bool left, bool right);  // null: whitespace
std::string change_case(std::string_view s, bool upper);
std::string capitalize(std::string_view s);
Result<std::string> replace(Budget& budget, std::string_view s, std::string_view from, std::string_view to, int64_t count);

}  // namespace baton::text::jinja
