#pragma once
// JsonCall: reads {"name": "f", "arguments": {...}} byte by byte and passes the arguments on as they come, once the name is
// known. Keys may come in any order; others are ignored. After reset() one object can be read; feed() no more once done() or
// bad().
#include <string>
#include <string_view>

#include "parse/event.h"

namespace baton::parse {

// What a call's members are named; "" = there is none.
struct CallKeys {
  std::string_view name = "name", arguments = "arguments";  // name "": the only member's key is the function's name
  std::string_view or_arguments = "";                       // another name of them
  std::string_view id = "";                                 // a string that stands before the arguments
};
inline constexpr CallKeys kOrParameters{.or_arguments = "parameters"};

bool is_function_name(std::string_view s);  // letters, digits, _, - and ., as a call without quotes has them

// Follows one JSON value until it ends: brackets and strings only; whether it is JSON is the caller's to check.
class JsonExtent {
 public:
  enum class State : uint8_t { kMore, kDone, kBad };
  void reset() { *this = {}; }
  State feed(char c);  // the first byte is '{', '[' or '"'

 private:
  std::string open_;
  bool string_ = false, escape_ = false;
};

class JsonCall {
 public:
  explicit JsonCall(const CallKeys& keys) : keys_(keys) {}
  void reset();
  void feed(char c, Events& out);
  bool done() const { return state_ == State::kDone; }
  bool bad() const { return state_ == State::kBad; }  // the byte that was fed last is not in any event
  bool called() const { return called_; }             // the kCall went out
  bool valid() const { return valid_; }               // with done(): it is JSON, with a name and arguments

 private:
  enum class State : uint8_t { kStart, kFirstKey, kKey, kInKey, kColon, kValue, kInValue, kInScalar, kNext, kDone, kBad };
  bool is_arguments() const;
  void begin_value(char c, Events& out);
  void value_byte(char c, Events& out);
  void end_value();
  void end_object(Events& out);

  const CallKeys keys_;
  State state_ = State::kStart;
  JsonExtent extent_;
  std::string text_, key_, value_, name_, arguments_, id_;
  bool called_ = false, streaming_ = false, has_arguments_ = false, valid_ = false;
};

}  // namespace baton::parse
