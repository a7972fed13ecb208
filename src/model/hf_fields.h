#pragma once
// HfFields: typed reading of config.json's objects (facts sheet engine.md 4.1). Absent keys take the default the caller states,
// as transformers' own configuration classes do. One object on the stack of one reader.
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace baton::model {

// Reads fields; remembers the first that is missing or of the wrong kind, so that a caller asks for many and checks once.
class HfFields {
 public:
  HfFields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  // null counts as absent, as in transformers.
  const Json* find(std::string_view key) const {
    const Json* v = json_.find(key);
    return v && v->is_null() ? nullptr : v;
  }
  bool has(std::string_view key) const { return json_.find(key) != nullptr; }  // null too
  int32_t int32(std::string_view key, std::optional<int32_t> absent = std::nullopt) {
    const Json* v = need(key, absent.has_value());
    if (!v) return absent.value_or(0);
    const auto n = v->as_int();
    if (!n || *n < INT32_MIN || *n > INT32_MAX) complain(key, "must be a 32-bit integer");
    return n ? static_cast<int32_t>(std::clamp<int64_t>(*n, INT32_MIN, INT32_MAX)) : 0;
  }
  double number(std::string_view key, std::optional<double> absent = std::nullopt) {
    const Json* v = need(key, absent.has_value());
    if (!v) return absent.value_or(0);
    const auto d = v->as_double();
    if (!d) complain(key, "must be a finite number");
    return d.value_or(0);
  }
  bool boolean(std::string_view key, bool absent) {
    const Json* v = find(key);
    if (!v) return absent;
    const auto b = v->as_bool();
    if (!b) complain(key, "must be true or false");
    return b.value_or(absent);
  }
  std::string string(std::string_view key, std::string_view absent) {
    const Json* v = find(key);
    if (!v) return std::string(absent);
    const auto s = v->as_string();
    if (!s) complain(key, "must be a string");
    return std::string(s.value_or(absent));
  }
  std::vector<float> numbers(std::string_view key) {
    const Json* v = find(key);
    if (!v) return {};
    std::vector<float> out;
    for (const Json& item : v->items) out.push_back(static_cast<float>(item.as_double().value_or(NAN)));
    if (!v->is_array() || std::ranges::any_of(out, [](float f) { return !std::isfinite(f); }))
      complain(key, "must be an array of numbers");
    return out;
  }
  // An id or a list of ids.
  std::vector<int32_t> ids(std::string_view key) {
    const Json* v = find(key);
    if (!v) return {};
    std::vector<int32_t> out;
    const std::span<const Json> list = v->is_array() ? std::span<const Json>(v->items) : std::span<const Json>(v, 1);
    for (const Json& item : list) {
      const auto n = item.as_int();
      if (!n || *n < 0 || *n > INT32_MAX) {
        complain(key, "must be a token id or a list of them");
        return {};
      }
      if (std::ranges::find(out, *n) == out.end()) out.push_back(static_cast<int32_t>(*n));
    }
    return out;
  }
  void complain(std::string_view key, std::string_view what, Code code = Code::kInvalidArgument) {
    if (!error_) error_ = Error{code, cat(where_, ": \"", key, "\" ", what)};
  }
  Result<> status() const {
    if (error_) return std::unexpected(*error_);
    return {};
  }

 private:
  const Json* need(std::string_view key, bool optional) {
    const Json* v = find(key);
    if (!v && !optional) complain(key, "is missing");
    return v;
  }
  const Json& json_;
  std::string where_;
  std::optional<Error> error_;
};

}  // namespace baton::model
