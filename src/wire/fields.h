#pragma once
// Fields: typed reads of one JSON object of a request. null counts as absent everywhere (clients send null for every default);
// unknown keys are never an error; a number or a truth may stand in a string, as vLLM takes it. The first error sticks and later
// reads do nothing, so a parser reads as a table and checks once at the end. Error texts are pydantic's, as vLLM sends them;
// parent: the path of an object that lies inside the request, which they name its members with. The object and parent must
// outlive this. Single threaded.
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "wire/errors.h"

namespace baton::wire {

class Fields {
 public:
  explicit Fields(const Json& object, std::string_view parent = "") : object_(object), parent_(parent) {}

  const Json* get(std::string_view key);  // nullptr if absent or null; marks the key as known
  bool has(std::string_view key) { return get(key) != nullptr; }

  void flag(std::string_view key, bool& out);
  void integer(std::string_view key, int32_t& out);
  void integer(std::string_view key, std::optional<int32_t>& out);
  void integer(std::string_view key, std::optional<int64_t>& out);
  void engine_integer(std::string_view key, std::optional<int32_t>& out);  // refused in the same words, but as the engine does
  void number(std::string_view key, std::optional<double>& out);
  void text(std::string_view key, std::string& out, size_t bytes_max);
  void texts(std::string_view key, std::vector<std::string>& out, size_t count_max,
             size_t bytes_max);  // a string counts as a list of one
  void integers(std::string_view key, std::vector<int32_t>& out, size_t count_max);
  void known(std::initializer_list<std::string_view> keys);  // keys that are accepted and ignored

  // Sets the error unless there is one already. What it says may begin with an About or an At (wire/errors.h).
  void reject(const Error& error) {
    if (!error_) error_ = error;
  }
  template <class... Args>
  void reject(Code code, const Args&... args) {
    if (!error_) error_ = Error{code, cat(args...)};
  }
  template <class... Args>
  void reject(About about, const Args&... args) {
    if (!error_) error_ = refuse(about, args...).error();
  }
  template <class... Args>
  void reject(At at, const Args&... args) {
    if (!error_) error_ = refuse(At{cat(parent_, parent_.empty() ? "" : ".", at.path)}, args...).error();
  }
  template <class First, class... Args>
  void require(bool ok, const First& first, const Args&... args) {
    if (ok) return;
    if constexpr (std::is_same_v<First, About> || std::is_same_v<First, At>)
      reject(first, args...);
    else
      reject(Code::kInvalidArgument, first, args...);
  }
  const std::optional<Error>& error() const { return error_; }
  std::vector<std::string> unknown() const;  // keys nobody asked for

 private:
  const Json& object_;
  std::string_view parent_;
  std::vector<std::string_view> seen_;
  std::optional<Error> error_;
};

}  // namespace baton::wire
