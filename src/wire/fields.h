#pragma once
// Fields: typed reads of one JSON object of a request. null counts as absent everywhere (clients send null for every default);
// unknown keys are never an error; a number or a truth may stand in a string, as vLLM takes it. The first error sticks and later reads do nothing, so a parser reads as a table and checks
// once at the end. Error texts are pydantic's, as vLLM sends them. The object must outlive this. Single threaded.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace baton::wire {

class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  const Json* get(std::string_view key);  // nullptr if absent or null; marks the key as known
  bool has(std::string_view key) { return get(key) != nullptr; }

  void flag(std::string_view key, bool& out);
  void integer(std::string_view key, int32_t& out);
  void integer(std::string_view key, std::optional<int32_t>& out);
  void integer(std::string_view key, std::optional<int64_t>& out);
  void number(std::string_view key, std::optional<double>& out);
  void text(std::string_view key, std::string& out, size_t bytes_max);
  void texts(std::string_view key, std::vector<std::string>& out, size_t count_max,
             size_t bytes_max);  // a string counts as a list of one
  void integers(std::string_view key, std::vector<int32_t>& out, size_t count_max);
  void known(std::initializer_list<std::string_view> keys);  // keys that are accepted and ignored

  // Sets the error unless there is one already.
  template <class... Args>
  void reject(Code code, const Args&... args) {
    if (!error_) error_ = Error{code, cat(args...)};
  }
  template <class... Args>
  void require(bool ok, const Args&... args) {
    if (!ok) reject(Code::kInvalidArgument, args...);
  }
  const std::optional<Error>& error() const { return error_; }
  std::vector<std::string> unknown() const;  // keys nobody asked for

 private:
  const Json& object_;
  std::vector<std::string_view> seen_;
  std::optional<Error> error_;
};

}  // namespace baton::wire
