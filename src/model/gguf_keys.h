#pragma once
// GgufKeys: typed reading of a GGUF file's key/value pairs (facts sheet engine.md 4.3). One object on the stack of one reader.
#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/gguf.h"

namespace baton::model {

// Reads keys; remembers the first that is missing or of the wrong kind, so that a caller asks for many and checks once.
class GgufKeys {
 public:
  GgufKeys(const Gguf& gguf, std::string arch) : gguf_(gguf), arch_(std::move(arch)) {}

  // GgufKeys that begin with "." belong to the architecture.
  int32_t int32(std::string_view key, std::optional<int32_t> missing = std::nullopt) {
    const GgufValue* v = find(key, missing.has_value());
    if (!v) return missing.value_or(0);
    const auto n = v->as_int();
    if (!n || *n < INT32_MIN || *n > INT32_MAX) {
      complain(key, v->is_array ? "is an array: layers of different shape are not supported" : "must be a 32-bit integer");
      return 0;
    }
    return static_cast<int32_t>(*n);
  }
  double number(std::string_view key, std::optional<double> missing = std::nullopt) {
    const GgufValue* v = find(key, missing.has_value());
    if (!v) return missing.value_or(0);
    const auto d = v->as_double();
    if (!d) complain(key, "must be a number");
    return d.value_or(0);
  }
  std::string string(std::string_view key) {
    const GgufValue* v = find(key, true);
    if (!v) return "";
    const auto s = v->as_string();
    if (!s) complain(key, "must be a string");
    return std::string(s.value_or(""));
  }
  bool boolean(std::string_view key, bool missing) {
    const GgufValue* v = find(key, true);
    if (!v) return missing;
    const auto b = v->as_bool();
    if (!b) complain(key, "must be a boolean");
    return b.value_or(missing);
  }
  std::vector<std::string> strings(std::string_view key) {
    const GgufValue* v = find(key, true);
    if (!v) return {};
    const auto list = v->as_strings();
    if (!list) {
      complain(key, "must be an array of strings");
      return {};
    }
    return {list->begin(), list->end()};
  }
  std::vector<int32_t> ints(std::string_view key) {
    const GgufValue* v = find(key, true);
    if (!v) return {};
    const auto list = v->as_ints();
    if (!list || std::ranges::any_of(*list, [](int64_t n) { return n < INT32_MIN || n > INT32_MAX; })) {
      complain(key, "must be an array of 32-bit integers");
      return {};
    }
    return {list->begin(), list->end()};
  }
  std::vector<float> floats(std::string_view key) {
    const GgufValue* v = find(key, true);
    if (!v) return {};
    auto list = v->as_floats();
    if (!list) complain(key, "must be an array of 32-bit floats");
    return list ? *std::move(list) : std::vector<float>{};
  }
  bool has(std::string_view key) const { return gguf_.find(full(key)) != nullptr; }
  bool is_array(std::string_view key) const { return has(key) && gguf_.find(full(key))->is_array; }
  void complain(std::string_view key, std::string_view what, Code code = Code::kInvalidArgument) {
    if (!error_) error_ = Error{code, cat("key ", full(key), " ", what)};
  }
  Result<> status() const {
    if (error_) return std::unexpected(*error_);
    return {};
  }

 private:
  std::string full(std::string_view key) const { return key.starts_with('.') ? arch_ + std::string(key) : std::string(key); }
  const GgufValue* find(std::string_view key, bool optional) {
    const GgufValue* v = gguf_.find(full(key));
    if (!v && !optional) complain(key, "is missing; the file is incomplete: convert or download it again");
    return v;
  }

  const Gguf& gguf_;
  std::string arch_;
  std::optional<Error> error_;
};

}  // namespace baton::model
